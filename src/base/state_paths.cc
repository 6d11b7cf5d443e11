#include "base/state_paths.h"

#include <cerrno>
#include <cstdlib>

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/object_id.h"

namespace blobcache {
namespace {

constexpr size_t socket_path_bytes_max = 107;  // sockaddr_un, less its NUL
// Of those, less /run/user/4294967295/blobcache/ and .sock.
constexpr size_t name_bytes_max = 64;
constexpr size_t hash_digits = 16;

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == ':' || c == '_' || c == '.';
}

std::string environment_directory(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && value[0] == '/' ? value : "";
}

int make_directories(const std::string& path, mode_t mode) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    if (mkdir(part.c_str(), mode) != 0 && errno != EEXIST) return errno;
    if (slash == std::string::npos) return 0;
  }
}

}  // namespace

std::string escape_mount_path(std::string_view mountpoint) {
  std::string out;
  std::string_view rest = mountpoint;
  while (!rest.empty()) {
    const std::string_view part = rest.substr(0, rest.find('/'));
    rest.remove_prefix(part.size() < rest.size() ? part.size() + 1 : rest.size());
    if (part.empty()) continue;
    if (!out.empty()) out += '-';
    for (const char c : part) {
      const bool leading_dot = c == '.' && out.empty();
      if (is_plain(c) && !leading_dot) {
        out += c;
      } else {
        out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
      }
    }
  }
  if (out.empty()) return "-";
  if (out.size() <= name_bytes_max) return out;
  const std::string hash = to_hex(object_id("mountpoint", mountpoint, "")).substr(0, hash_digits);
  return out.substr(0, name_bytes_max - hash_digits - 1) + "-" + hash;
}

std::string state_directory() {
  if (geteuid() == 0) return "/run/blobcache";
  if (const std::string run = environment_directory("XDG_RUNTIME_DIR"); !run.empty()) return run + "/blobcache";
  if (const std::string state = environment_directory("XDG_STATE_HOME"); !state.empty()) return state + "/blobcache";
  if (const std::string home = environment_directory("HOME"); !home.empty()) return home + "/.local/state/blobcache";
  return fmt::format("/tmp/blobcache-{}", geteuid());
}

std::string state_directory_of(uid_t uid) {
  if (uid == geteuid()) return state_directory();
  return uid == 0 ? "/run/blobcache" : fmt::format("/run/user/{}/blobcache", uid);
}

int make_state_directory() {
  const std::string path = state_directory();
  const int os_errno = make_directories(path, geteuid() == 0 ? 0755 : 0700);
  if (os_errno != 0) return os_errno;
  // A folder of that name in /tmp may be a stranger's: it must be ours, and no link.
  struct stat status{};
  if (lstat(path.c_str(), &status) != 0) return errno;
  return S_ISDIR(status.st_mode) && status.st_uid == geteuid() ? 0 : EPERM;
}

// In a long directory the name gives way to its hash, on both sides alike.
std::string control_socket_path(std::string_view directory, std::string_view name) {
  std::string path = fmt::format("{}/{}.sock", directory, name);
  if (path.size() <= socket_path_bytes_max) return path;
  return fmt::format("{}/{}.sock", directory, to_hex(object_id("mountpoint", name, "")).substr(0, hash_digits));
}

std::string log_path(std::string_view directory, std::string_view name) {
  return fmt::format("{}/{}.log", directory, name);
}

}  // namespace blobcache
