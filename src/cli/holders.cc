#include "cli/holders.h"

#include <charconv>
#include <climits>
#include <cstdio>
#include <optional>

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "cli/bounded.h"
#include "cli/mountpoint.h"

namespace blobcache::cli {
namespace {

constexpr size_t holders_max = 20;
constexpr char separator = '\0';

std::string read_link(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t length = readlink(path.c_str(), target, sizeof target);
  return length <= 0 ? std::string() : std::string(target, static_cast<size_t>(length));
}

template <class F>
void for_each_name(const std::string& path, F&& f) {
  DIR* directory = opendir(path.c_str());
  if (directory == nullptr) return;
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] != '.') f(std::string(entry->d_name));
  }
  closedir(directory);
}

std::string read_small(const std::string& path, size_t bytes_max) {
  std::string text;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  char buffer[1 << 14];
  ssize_t got = 0;
  while (text.size() < bytes_max && (got = read(fd, buffer, sizeof buffer)) > 0) {
    text.append(buffer, static_cast<size_t>(got));
  }
  close(fd);
  return text;
}

// "addresses perms offset dev inode      /path"
std::string mapped_path(const std::string& process, const std::string& mountpoint) {
  const std::string maps = read_small(process + "/maps", 4u << 20);
  for (size_t start = 0; start < maps.size();) {
    size_t end = maps.find('\n', start);
    if (end == std::string::npos) end = maps.size();
    const size_t slash = maps.find('/', start);
    if (slash < end && is_within(maps.substr(slash, end - slash), mountpoint)) return maps.substr(slash, end - slash);
    start = end + 1;
  }
  return "";
}

std::string held_path(const std::string& process, const std::string& mountpoint) {
  for (const char* link : {"/cwd", "/root", "/exe"}) {
    std::string target = read_link(process + link);
    if (is_within(target, mountpoint)) return target;
  }
  std::string found;
  for_each_name(process + "/fd", [&](const std::string& fd) {
    if (!found.empty()) return;
    std::string target = read_link(process + "/fd/" + fd);
    if (is_within(target, mountpoint)) found = std::move(target);
  });
  return found.empty() ? mapped_path(process, mountpoint) : found;
}

int write_holders(const std::string& mountpoint, int output_fd) {
  for_each_name("/proc", [&](const std::string& name) {
    if (name[0] < '0' || name[0] > '9') return;
    // Neither this child nor the command that waits for it; descriptors come to both from the caller's shell.
    if (name == std::to_string(getpid()) || name == std::to_string(getppid())) return;
    const std::string process = "/proc/" + name;
    const std::string path = held_path(process, mountpoint);
    if (path.empty()) return;
    std::string program = read_small(process + "/comm", 64);
    if (!program.empty() && program.back() == '\n') program.pop_back();
    write_all(output_fd, name + separator + program + separator + path + separator);
  });
  return 0;
}

}  // namespace

std::vector<Holder> find_holders(const std::string& mountpoint, int timeout_ms) {
  const auto result = run_bounded(timeout_ms, [&](int output_fd) { return write_holders(mountpoint, output_fd); });
  std::vector<Holder> holders;
  if (!result) return holders;
  size_t at = 0;
  const auto next = [&]() -> std::optional<std::string> {
    const size_t end = result->output.find(separator, at);
    if (end == std::string::npos) return std::nullopt;
    std::string field = result->output.substr(at, end - at);
    at = end + 1;
    return field;
  };
  while (holders.size() < holders_max) {
    const auto pid = next();
    const auto name = next();
    const auto path = next();
    if (!pid || !name || !path) break;
    Holder holder{0, *name, *path};
    std::from_chars(pid->data(), pid->data() + pid->size(), holder.pid);
    holders.push_back(std::move(holder));
  }
  return holders;
}

}  // namespace blobcache::cli
