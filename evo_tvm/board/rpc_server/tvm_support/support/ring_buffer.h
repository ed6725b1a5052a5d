/* Bytes in the order in which they came, in memory that grows when it must. */
#ifndef TVM_SUPPORT_RING_BUFFER_H_
#define TVM_SUPPORT_RING_BUFFER_H_

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace tvm {
namespace support {

class RingBuffer {
 public:
  size_t bytes_available() const { return held_; }

  /* Has room for `size` bytes in all. Memory that one large message took is given back after it. */
  void Reserve(size_t size) {
    if (size > ring_.size()) {
      Resize(std::max(size, 2 * ring_.size()));
    } else if (ring_.size() > kKept && std::max(size, held_) < kKept / 4) {
      Resize(kKept);
    }
  }
  void Read(void* data, size_t size) {
    if (size > held_) throw std::out_of_range("RingBuffer: fewer bytes than asked for");
    const size_t first = std::min(size, ring_.size() - head_);
    if (first > 0) std::memcpy(data, &ring_[head_], first);
    if (size > first) std::memcpy(static_cast<char*>(data) + first, ring_.data(), size - first);
    Drop(size);
  }
  void Write(const void* data, size_t size) {
    Reserve(held_ + size);
    const size_t tail = Tail(), first = std::min(size, ring_.size() - tail);
    if (first > 0) std::memcpy(&ring_[tail], data, first);
    if (size > first) std::memcpy(ring_.data(), static_cast<const char*>(data) + first, size - first);
    held_ += size;
  }
  /* Has `send(data, size)` take at most `limit` bytes from one place; the number that it took. */
  template <typename Send>
  size_t ReadWithCallback(Send send, size_t limit) {
    const size_t size = send(&ring_[head_], std::min({limit, held_, ring_.size() - head_}));
    Drop(size);
    return size;
  }
  /* Has `receive(data, size)` put at most `limit` bytes into one place; the number that it put. */
  template <typename Receive>
  size_t WriteWithCallback(Receive receive, size_t limit) {
    Reserve(held_ + limit);
    const size_t tail = Tail(), size = receive(&ring_[tail], std::min(limit, ring_.size() - tail));
    held_ += size;
    return size;
  }

 private:
  static constexpr size_t kKept = 1 << 16;

  size_t Tail() const { return (head_ + held_) % ring_.size(); }
  void Drop(size_t size) {
    held_ -= size;
    head_ = held_ == 0 ? 0 : (head_ + size) % ring_.size();
  }
  void Resize(size_t size) {
    std::vector<char> larger(size);
    const size_t held = held_;
    Read(larger.data(), held);
    ring_ = std::move(larger);
    head_ = 0;
    held_ = held;
  }

  std::vector<char> ring_ = std::vector<char>(kKept);
  size_t head_ = 0, held_ = 0;
};

}  // namespace support
}  // namespace tvm

#endif
