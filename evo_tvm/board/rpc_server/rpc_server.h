/* The parts of rpc_server, the program that lets other machines measure on a board without Python. */
#ifndef EVO_TVM_BOARD_RPC_SERVER_H_
#define EVO_TVM_BOARD_RPC_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

struct Address {
  std::string host;
  int port = 0;
  std::string text() const { return host + ":" + std::to_string(port); }
};

struct Options {
  Address listen{"127.0.0.1", 9090};
  std::optional<Address> tracker;
  std::string key, work;
};

/* Prints a line at once. */
void say(const std::string& text);

/* ---- net.cc: TCP, and the numbers and texts of the protocol. All but `listen_at` give -1 or false where it fails. -- */

/* A listening socket, and in `port` where it listens; ends the program where there is none to be had. */
int listen_at(const Address& address, int* port);
int connect_to(const Address& address, int seconds);
/* Nothing of this socket takes longer than so many seconds; 0: as long as it takes. */
void limit_time(int socket, int seconds);
bool send_all(int socket, const void* data, size_t size);
bool receive_all(int socket, void* data, size_t size);
bool send_number(int socket, int32_t number);
bool receive_number(int socket, int32_t* number);
/* A text behind its length. */
bool send_text(int socket, const std::string& text);
bool receive_text(int socket, std::string* text, int32_t limit);

/* ---- tracker.cc ---------------------------------------------------------------------------------------------------- */

/* A board's side of a tracker: registers under a key, with a fresh secret for each session. */
class Tracker {
 public:
  /* Asks for nothing yet. `port`: where this server listens. */
  Tracker(const Address& address, const std::string& key, int port) : address_(address), key_(key), port_(port) {}
  /* Registers for the next session, and waits for the tracker as long as it takes; what its client must know. */
  std::string enroll();
  /* Whether the tracker still has us to give away; nothing where it is gone. */
  std::optional<bool> is_pending(const std::string& match_key);
  int socket() const { return socket_; }
  void drop();

 private:
  bool connect();
  std::optional<std::string> ask(const std::string& message);
  Address address_;
  std::string key_;
  int port_, socket_ = -1;
};

/* ---- session.cc: what a client can call ------------------------------------------------------------------------------ */

/* Makes the folder that keeps uploads, and removes what interrupted ones left; ends the program where it cannot. */
void prepare_to_serve(const std::string& work);
/* Serves the client at this socket and ends the process with it. */
[[noreturn]] void serve(int socket);

#endif
