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
  if (caller < 0) return;
  pollfd waiting{.fd = caller, .events = POLLIN, .revents = 0};
  char line[128];
  ssize_t bytes = 0;
  if (poll(&waiting, 1, patience_ms) == 1) bytes = recv(caller, line, sizeof line - 1, MSG_DONTWAIT);
  if (bytes > 0) {
    std::string_view text(line, static_cast<size_t>(bytes));
    text = text.substr(0, text.find_first_of("\r\n"));
    const size_t space = text.find(' ');
    const std::string_view arguments = space == std::string_view::npos ? "" : text.substr(space + 1);
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
  ::close(caller);
}

}  // namespace blobcache::node
