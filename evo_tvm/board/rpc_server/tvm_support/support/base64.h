/* Base64 (RFC 4648) over a stream. */
#ifndef TVM_SUPPORT_BASE64_H_
#define TVM_SUPPORT_BASE64_H_

#include <tvm/support/io.h>

#include <cstdint>
#include <cstring>

namespace tvm {
namespace support {

inline constexpr char kBase64Digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Decodes what it reads; white space does not count, and "=" ends it. */
class Base64InStream : public Stream {
 public:
  using Stream::Read;
  using Stream::Write;
  explicit Base64InStream(Stream* source) : source_(source) {}
  void InitPosition() { bits_ = count_ = 0; }
  size_t Read(void* data, size_t size) final {
    for (size_t done = 0; done < size; ++done) {
      while (count_ < 8) {
        char digit;
        if (source_->Read(static_cast<void*>(&digit), 1) != 1 || digit == '=') return done;
        const char* place = digit == '\0' ? nullptr : std::strchr(kBase64Digits, digit);
        if (place == nullptr) continue;
        bits_ = bits_ << 6 | static_cast<uint32_t>(place - kBase64Digits);
        count_ += 6;
      }
      count_ -= 8;
      static_cast<uint8_t*>(data)[done] = static_cast<uint8_t>(bits_ >> count_);
    }
    return size;
  }
  size_t Write(const void*, size_t) final { return 0; }

 private:
  Stream* source_;
  uint32_t bits_ = 0, count_ = 0;
};

/* Encodes what is written; Finish writes what is left. */
class Base64OutStream : public Stream {
 public:
  using Stream::Read;
  using Stream::Write;
  explicit Base64OutStream(Stream* target) : target_(target) {}
  size_t Read(void*, size_t) final { return 0; }
  size_t Write(const void* data, size_t size) final {
    for (size_t i = 0; i < size; ++i) {
      bits_ = bits_ << 8 | static_cast<const uint8_t*>(data)[i];
      for (count_ += 8; count_ >= 6;) Put(kBase64Digits[bits_ >> (count_ -= 6) & 63]);
    }
    return size;
  }
  void Finish() {
    if (count_ > 0) Put(kBase64Digits[bits_ << (6 - count_) & 63]);
    while (digits_ % 4 != 0) Put('=');
    bits_ = count_ = 0;
  }

 private:
  void Put(char digit) {
    target_->Write(static_cast<const void*>(&digit), 1);
    ++digits_;
  }
  Stream* target_;
  uint32_t bits_ = 0, count_ = 0;
  size_t digits_ = 0;
};

}  // namespace support
}  // namespace tvm

#endif
