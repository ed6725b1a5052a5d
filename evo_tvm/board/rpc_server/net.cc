/* TCP, and the numbers and texts of the protocol. */
#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "rpc_server.h"

static addrinfo* resolve(const Address& address, int flags) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  return getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found) == 0 ? found : nullptr;
}

int listen_at(const Address& address, int* port) {
  const int one = 1;
  int made = -1;
  errno = EADDRNOTAVAIL;
  if (addrinfo* found = resolve(address, AI_PASSIVE)) {
    made = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(made, found->ai_addr, found->ai_addrlen) != 0 || listen(made, 16) != 0) made = -1;
    freeaddrinfo(found);
  }
  if (made < 0) {
    fprintf(stderr, "rpc_server: cannot listen at %s: %s; choose another --port or --host\n", address.text().c_str(),
            strerror(errno));
    exit(1);
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  char service[16];
  getsockname(made, reinterpret_cast<sockaddr*>(&bound), &size);
  getnameinfo(reinterpret_cast<sockaddr*>(&bound), size, nullptr, 0, service, sizeof service, NI_NUMERICSERV);
  *port = atoi(service);
  return made;
}

int connect_to(const Address& address, int seconds) {
  addrinfo* found = resolve(address, 0);
  if (found == nullptr) return -1;
  int made = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  limit_time(made, seconds);
  if (connect(made, found->ai_addr, found->ai_addrlen) != 0) {
    close(made);
    made = -1;
  }
  freeaddrinfo(found);
  return made;
}

void limit_time(int socket, int seconds) {
  const timeval limit{seconds, 0};
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

template <typename Move>
static bool move_all(size_t size, Move move) {
  for (size_t done = 0; done < size;) {
    const ssize_t moved = move(done);
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) return false;
    done += static_cast<size_t>(moved);
  }
  return true;
}

bool send_all(int socket, const void* data, size_t size) {
  const char* from = static_cast<const char*>(data);
  return move_all(size, [&](size_t done) { return send(socket, from + done, size - done, MSG_NOSIGNAL); });
}

bool receive_all(int socket, void* data, size_t size) {
  char* to = static_cast<char*>(data);
  return move_all(size, [&](size_t done) { return recv(socket, to + done, size - done, 0); });
}

bool send_number(int socket, int32_t number) { return send_all(socket, &number, sizeof number); }

bool receive_number(int socket, int32_t* number) { return receive_all(socket, number, sizeof *number); }

bool send_text(int socket, const std::string& text) {
  return send_number(socket, static_cast<int32_t>(text.size())) && send_all(socket, text.data(), text.size());
}

bool receive_text(int socket, std::string* text, int32_t limit) {
  int32_t size;
  if (!receive_number(socket, &size) || size < 0 || size > limit) return false;
  text->resize(static_cast<size_t>(size));
  return receive_all(socket, text->data(), text->size());
}
