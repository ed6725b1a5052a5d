/* Streams over strings. */
#ifndef TVM_SUPPORT_BYTES_IO_H_
#define TVM_SUPPORT_BYTES_IO_H_

#include <tvm/support/io.h>

#include <algorithm>
#include <cstring>
#include <string>

namespace tvm {
namespace support {

class BytesInStream : public Stream {
 public:
  using Stream::Read;
  using Stream::Write;
  explicit BytesInStream(const std::string& content) : at_(content.data()), left_(content.size()) {}
  size_t Read(void* data, size_t size) final {
    size = std::min(size, left_);
    std::memcpy(data, at_, size);
    at_ += size;
    left_ -= size;
    return size;
  }
  size_t Write(const void*, size_t) final { return 0; }

 private:
  const char* at_;
  size_t left_;
};

class BytesOutStream : public Stream {
 public:
  using Stream::Read;
  using Stream::Write;
  explicit BytesOutStream(std::string* content) : content_(content) {}
  size_t Read(void*, size_t) final { return 0; }
  size_t Write(const void* data, size_t size) final {
    content_->append(static_cast<const char*>(data), size);
    return size;
  }

 private:
  std::string* content_;
};

}  // namespace support
}  // namespace tvm

#endif
