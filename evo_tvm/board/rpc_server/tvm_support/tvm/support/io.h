/* A stream of bytes, as TVM's runtime uses it; the wheels ship the runtime's sources without this header. */
#ifndef TVM_SUPPORT_IO_H_
#define TVM_SUPPORT_IO_H_

#include <cstddef>

namespace tvm {
namespace support {

class Stream {
 public:
  virtual ~Stream() = default;
  /* Both give the number of bytes that they moved. */
  virtual size_t Read(void* data, size_t size) = 0;
  virtual size_t Write(const void* data, size_t size) = 0;

  /* Values of the types that serializer.h knows. Reading gives false at the end of the stream. */
  template <typename T>
  void Write(const T& value);
  template <typename T>
  bool Read(T* value);
  template <typename T>
  void WriteArray(const T* values, size_t number) {
    for (size_t i = 0; i < number; ++i) this->Write(values[i]);
  }
  template <typename T>
  bool ReadArray(T* values, size_t number) {
    for (size_t i = 0; i < number; ++i) {
      if (!this->Read(&values[i])) return false;
    }
    return true;
  }
};

}  // namespace support
}  // namespace tvm

#include <tvm/support/serializer.h>

#endif
