/* rpc_server: serves TVM's RPC on a board, one session at a time, each in a process of its own. evo_tvm/rpc/server.py is
 * the same for boards with Python. */
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "rpc_server.h"

enum { kMagic = 0xff271, kMismatch = 0xff273, kMaxKey = 4096 };
enum { kHandshakeSeconds = 10, kGraceMs = 2000, kAskMs = 2000, kUnused = 5 };

static const char kHelp[] =
    "usage: rpc_server [--host ADDRESS] [--port N] [--tracker HOST:PORT] [--key NAME] [--work DIR]\n"
    "\n"
    "Lets other machines measure models here: evo-tvm bench, profile and run with --rpc or --tracker.\n"
    "\n"
    "  --host ADDRESS       listen here; 0.0.0.0 is everywhere       [127.0.0.1]\n"
    "  --port N             at this port; 0: any free one            [9090]\n"
    "  --tracker HOST:PORT  register at this tracker, which sends the clients\n"
    "  --key NAME           serve only clients that give this key\n"
    "  --work DIR           keep uploads here                        [work beside this program]\n";

void say(const std::string& text) {
  printf("%s\n", text.c_str());
  fflush(stdout);
}

/* cpu.c wants it. */
extern "C" [[noreturn]] void fail(const char* where, const char* what, ...) {
  va_list arguments;
  va_start(arguments, what);
  fprintf(stderr, "rpc_server: %s%s", where == nullptr ? "" : where, where == nullptr ? "" : ": ");
  vfprintf(stderr, what, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(2);
}

static Address parse_address(const char* option, const std::string& text) {
  const size_t colon = text.rfind(':');
  const std::string port = colon == std::string::npos ? "" : text.substr(colon + 1);
  if (colon == 0 || port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string::npos) {
    fail(option, "expected HOST:PORT, got '%s'", text.c_str());
  }
  return {text.substr(0, colon), atoi(port.c_str())};
}

static Options parse(int argc, char** argv) {
  Options options;
  options.work = std::filesystem::read_symlink("/proc/self/exe").replace_filename("work");
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "-h" || name == "--help") {
      fputs(kHelp, stdout);
      exit(0);
    }
    if (i + 1 >= argc) fail(nullptr, "%s is unknown or lacks its value; see --help", argv[i]);
    const std::string value = argv[++i];
    if (name == "--host") {
      options.listen.host = value;
    } else if (name == "--port") {
      options.listen.port = parse_address("--port", "_:" + value).port;
    } else if (name == "--tracker") {
      options.tracker = parse_address("--tracker", value);
    } else if (name == "--key") {
      options.key = value;
    } else if (name == "--work") {
      options.work = value;
    } else {
      fail(nullptr, "%s is unknown; see --help", name.c_str());
    }
  }
  if (options.key.find_first_of(": \"\\") != std::string::npos) fail("--key", "a key is one word without colons");
  if (options.tracker.has_value() && options.key.empty()) fail("--tracker", "a board at a tracker needs a --key");
  return options;
}

static bool is_local(const std::string& host) {
  return host == "localhost" || host == "::1" || host.rfind("127.", 0) == 0;
}

/* Accepts a client, and gives its socket where it speaks the protocol and has the right key, else -1. */
static int greet(int listener, const Options& options, const std::string& match_key, std::string* name) {
  sockaddr_storage peer{};
  socklen_t size = sizeof peer;
  char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "?";
  const int client = accept4(listener, reinterpret_cast<sockaddr*>(&peer), &size, SOCK_CLOEXEC);
  if (client < 0) return -1;
  getnameinfo(reinterpret_cast<sockaddr*>(&peer), size, host, sizeof host, port, sizeof port,
              NI_NUMERICHOST | NI_NUMERICSERV);
  *name = std::string(host) + ":" + port;
  limit_time(client, kHandshakeSeconds);
  int32_t magic;
  std::string asked;
  if (receive_number(client, &magic) && magic == kMagic && receive_text(client, &asked, kMaxKey)) {
    if (asked.substr(0, asked.find(' ')) == "client:" + match_key) {
      if (send_number(client, kMagic) && send_text(client, "server:" + options.key)) {
        limit_time(client, 0);
        return client;
      }
    } else {
      send_number(client, kMismatch);
      say("refused " + *name + ": it has another key");
    }
  }
  close(client);
  return -1;
}

static int next_client(int listener, const Options& options, Tracker* tracker, std::string* name) {
  std::string match_key = tracker == nullptr ? options.key : tracker->enroll();
  for (int unused = 0;;) {
    pollfd watched[] = {{listener, POLLIN, 0}, {tracker == nullptr ? -1 : tracker->socket(), POLLIN, 0}};
    poll(watched, 2, tracker == nullptr ? -1 : kAskMs);
    if (watched[0].revents != 0) {
      const int client = greet(listener, options, match_key, name);
      if (client >= 0) return client;
    } else if (tracker != nullptr) {
      const bool ended = watched[1].revents != 0; /* it says nothing unasked */
      const std::optional<bool> pending = ended ? std::nullopt : tracker->is_pending(match_key);
      unused = pending.has_value() && !*pending ? unused + 1 : 0;
      if (!pending.has_value()) tracker->drop();
      if (!pending.has_value() || unused >= kUnused) {
        match_key = tracker->enroll();
        unused = 0;
      }
    }
  }
}

/* Serves the client in a child process until either is gone; how it ended. */
static std::string run_session(int client, int listener, Tracker* tracker) {
  const int values[][3] = {{SOL_SOCKET, SO_KEEPALIVE, 1},
                           {IPPROTO_TCP, TCP_KEEPIDLE, 10},
                           {IPPROTO_TCP, TCP_KEEPINTVL, 5},
                           {IPPROTO_TCP, TCP_KEEPCNT, 3},
                           {IPPROTO_TCP, TCP_NODELAY, 1}};
  for (const int(&v)[3] : values) setsockopt(client, v[0], v[1], &v[2], sizeof v[2]);
  int ends[2]; /* the child holds one, so that its death is seen at the other */
  if (pipe(ends) != 0) return "could not begin: no pipe";
  const pid_t child = fork();
  if (child < 0) return "could not begin: no process";
  if (child == 0) {
    close(listener);
    close(ends[0]);
    if (tracker != nullptr) tracker->drop();
    serve(client);
  }
  close(ends[1]);
  pollfd watched[] = {{ends[0], 0, 0}, {client, POLLRDHUP, 0}};
  while (poll(watched, 2, -1) < 0) continue;
  int status = 0;
  bool killed = false;
  if (watched[0].revents == 0 && poll(watched, 1, kGraceMs) == 0) {
    kill(child, SIGKILL);
    killed = true;
  }
  close(ends[0]);
  waitpid(child, &status, 0);
  if (killed) return "ended: its client is gone, and it still ran 2 s later";
  if (WIFSIGNALED(status)) return "died with signal " + std::to_string(WTERMSIG(status));
  return WEXITSTATUS(status) == 0 ? "ended" : "died with status " + std::to_string(WEXITSTATUS(status));
}

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  setenv("TVM_BIND_THREADS", "0", 0);
  prepare_to_serve(options.work);
  int port;
  const int listener = listen_at(options.listen, &port);
  std::optional<Tracker> tracker;
  if (options.tracker.has_value()) tracker.emplace(*options.tracker, options.key, port);
  if (!is_local(options.listen.host)) {
    fprintf(stderr, "warning: open to the network at %s: whoever reaches it can run anything as this user\n",
            options.listen.text().c_str());
  }
  say("listening on " + Address{options.listen.host, port}.text());
  for (;;) {
    std::string name;
    const int client = next_client(listener, options, tracker.has_value() ? &*tracker : nullptr, &name);
    say("session of " + name + " begins");
    say("session of " + name + " " + run_session(client, listener, tracker.has_value() ? &*tracker : nullptr));
    close(client);
  }
}
