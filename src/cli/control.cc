#include "cli/control.h"

#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/state_paths.h"

namespace blobcache::cli {
namespace {

constexpr size_t line_bytes_max = 64;

int64_t now_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000} + now.tv_nsec / 1'000'000;
}

bool wait_for(int fd, short events, int64_t deadline_ms) {
  for (;;) {
    const int64_t left = deadline_ms - now_ms();
    if (left <= 0) return false;
    pollfd poll_fd{.fd = fd, .events = events, .revents = 0};
    const int ready = poll(&poll_fd, 1, static_cast<int>(left));
    if (ready > 0) return true;
    if (ready == 0 || errno != EINTR) return false;
  }
}

// "pong 1234\n"
Ping read_answer(int fd, int64_t deadline_ms) {
  std::string line;
  while (line.find('\n') == std::string::npos) {
    char buffer[line_bytes_max];
    if (line.size() >= line_bytes_max || !wait_for(fd, POLLIN, deadline_ms)) return {Ping::Answer::silent, 0};
    const ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got <= 0) return {Ping::Answer::gone, 0};
    line.append(buffer, static_cast<size_t>(got));
  }
  constexpr std::string_view word = "pong ";
  pid_t pid = 0;
  const char* end = line.data() + line.find('\n');
  if (!line.starts_with(word)) return {Ping::Answer::silent, 0};
  const auto [stop, error] = std::from_chars(line.data() + word.size(), end, pid);
  if (error != std::errc() || stop != end || pid <= 0) return {Ping::Answer::silent, 0};
  return {Ping::Answer::alive, pid};
}

}  // namespace

Ping ping_socket(const std::string& socket_path, int timeout_ms) {
  const int64_t deadline_ms = now_ms() + timeout_ms;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) return {Ping::Answer::gone, 0};
  std::memcpy(address.sun_path, socket_path.data(), socket_path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return {Ping::Answer::denied, 0};
  Ping ping;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    // EAGAIN: the queue of connections is full, so nobody takes them.
    ping.answer = errno == EAGAIN                     ? Ping::Answer::silent
                  : errno == EACCES || errno == EPERM ? Ping::Answer::denied
                                                      : Ping::Answer::gone;
  } else if (send(fd, "ping\n", 5, MSG_NOSIGNAL) != 5) {
    ping.answer = Ping::Answer::gone;
  } else {
    ping = read_answer(fd, deadline_ms);
  }
  close(fd);
  return ping;
}

Ping ping_mount(const fuse::MountEntry& mount, int timeout_ms) {
  const std::string name = escape_mount_path(mount.mountpoint);
  const uid_t owner = mount.owner_uid().value_or(geteuid());
  Ping ping = ping_socket(control_socket_path(state_directory_of(owner), name), timeout_ms);
  if (ping.answer == Ping::Answer::gone && owner != geteuid()) {
    ping = ping_socket(control_socket_path(state_directory(), name), timeout_ms);
  }
  return ping;
}

}  // namespace blobcache::cli
