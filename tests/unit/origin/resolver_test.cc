// A name server that never answers: what waits for it ends when the client is stopped, not when the resolver gives up.
#include <doctest/doctest.h>

#include <fstream>
#include <thread>

#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "unit/origin/http_fixture.h"

using namespace blobcache_test;

namespace {

// A socket where the name server would be; -1: this machine does not allow it.
int bind_name_server() {
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(53);
  ::inet_pton(AF_INET, "127.0.0.99", &address.sin_addr);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  ::close(fd);
  return -1;
}

// This thread, and those that it starts, see another /etc/resolv.conf.
bool use_name_server(const std::string& file) {
  std::ofstream(file) << "nameserver 127.0.0.99\noptions timeout:10 attempts:1\n";
  return ::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount(file.c_str(), "/etc/resolv.conf", nullptr, MS_BIND, nullptr) == 0;
}

}  // namespace

TEST_CASE("a resolver that hangs delays no stop") {
  const int server = bind_name_server();
  char file[] = "/tmp/unit_origin.resolv.XXXXXX";
  const int created = ::mkstemp(file);
  REQUIRE(created >= 0);
  ::close(created);
  bool tested = false;
  std::thread apart([&] {
    if (server < 0 || !use_name_server(file)) return;
    tested = true;
    uint64_t stopped_ns = 0;
    uint64_t ended_ns = 0;
    {
      HttpCore core({.attempt_timeout_ns = 30'000'000'000});
      HttpCore::Waited request;
      request.scheme_and_host = "http://stuck.test";
      request.path = "/";
      request.body_bytes_max = 100;
      core.client->begin(request);
      // The question has been asked: somebody waits for its answer.
      pollfd asked{.fd = server, .events = POLLIN, .revents = 0};
      const uint64_t give_up_ns = core.reactor->ring().now_ns() + 10'000'000'000;
      while (::poll(&asked, 1, 0) == 0 && core.reactor->ring().now_ns() < give_up_ns) core.reactor->turn(false);
      CHECK((asked.revents & POLLIN) != 0);
      CHECK(request.times_done == 0);
      stopped_ns = core.reactor->ring().now_ns();
      core.client->stop();
      CHECK(request.times_done == 1);
      CHECK(request.error.code == Code::stopping);
      CHECK(core.reactor->drain(5'000'000'000));
      core.client.reset();
      ended_ns = core.reactor->ring().now_ns();
      core.client = std::make_unique<HttpClient>(*core.reactor, core.options, core.counters, core.in_flight);
    }
    CHECK(ended_ns - stopped_ns < 2'000'000'000);
  });
  apart.join();
  ::unlink(file);
  if (server >= 0) ::close(server);
  if (!tested) MESSAGE("not tested: this needs to be root, for a mount namespace and a socket on port 53");
}
