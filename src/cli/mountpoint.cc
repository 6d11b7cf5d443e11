#include "cli/mountpoint.h"

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include <dirent.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cli/bounded.h"
#include "cli/command.h"
#include "cli/control.h"

namespace blobcache::cli {
namespace {

constexpr int look_ms = 2000;
constexpr int stacked_max = 16;  // dead mounts on top of each other that are cleared away

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::optional<std::string> bounded_realpath(const std::string& path) {
  const auto result = run_bounded(look_ms, [&](int output_fd) {
    char resolved[PATH_MAX];
    if (realpath(path.c_str(), resolved) == nullptr) return errno;
    write_all(output_fd, resolved);
    return 0;
  });
  if (!result || result->exit_code != 0) return std::nullopt;
  return result->output;
}

// 0, an errno, or nullopt when it does not answer.
std::optional<int> look_through(const std::string& path) {
  const auto result = run_bounded(look_ms, [&](int) {
    struct statvfs status{};
    return statvfs(path.c_str(), &status) == 0 ? 0 : errno;
  });
  return result ? std::optional(result->exit_code) : std::nullopt;
}

node::Outcome failed(std::string message) { return {exit_failed, std::move(message)}; }

// What lies on the mount point: exit_code 0 when it was a dead mount of ours and is gone now.
node::Outcome clear_mount(const fuse::MountEntry& mount, const std::string& path) {
  if (!mount.is_blobcache()) {
    return failed(
        fmt::format("mount point {} is busy: {} ({}) is mounted there; unmount it, or choose an empty directory", path,
                    mount.source, mount.type));
  }
  const Ping ping = ping_mount(mount, look_ms);
  if (ping.answer == Ping::Answer::alive) {
    return failed(
        fmt::format("mount point {} is busy: process {} already shows {} there; `blobcache umount {}` ends it", path,
                    ping.pid, mount.source, path));
  }
  const std::optional<int> state = look_through(path);
  if (!state) {
    return failed(
        fmt::format("mount point {} is busy: the daemon of the mount there does not answer; `blobcache umount {}` "
                    "ends it",
                    path, path));
  }
  if (*state != ENOTCONN && *state != ECONNABORTED) {
    return failed(fmt::format("mount point {} is busy: {} is mounted there already; `blobcache umount {}` ends it",
                              path, mount.source, path));
  }
  const std::string problem = detach_mount(path, look_ms);
  if (problem.empty()) return {};
  return failed(
      fmt::format("mount point {} is busy: a dead mount there could not be taken away ({}); run `umount -l {}` as "
                  "root",
                  path, problem, path));
}

// An errno, or ENOTEMPTY for a directory with something in it.
int directory_problem(const std::string& path) {
  DIR* directory = opendir(path.c_str());
  if (directory == nullptr) return errno;
  int problem = 0;
  while (const dirent* entry = readdir(directory)) {
    const std::string_view name(entry->d_name);
    if (name != "." && name != "..") problem = ENOTEMPTY;
  }
  closedir(directory);
  return problem;
}

node::Outcome directory_outcome(const std::string& path, std::optional<int> problem) {
  if (!problem) {
    return failed(fmt::format("mount point {} did not answer within {} s; choose a directory on a local file system",
                              path, look_ms / 1000));
  }
  switch (*problem) {
    case 0: return {};
    case ENOENT: return failed(fmt::format("mount point {} does not exist; create it with `mkdir -p {}`", path, path));
    case ENOTDIR: return failed(fmt::format("mount point {} is not a directory; choose an empty directory", path));
    case ENOTEMPTY:
      return failed(
          fmt::format("mount point {} is not empty and its files would be hidden; choose an empty directory", path));
    case EACCES:
    case EPERM:
      return failed(fmt::format("mount point {} may not be used by this user ({}); choose a directory that you own",
                                path, std::strerror(*problem)));
    default:
      return failed(
          fmt::format("mount point {} cannot be used ({}); choose another directory", path, std::strerror(*problem)));
  }
}

}  // namespace

std::string lexical_path(std::string_view path, std::string_view working_directory) {
  const std::string joined = path.starts_with('/') ? std::string(path) : fmt::format("{}/{}", working_directory, path);
  std::string out;
  std::string_view rest = joined;
  while (!rest.empty()) {
    rest.remove_prefix(1);
    const std::string_view part = rest.substr(0, rest.find('/'));
    if (!part.empty() && part != ".") out += fmt::format("/{}", part);
    rest.remove_prefix(part.size());
  }
  return out.empty() ? "/" : out;
}

std::optional<std::string> resolve_mountpoint(const std::string& path) {
  char working_directory[PATH_MAX] = "/";
  if (!path.starts_with('/') && getcwd(working_directory, sizeof working_directory) == nullptr) return std::nullopt;
  const std::string lexical = lexical_path(path, working_directory);
  const auto mounts = fuse::read_mountinfo();
  if (!mounts || path.empty()) return std::nullopt;
  if (lexical == "/" || fuse::find_mount(*mounts, lexical) != nullptr) return lexical;
  const std::string last = lexical.substr(lexical.rfind('/') + 1);
  if (last == "..") return bounded_realpath(lexical);
  const std::optional<std::string> parent = bounded_realpath(parent_of(lexical));
  if (!parent) return std::nullopt;
  const std::string resolved = (*parent == "/" ? "" : *parent) + "/" + last;
  if (fuse::find_mount(*mounts, resolved) != nullptr) return resolved;
  // No mount lies there, so it may be looked at: it can be a link.
  return bounded_realpath(resolved).value_or(resolved);
}

bool is_within(std::string_view inner, std::string_view outer) {
  if (outer == "/") return true;
  return inner.starts_with(outer) && (inner.size() == outer.size() || inner[outer.size()] == '/');
}

std::string detach_mount(const std::string& path, int timeout_ms) {
  if (geteuid() != 0) {
    const auto result = run_program(timeout_ms, {"fusermount3", "-u", "-z", "--", path});
    if (result && result->exit_code == 0) return "";
    return result ? "fusermount3: " + result->output.substr(0, result->output.find('\n')) : "fusermount3 did not end";
  }
  const auto result = run_bounded(
      timeout_ms, [&](int) { return umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0 ? 0 : errno; });
  if (!result) return "the kernel did not answer";
  return result->exit_code == 0 ? "" : std::strerror(result->exit_code);
}

node::Outcome prepare_mountpoint(const std::string& path, std::string* cleaned_out) {
  for (int i = 0; i < stacked_max; ++i) {
    const auto mounts = fuse::read_mountinfo();
    if (!mounts) return failed("/proc/self/mountinfo cannot be read; mount /proc");
    const fuse::MountEntry* mount = fuse::find_mount(*mounts, path);
    if (mount == nullptr) break;
    node::Outcome outcome = clear_mount(*mount, path);
    if (outcome.exit_code != 0) return outcome;
    *cleaned_out = fmt::format("a dead mount was taken away from {}", path);
  }
  const auto result = run_bounded(look_ms, [&](int) { return directory_problem(path); });
  return directory_outcome(path, result ? std::optional(result->exit_code) : std::nullopt);
}

}  // namespace blobcache::cli
