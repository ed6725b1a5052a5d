/* TCP sockets on Linux. */
#ifndef TVM_SUPPORT_SOCKET_H_
#define TVM_SUPPORT_SOCKET_H_

#include <netdb.h>
#include <sys/socket.h>
#include <tvm/ffi/error.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace tvm {
namespace support {

class SockAddr {
 public:
  SockAddr(const char* host, int port) : text_(std::string(host) + ":" + std::to_string(port)) {
    addrinfo hints{}, *found = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    const int code = getaddrinfo(host, std::to_string(port).c_str(), &hints, &found);
    TVM_FFI_ICHECK(code == 0) << "no such host: " << host << ": " << gai_strerror(code);
    std::memcpy(&address_, found->ai_addr, found->ai_addrlen);
    size_ = found->ai_addrlen;
    freeaddrinfo(found);
  }
  sa_family_t ss_family() const { return address_.ss_family; }
  const std::string& AsString() const { return text_; }
  const sockaddr* data() const { return reinterpret_cast<const sockaddr*>(&address_); }
  socklen_t size() const { return size_; }

 private:
  sockaddr_storage address_{};
  socklen_t size_ = 0;
  std::string text_;
};

class Socket {
 public:
  [[noreturn]] static void Error(const char* what) {
    TVM_FFI_THROW(InternalError) << "Socket " << what << ": " << std::strerror(errno);
    TVM_FFI_UNREACHABLE();
  }
};

/* Copies are of the descriptor's number only; whoever calls Close closes it for all. */
class TCPSocket : public Socket {
 public:
  using SockType = int;
  TCPSocket() = default;
  explicit TCPSocket(SockType descriptor) : descriptor_(descriptor) {}
  bool BadSocket() const { return descriptor_ < 0; }
  void Create(int family) {
    descriptor_ = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (BadSocket()) Error("create");
  }
  bool Connect(const SockAddr& address) { return connect(descriptor_, address.data(), address.size()) == 0; }
  void Close() {
    if (!BadSocket()) close(descriptor_);
    descriptor_ = -1;
  }
  /* Bytes that were moved; -1 is an error, and 0 of Recv the end. */
  ssize_t Send(const void* data, size_t size) {
    return Again([&] { return send(descriptor_, data, size, MSG_NOSIGNAL); });
  }
  ssize_t Recv(void* data, size_t size) {
    return Again([&] { return recv(descriptor_, data, size, 0); });
  }
  size_t SendAll(const void* data, size_t size) {
    return All(size, [&](size_t done) { return Send(static_cast<const char*>(data) + done, size - done); });
  }
  size_t RecvAll(void* data, size_t size) {
    return All(size, [&](size_t done) { return Recv(static_cast<char*>(data) + done, size - done); });
  }

 private:
  template <typename Call>
  static ssize_t Again(Call call) {
    ssize_t moved;
    do {
      moved = call();
    } while (moved < 0 && errno == EINTR);
    return moved;
  }
  template <typename Call>
  static size_t All(size_t size, Call call) {
    size_t done = 0;
    while (done < size) {
      const ssize_t moved = call(done);
      if (moved < 0) Error("transfer");
      if (moved == 0) break;
      done += static_cast<size_t>(moved);
    }
    return done;
  }
  SockType descriptor_ = -1;
};

}  // namespace support
}  // namespace tvm

#endif
