/* A board's side of TVM's tracker: JSON messages that begin with a code, each behind its length. */
#include <unistd.h>

#include <random>

#include "rpc_server.h"

enum { kTrackerMagic = 0x2f271, kPut = 3, kUpdateInfo = 5, kPendingKeys = 7, kMaxAnswer = 1 << 20 };
enum { kAnswerSeconds = 10, kRetrySeconds = 5 };
static const char* const kDone = "0";

/* Keys are single words (main.cc), so that quotes are all that a JSON text of one needs. */
static std::string quoted(const std::string& text) { return "\"" + text + "\""; }

std::optional<std::string> Tracker::ask(const std::string& message) {
  std::string answer;
  if (socket_ < 0 || !send_text(socket_, message) || !receive_text(socket_, &answer, kMaxAnswer)) return std::nullopt;
  return answer;
}

bool Tracker::connect() {
  int32_t magic;
  socket_ = connect_to(address_, kAnswerSeconds);
  if (socket_ < 0) return false;
  if (send_number(socket_, kTrackerMagic) && receive_number(socket_, &magic) && magic == kTrackerMagic) {
    const std::string about =
        "{\"key\": " + quoted("server:" + key_) + ", \"addr\": [null, " + std::to_string(port_) + "]}";
    if (ask("[" + std::to_string(kUpdateInfo) + ", " + about + "]") == kDone) {
      say("registered at the tracker " + address_.text() + " as '" + key_ + "'");
      return true;
    }
  }
  drop();
  return false;
}

void Tracker::drop() {
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
}

std::string Tracker::enroll() {
  static std::random_device random;
  for (bool said = false;; said = true) {
    const std::string match_key = key_ + ":" + std::to_string(random()) + std::to_string(random());
    if (socket_ >= 0 || connect()) {
      const std::string about = "[" + std::to_string(port_) + ", " + quoted(match_key) + "]";
      if (ask("[" + std::to_string(kPut) + ", " + quoted(key_) + ", " + about + ", null]") == kDone) return match_key;
      drop();
    }
    if (!said) say("the tracker " + address_.text() + " cannot be reached; trying again");
    sleep(kRetrySeconds);
  }
}

std::optional<bool> Tracker::is_pending(const std::string& match_key) {
  const std::optional<std::string> keys = ask("[" + std::to_string(kPendingKeys) + "]");
  if (!keys.has_value()) return std::nullopt;
  return keys->find(quoted(match_key)) != std::string::npos;
}
