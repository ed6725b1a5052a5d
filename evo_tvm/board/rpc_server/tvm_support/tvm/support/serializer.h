/* How values lie in a stream: plain ones byte by byte, sequences behind their length as uint64. */
#ifndef TVM_SUPPORT_SERIALIZER_H_
#define TVM_SUPPORT_SERIALIZER_H_

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/string.h>
#include <tvm/support/io.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace tvm {
namespace support {

template <typename T, typename = void>
struct Serializer {
  static_assert(std::is_trivially_copyable_v<T>, "no serializer for this type");
  static void Write(Stream* stream, const T& value) { stream->Write(static_cast<const void*>(&value), sizeof(T)); }
  static bool Read(Stream* stream, T* value) { return stream->Read(static_cast<void*>(value), sizeof(T)) == sizeof(T); }
};

template <>
struct Serializer<std::string> {
  static void Write(Stream* stream, const std::string& value) {
    Serializer<uint64_t>::Write(stream, value.size());
    if (!value.empty()) stream->Write(static_cast<const void*>(value.data()), value.size());
  }
  static bool Read(Stream* stream, std::string* value) {
    uint64_t size;
    if (!Serializer<uint64_t>::Read(stream, &size)) return false;
    value->resize(size);
    return size == 0 || stream->Read(static_cast<void*>(value->data()), size) == size;
  }
};

template <>
struct Serializer<ffi::String> {
  static void Write(Stream* stream, const ffi::String& value) { Serializer<std::string>::Write(stream, value); }
  static bool Read(Stream* stream, ffi::String* value) {
    std::string text;
    if (!Serializer<std::string>::Read(stream, &text)) return false;
    *value = ffi::String(std::move(text));
    return true;
  }
};

/* Both kinds of sequences have size(), a range and push_back. */
template <typename Sequence, typename T>
struct SequenceSerializer {
  static void Write(Stream* stream, const Sequence& values) {
    Serializer<uint64_t>::Write(stream, values.size());
    for (const T& value : values) Serializer<T>::Write(stream, value);
  }
  static bool Read(Stream* stream, Sequence* values) {
    uint64_t size;
    if (!Serializer<uint64_t>::Read(stream, &size)) return false;
    *values = Sequence();
    for (uint64_t i = 0; i < size; ++i) {
      T value{};
      if (!Serializer<T>::Read(stream, &value)) return false;
      values->push_back(std::move(value));
    }
    return true;
  }
};
template <typename T>
struct Serializer<std::vector<T>> : SequenceSerializer<std::vector<T>, T> {};
template <typename T>
struct Serializer<ffi::Array<T>> : SequenceSerializer<ffi::Array<T>, T> {};

template <typename T>
void Stream::Write(const T& value) {
  Serializer<T>::Write(this, value);
}
template <typename T>
bool Stream::Read(T* value) {
  return Serializer<T>::Read(this, value);
}

}  // namespace support
}  // namespace tvm

#endif
