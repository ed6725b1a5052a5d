/* One session: what a client can call on the board, beside what TVM's runtime offers by itself. evo_tvm/rpc/
 * board_session.py is the same for boards with Python. */
#include <fcntl.h>
#include <signal.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <tvm/ffi/extra/json.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "rpc_server.h"

extern "C" {
extern const char* const cpu_arch;
const char* const* cpu_features(void);
}

namespace ffi = tvm::ffi;
namespace fs = std::filesystem;

/* Beyond this, the files that were not used for longest are removed. */
static const uintmax_t kKeptBytes = 1u << 30;
static std::string folder;

/* ---- Uploaded files: under names that hold a hash of their content, so that each comes once ----------------------- */

static std::string path_of(const std::string& name) {
  const bool plain = std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '.' || c == '_' || c == '-';
  });
  if (name.empty() || name[0] == '.' || !plain) TVM_FFI_THROW(ValueError) << name << " is no name of a file here";
  return folder + "/" + name;
}

static std::string part_of(const std::string& name) { return path_of(name) + "." + std::to_string(getpid()) + ".part"; }

[[noreturn]] static void cannot_write(const std::string& part, const char* reason) {
  struct statvfs disk {};
  unlink(part.c_str());
  statvfs(folder.c_str(), &disk);
  TVM_FFI_THROW(OSError) << "cannot write to " << folder << ": " << reason << " ("
                         << (static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize >> 20) << " MB free)";
  TVM_FFI_UNREACHABLE();
}

/* The bytes of a file that is there, and marks it as used; else -1. */
static int64_t size_of(const std::string& name) {
  struct stat status {};
  const std::string path = path_of(name);
  if (utimensat(AT_FDCWD, path.c_str(), nullptr, 0) != 0 || stat(path.c_str(), &status) != 0) return -1;
  return status.st_size;
}

/* Writes the next part of a file that is being uploaded; the bytes so far. */
static int64_t append(const std::string& name, int64_t offset, const ffi::Bytes& data) {
  const std::string part = part_of(name);
  const int file = open(part.c_str(), O_WRONLY | O_CLOEXEC | (offset == 0 ? O_CREAT | O_TRUNC : 0), 0600);
  for (size_t done = 0; file >= 0 && done < data.size();) {
    const ssize_t moved = pwrite(file, data.data() + done, data.size() - done, offset + static_cast<int64_t>(done));
    if (moved <= 0) {
      const char* reason = strerror(errno);
      close(file);
      cannot_write(part, reason);
    }
    done += static_cast<size_t>(moved);
  }
  if (file < 0 || close(file) != 0) cannot_write(part, strerror(errno));
  return offset + static_cast<int64_t>(data.size());
}

/* Removes the files that were not used for longest, until the others are within the limit. */
static void trim(const std::string& newest) {
  std::vector<fs::directory_entry> files;
  uintmax_t total = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    files.push_back(entry);
    total += entry.file_size();
  }
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) {
    return a.last_write_time() < b.last_write_time();
  });
  for (const fs::directory_entry& entry : files) {
    if (total <= kKeptBytes || entry.path() == newest) continue;
    total -= entry.file_size();
    unlink(entry.path().c_str());
  }
}

/* Gives the uploaded file its name, on the disk for good; what else is kept makes room. */
static int64_t finish(const std::string& name, int64_t size) {
  const std::string part = part_of(name), path = path_of(name);
  struct stat status {};
  const int file = open(part.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0 || fsync(file) != 0 || fstat(file, &status) != 0) cannot_write(part, strerror(errno));
  close(file);
  if (status.st_size != size) cannot_write(part, "the upload is not whole");
  if (rename(part.c_str(), path.c_str()) != 0) cannot_write(part, strerror(errno));
  trim(path);
  return size;
}

/* ---- What the board is ---------------------------------------------------------------------------------------------- */

static ffi::String describe() {
  std::stringstream cpuinfo;
  std::ifstream file("/proc/cpuinfo");
  if (file) cpuinfo << file.rdbuf();
  double load = 0;
  getloadavg(&load, 1);
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  sched_getaffinity(0, sizeof cpus, &cpus);
  ffi::json::Array features;
  for (const char* const* feature = cpu_features(); *feature != nullptr; ++feature) {
    features.push_back(ffi::String(*feature));
  }
  ffi::json::Object about;
  about.Set(ffi::String("server"), ffi::String("evo_tvm " EVO_TVM_VERSION));
  about.Set(ffi::String("arch"), ffi::String(cpu_arch));
  about.Set(ffi::String("features"), features);
  about.Set(ffi::String("cores"), static_cast<int64_t>(std::max(CPU_COUNT(&cpus), 1)));
  about.Set(ffi::String("load"), load);
  about.Set(ffi::String("cpuinfo"), ffi::String(cpuinfo.str()));
  return ffi::json::Stringify(about);
}

/* ---- The session -------------------------------------------------------------------------------------------------- */

void prepare_to_serve(const std::string& work) {
  std::error_code error;
  fs::create_directories(work, error);
  folder = fs::absolute(work).string();
  if (!error && access(folder.c_str(), W_OK | X_OK) != 0) error.assign(errno, std::generic_category());
  if (error) {
    fprintf(stderr, "rpc_server: %s: uploads cannot be kept there: %s; choose another folder with --work\n",
            work.c_str(), error.message().c_str());
    exit(1);
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".part") unlink(entry.path().c_str());
  }
}

void serve(int socket) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGINT, SIG_IGN);
  int status = 1;
  try {
    auto locate = [](const ffi::String& name) { return folder + "/" + std::string(name); };
    auto set = [](const char* name, ffi::Function function) { ffi::Function::SetGlobal(name, function, true); };
    set("tvm.rpc.server.workpath", ffi::Function::FromTyped(locate));
    set("tvm.rpc.server.load_module", ffi::Function::FromTyped([locate](const ffi::String& name) {
          return ffi::Module::LoadFromFile(locate(name));
        }));
    set("evo_tvm.board.describe", ffi::Function::FromTyped(describe));
    set("evo_tvm.board.size", ffi::Function::FromTyped(size_of));
    set("evo_tvm.board.append", ffi::Function::FromTyped(append));
    set("evo_tvm.board.finish", ffi::Function::FromTyped(finish));
    ffi::Function::GetGlobalRequired("rpc.ServerLoop")(socket);
    status = 0;
  } catch (const std::exception& error) {
    fprintf(stderr, "rpc_server: %s\n", error.what());
  }
  _exit(status);
}
