#include "node/control.h"

#include <cerrno>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "ring/errno.h"

namespace blobcache::node {
namespace {

constexpr int patience_ms = 1000;

bool fill_address(const std::string& path, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return true;
}

// A socket file without a listener is left over from a killed process.
bool somebody_listens(const sockaddr_un& address) {
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (probe < 0) return false;
  const bool answered =
      connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 || errno == EAGAIN;
  ::close(probe);
  return answered;
}

// What came at once, and the first descriptor that came with it.
template <size_t bytes_max>
ssize_t receive_line(int caller, char (&line)[bytes_max], int* passed_fd_out) {
  iovec piece{.iov_base = line, .iov_len = bytes_max - 1};
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = space;
  message.msg_controllen = sizeof space;
  const ssize_t bytes = recvmsg(caller, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  const cmsghdr* header = bytes > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) return bytes;
  // The room for one holds two, because of its alignment.
  const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  for (size_t i = 0; i < count; ++i) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
    if (i == 0) {
      *passed_fd_out = fd;
    } else {
      ::close(fd);
    }
  }
  return bytes;
}

}  // namespace

Result<void> Control::open(const std::string& path) {
  sockaddr_un address{};
  if (!fill_address(path, address)) return fail(Code::invalid, ENAMETOOLONG);
  if (somebody_listens(address)) return fail(Code::again, EADDRINUSE);
  unlink(path.c_str());
  if (fd_ >= 0) return add_name(path);
  fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd_ < 0) return std::unexpected(error_from_errno(errno));
  const mode_t before = umask(0117);
  const int bound = bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int bind_errno = errno;
  umask(before);
  if (bound != 0 || listen(fd_, 16) != 0) {
    const int os_errno = bound != 0 ? bind_errno : errno;
    ::close(fd_);
    fd_ = -1;
    return std::unexpected(error_from_errno(os_errno));
  }
  paths_ = {path};
  return {};
}

// By its own name in the same folder, so that the folder may be seen at another place.
Result<void> Control::add_name(const std::string& path) {
  const std::string& socket_path = paths_.front();
  const std::string target = socket_path.substr(socket_path.rfind('/') + 1);
  if (symlink(target.c_str(), path.c_str()) != 0) return std::unexpected(error_from_errno(errno));
  paths_.push_back(path);
  return {};
}

void Control::close() {
  if (fd_ < 0) return;
  ::close(fd_);
  fd_ = -1;
  for (const std::string& path : paths_) unlink(path.c_str());
  paths_.clear();
}

void Control::on_readable() {
  const int caller = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
  if (caller >= 0) serve(caller);
}

void Control::serve(int caller) {
  pollfd waiting{.fd = caller, .events = POLLIN, .revents = 0};
  char line[256];
  int passed_fd = -1;
  ssize_t bytes = 0;
  if (poll(&waiting, 1, patience_ms) == 1) bytes = receive_line(caller, line, &passed_fd);
  if (bytes > 0) {
    std::string_view text(line, static_cast<size_t>(bytes));
    text = text.substr(0, text.find_first_of("\r\n"));
    const size_t space = text.find(' ');
    const std::string_view arguments = space == std::string_view::npos ? "" : text.substr(space + 1);
    if (const auto taker = takers_.find(text.substr(0, space)); taker != takers_.end()) {
      return taker->second({.socket_fd = caller, .passed_fd = passed_fd, .arguments = std::string(arguments)});
    }
    const auto command = commands_.find(text.substr(0, space));
    const std::string answer = command != commands_.end() ? command->second(arguments) : "error: unknown command\n";
    const timeval timeout{.tv_sec = 1, .tv_usec = 0};
    setsockopt(caller, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    size_t sent = 0;
    while (sent < answer.size()) {
      const ssize_t n = send(caller, answer.data() + sent, answer.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) break;
      sent += static_cast<size_t>(n);
    }
  }
  if (passed_fd >= 0) ::close(passed_fd);
  ::close(caller);
}

}  // namespace blobcache::node
