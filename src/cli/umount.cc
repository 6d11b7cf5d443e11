// umount: ends within 5 s whatever state the daemon is in. The time is spent so, and nothing on the way looks at the mount:
//   2 s  ask the daemon for a sign of life         1 s  the plain way (umount2, fusermount3)
//   busy and alive: 1.2 s to find who holds it, and exit 1
//   alive: the plain way may take longer, because the kernel takes every inode down that it knows (1.5 s for 150,000)
//   busy and not alive: abort the connection, which frees everybody who waits, and 1.2 s to detach
#include <cerrno>
#include <csignal>
#include <cstring>

#include <fmt/format.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "cli/bounded.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/control.h"
#include "cli/holders.h"
#include "cli/mountpoint.h"
#include "fuse/mountinfo.h"

namespace blobcache::cli {
namespace {

constexpr int ping_ms = 2000;
constexpr int plain_ms = 1000;
constexpr int plain_alive_ms = 60'000;
constexpr int step_ms = 1200;
constexpr int end_ms = 2000;  // an idle daemon ends in milliseconds

// 0, an errno, or nullopt: no answer in time.
std::optional<int> plain_unmount(const std::string& path, int timeout_ms) {
  if (geteuid() == 0) {
    const auto result =
        run_bounded(timeout_ms, [&](int) { return umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0 ? 0 : errno; });
    return result ? std::optional(result->exit_code) : std::nullopt;
  }
  const auto result = run_program(timeout_ms, {"fusermount3", "-u", "--", path});
  if (!result) return std::nullopt;
  if (result->exit_code == 0) return 0;
  if (result->exit_code == 127) return ENOENT;
  return result->output.find("busy") != std::string::npos ? EBUSY : EPERM;
}

void wait_for_end(int process_fd) {
  if (process_fd < 0) return;
  pollfd poll_fd{.fd = process_fd, .events = POLLIN, .revents = 0};
  poll(&poll_fd, 1, end_ms);
}

// The daemon of several volumes goes on with the others.
bool serves_others(const fuse::MountEntry& mount) {
  std::string answer;
  return ask_mount(mount, "mounts", ping_ms, &answer) == Ping::Answer::alive && answer[0] != '0' && answer != "1\n";
}

// Busy, though its daemon lives. Without a process that holds it, it is requests of processes that have ended which still
// wait for a slow origin: they need no mount point.
int refuse_or_detach_busy(const std::string& path) {
  std::string holders;
  for (const Holder& holder : find_holders(path, step_ms)) {
    holders += fmt::format("{}{} ({})", holders.empty() ? "" : ", ", holder.pid, holder.name);
  }
  if (holders.empty() && geteuid() == 0 && detach_mount(path, step_ms).empty()) {
    fmt::print(stderr, "blobcache: {} is detached; its daemon ends when the requests in flight have\n", path);
    return exit_done;
  }
  if (holders.empty()) holders = "a process that could not be found (another mount below it, or another user's)";
  return refuse(exit_failed,
                fmt::format("{} is busy, held by {}; end them or close their files, then repeat", path, holders));
}

int abort_and_detach(const fuse::MountEntry& mount, const std::string& path, std::string_view why) {
  const Result<void> aborted = fuse::abort_connection(mount.minor);
  const std::string problem = detach_mount(path, step_ms);
  // The plain way may have come to its end meanwhile.
  const auto mounts = fuse::read_mountinfo();
  const bool still_mounted = !mounts || fuse::find_mount(*mounts, path) != nullptr;
  if (!problem.empty() && still_mounted) {
    return refuse(exit_failed,
                  fmt::format("{} could not be detached: {}; run `umount -l {}` as root", path, problem, path));
  }
  // not_found: the daemon's end closed the connection already.
  if (!aborted && aborted.error().code != Code::not_found) {
    return refuse(exit_failed,
                  fmt::format("{} is detached, but its connection could not be aborted ({}); run `echo 1 > "
                              "/sys/fs/fuse/connections/{}/abort` as root",
                              path, std::strerror(aborted.error().os_errno), mount.minor));
  }
  fmt::print(stderr, "blobcache: {}: {}, so its connection was aborted\n", path, why);
  return exit_done;
}

int unmount(const fuse::MountEntry& mount, const std::string& path) {
  const Ping ping = ping_mount(mount, ping_ms);
  const int process_fd = ping.answer == Ping::Answer::alive && !serves_others(mount)
                             ? static_cast<int>(syscall(SYS_pidfd_open, ping.pid, 0))
                             : -1;
  const std::optional<int> result = plain_unmount(path, ping.answer == Ping::Answer::alive ? plain_alive_ms : plain_ms);
  if (result == 0) {
    wait_for_end(process_fd);
    if (process_fd >= 0) close(process_fd);
    return exit_done;
  }
  if (process_fd >= 0) close(process_fd);
  if (result == EPERM || result == EACCES) {
    return refuse(exit_failed,
                  fmt::format("{} may not be unmounted by this user; repeat as root or as its owner", path));
  }
  const bool reachable = ping.answer == Ping::Answer::alive || ping.answer == Ping::Answer::denied;
  if (result == EBUSY && reachable) return refuse_or_detach_busy(path);
  if (result && *result != EBUSY) {
    return refuse(exit_failed,
                  fmt::format("{} cannot be unmounted: {}; see `findmnt {}`", path, std::strerror(*result), path));
  }
  return abort_and_detach(mount, path,
                          ping.answer == Ping::Answer::gone ? "its daemon is gone" : "its daemon does not answer");
}

}  // namespace

int umount_command(int argc, char** argv) {
  CLI::App app("End a mount, also a dead or a hung one, within 5 seconds.", "blobcache umount");
  std::string argument;
  app.add_option("MOUNTPOINT", argument, "where it is mounted")->required();
  app.footer("Example:\n  blobcache umount /mnt/models");
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;

  const std::optional<std::string> path = resolve_mountpoint(argument);
  const auto mounts = fuse::read_mountinfo();
  const fuse::MountEntry* mount = path && mounts ? fuse::find_mount(*mounts, *path) : nullptr;
  if (mount == nullptr) {
    return refuse(exit_failed, fmt::format("nothing is mounted on {}; `findmnt -t {}` lists what is", argument,
                                           fuse::filesystem_type));
  }
  if (!mount->is_blobcache()) {
    return refuse(exit_failed,
                  fmt::format("{} is a {} mount, not one of blobcache; use `umount {}`", *path, mount->type, *path));
  }
  return unmount(*mount, *path);
}

}  // namespace blobcache::cli
