// The watchdog tells that all is well exactly as long as every core turns.
#include <doctest/doctest.h>

#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "node/watchdog.h"
#include "ring/uring.h"

namespace blobcache::node {
namespace {

std::unique_ptr<Reactor> make_reactor(unsigned core) {
  Result<std::unique_ptr<Ring>> ring = create_uring({.sqes = 16, .cqes = 64});
  REQUIRE(ring.has_value());
  return std::make_unique<Reactor>(std::move(*ring), ReactorOptions{.core = core, .cqes = 64});
}

// What the manager has heard by now.
unsigned told(int fd) {
  unsigned count = 0;
  char text[64];
  for (ssize_t n = 0; (n = recv(fd, text, sizeof text, MSG_DONTWAIT)) > 0; ++count) {
    CHECK(std::string(text, static_cast<size_t>(n)) == "WATCHDOG=1\n");
  }
  return count;
}

TEST_CASE("watchdog: silent while a core hangs, and not afterwards") {
  int link[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, link) == 0);
  const std::unique_ptr<Reactor> home = make_reactor(0);
  const std::unique_ptr<Reactor> other = make_reactor(1);
  constexpr uint64_t period_ns = 30'000'000;
  Watchdog watchdog(link[0], period_ns);
  watchdog.watch(*home);
  watchdog.watch(*other);
  watchdog.start(*home);
  const auto turn_home_for = [&](unsigned periods) {
    const uint64_t end_ns = home->ring().now_ns() + periods * period_ns;
    while (home->ring().now_ns() < end_ns) home->turn(true);
  };
  // The other core hangs from the beginning: one message, sent when nothing was known against it.
  turn_home_for(4);
  CHECK(told(link[1]) == 1);
  other->turn(false);
  turn_home_for(1);
  CHECK(told(link[1]) == 1);
  turn_home_for(2);
  CHECK(told(link[1]) == 0);
  other->turn(false);
  watchdog.stop();
  CHECK(home->drain(1'000'000'000));
  close(link[0]);
  close(link[1]);
}

}  // namespace
}  // namespace blobcache::node
