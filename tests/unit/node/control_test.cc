// The control socket: one line in, one answer out; strangers and silent callers do no harm.
#include <doctest/doctest.h>

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <thread>

#include "node/control.h"

namespace blobcache::node {
namespace {

struct Socket {
  Socket() {
    char name[] = "/tmp/blobcache-control-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    folder = name;
    path = folder + "/s.sock";
  }
  ~Socket() {
    unlink(path.c_str());
    rmdir(folder.c_str());
  }
  int dial() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    return fd;
  }
  std::string folder;
  std::string path;
};

std::string ask(const Socket& socket, Control& control, const std::string& line) {
  const int fd = socket.dial();
  REQUIRE(write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size()));
  control.on_readable();
  std::string answer;
  char part[256];
  for (ssize_t n = 0; (n = read(fd, part, sizeof part)) > 0;) answer.append(part, static_cast<size_t>(n));
  close(fd);
  return answer;
}

TEST_CASE("control: commands are answered, others are told so") {
  const Socket socket;
  Control control;
  control.add("ping", [](std::string_view) { return std::string("pong\n"); });
  control.add("long", [](std::string_view) { return std::string(100'000, 'x'); });
  control.add("echo", [](std::string_view arguments) { return "<" + std::string(arguments) + ">\n"; });
  REQUIRE(control.open(socket.path));
  CHECK(ask(socket, control, "ping\n") == "pong\n");
  CHECK(ask(socket, control, "ping") == "pong\n");
  CHECK(ask(socket, control, "echo a  b\r\n") == "<a  b>\n");
  CHECK(ask(socket, control, "echo\n") == "<>\n");
  CHECK(ask(socket, control, "nonsense\n").find("error") == 0);
  CHECK(ask(socket, control, std::string(127, '\0')).find("error") == 0);
  struct stat facts{};
  REQUIRE(stat(socket.path.c_str(), &facts) == 0);
  CHECK((facts.st_mode & 0777) == 0660);
  std::string answer;
  std::thread caller([&] {
    const int fd = socket.dial();
    REQUIRE(write(fd, "long\n", 5) == 5);
    char part[4096];
    for (ssize_t n = 0; (n = read(fd, part, sizeof part)) > 0;) answer.append(part, static_cast<size_t>(n));
    close(fd);
  });
  pollfd waiting{control.fd(), POLLIN, 0};
  REQUIRE(poll(&waiting, 1, 10'000) == 1);
  control.on_readable();
  caller.join();
  CHECK(answer.size() == 100'000);
}

TEST_CASE("control: a living daemon's socket is not taken over, a dead one's is") {
  const Socket socket;
  {
    Control first;
    REQUIRE(first.open(socket.path));
    Control second;
    const Result<void> opened = second.open(socket.path);
    REQUIRE(!opened);
    CHECK(opened.error().os_errno == EADDRINUSE);
  }
  // Left over from a process that was killed: a file, and nobody listens.
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket.path.c_str(), socket.path.size() + 1);
  REQUIRE(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  close(fd);
  Control third;
  CHECK(third.open(socket.path).has_value());
}

}  // namespace
}  // namespace blobcache::node
