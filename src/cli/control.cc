#include "cli/control.h"

#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/state_paths.h"

namespace blobcache::cli {
namespace {

constexpr size_t line_bytes_max = 64;
constexpr size_t text_bytes_max = 4 << 20;

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

// Reads until the daemon closes, or until the end of a line when one line is all that is wanted.
Ping::Answer read_text(int fd, int64_t deadline_ms, bool one_line, std::string* out) {
  const size_t bytes_max = one_line ? line_bytes_max : text_bytes_max;
  while (!one_line || out->find('\n') == std::string::npos) {
    char buffer[4096];
    if (out->size() >= bytes_max || !wait_for(fd, POLLIN, deadline_ms)) return Ping::Answer::silent;
    const ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got <= 0) return one_line || out->empty() ? Ping::Answer::gone : Ping::Answer::alive;
    out->append(buffer, static_cast<size_t>(got));
  }
  return Ping::Answer::alive;
}

Ping::Answer ask(const std::string& socket_path, const std::string& line, int timeout_ms, bool one_line,
                 std::string* out) {
  const int64_t deadline_ms = now_ms() + timeout_ms;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) return Ping::Answer::gone;
  std::memcpy(address.sun_path, socket_path.data(), socket_path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Ping::Answer::denied;
  Ping::Answer answer = Ping::Answer::gone;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    // EAGAIN: the queue of connections is full, so nobody takes them.
    answer = errno == EAGAIN                     ? Ping::Answer::silent
             : errno == EACCES || errno == EPERM ? Ping::Answer::denied
                                                 : Ping::Answer::gone;
  } else if (send(fd, line.data(), line.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(line.size())) {
    answer = read_text(fd, deadline_ms, one_line, out);
  }
  close(fd);
  return answer;
}

// Asks where the mount's owner keeps his sockets, and then where this user does.
template <class Ask>
Ping::Answer ask_owner(const fuse::MountEntry& mount, Ask&& ask_path) {
  const std::string name = escape_mount_path(mount.mountpoint);
  const uid_t owner = mount.owner_uid().value_or(geteuid());
  const Ping::Answer answer = ask_path(control_socket_path(state_directory_of(owner), name));
  if (answer != Ping::Answer::gone || owner == geteuid()) return answer;
  return ask_path(control_socket_path(state_directory(), name));
}

}  // namespace

Ping ping_socket(const std::string& socket_path, int timeout_ms) {
  std::string line;  // "pong 1234\n"
  const Ping::Answer answer = ask(socket_path, "ping\n", timeout_ms, true, &line);
  if (answer != Ping::Answer::alive) return {answer, 0};
  constexpr std::string_view word = "pong ";
  pid_t pid = 0;
  const char* end = line.data() + line.find('\n');
  if (!line.starts_with(word)) return {Ping::Answer::silent, 0};
  const auto [stop, error] = std::from_chars(line.data() + word.size(), end, pid);
  if (error != std::errc() || stop != end || pid <= 0) return {Ping::Answer::silent, 0};
  return {Ping::Answer::alive, pid};
}

Ping ping_mount(const fuse::MountEntry& mount, int timeout_ms) {
  Ping ping;
  ask_owner(mount, [&](const std::string& path) {
    ping = ping_socket(path, timeout_ms);
    return ping.answer;
  });
  return ping;
}

Ping::Answer ask_socket(const std::string& socket_path, std::string_view line, int timeout_ms, std::string* text_out) {
  text_out->clear();
  return ask(socket_path, fmt::format("{}\n", line), timeout_ms, false, text_out);
}

Ping::Answer ask_mount(const fuse::MountEntry& mount, std::string_view line, int timeout_ms, std::string* text_out) {
  return ask_owner(mount, [&](const std::string& path) { return ask_socket(path, line, timeout_ms, text_out); });
}

}  // namespace blobcache::cli
