#include "node/notify.h"

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"

namespace blobcache::node {
namespace {

// 0: not there, or no number.
uint64_t number_in_environment(const char* variable) {
  const char* text = std::getenv(variable);
  uint64_t value = 0;
  if (text == nullptr) return 0;
  const char* end = text + std::strlen(text);
  const auto parsed = std::from_chars(text, end, value);
  return parsed.ec == std::errc() && parsed.ptr == end ? value : 0;
}

uint64_t monotonic_us() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

}  // namespace

Notify::~Notify() {
  if (fd_ >= 0) close(fd_);
}

bool Notify::open() {
  const char* path = std::getenv("NOTIFY_SOCKET");
  if (path == nullptr || path[0] == '\0') return true;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const size_t bytes = std::strlen(path);
  if ((path[0] != '/' && path[0] != '@') || bytes >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, path, bytes);
  // A name of the abstract kind begins with NUL and is as long as it is.
  const bool abstract = path[0] == '@';
  if (abstract) address.sun_path[0] = '\0';
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + bytes + (abstract ? 0 : 1));
  fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd_ < 0) return false;
  if (connect(fd_, reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    close(fd_);
    fd_ = -1;
    return false;
  }
  const uint64_t pid = number_in_environment("WATCHDOG_PID");
  if (pid == 0 || pid == static_cast<uint64_t>(getpid())) watchdog_ns_ = number_in_environment("WATCHDOG_USEC") * 1000;
  return true;
}

void Notify::ready(std::string_view status) { send(fmt::format("READY=1\nSTATUS={}\n", status)); }

void Notify::status(std::string_view status) { send(fmt::format("STATUS={}\n", status)); }

void Notify::reloading() { send(fmt::format("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic_us())); }

void Notify::stopping() { send("STOPPING=1\nSTATUS=draining\n"); }

// A manager whose queue is full is a manager that is busy: these few lines may wait for it.
void Notify::send(std::string_view lines) {
  if (fd_ < 0) return;
  if (::send(fd_, lines.data(), lines.size(), MSG_NOSIGNAL) < 0) {
    BC_LOG(warn, "the service manager could not be told '{}': {}", lines.substr(0, lines.find('\n')),
           std::strerror(errno));
  }
}

}  // namespace blobcache::node
