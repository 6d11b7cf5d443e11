// Ranges that stall are asked for a second time, seldom, and nothing is ever written twice.
#include <doctest/doctest.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <set>

#include "unit/origin/http_fixture.h"

using namespace blobcache_test;

namespace {

constexpr uint32_t range_bytes = 98'304;  // libcurl hands out 16 KiB at a time
constexpr unsigned known_min = 100;       // ranges before the first hedge

size_t body_at(const ServerReply& reply) { return reply.bytes.find("\r\n\r\n") + 4; }

// Asks for `count` ranges, `at_a_time` of them together; how long each took, in ns, in order of length.
std::vector<uint64_t> ask_many(HttpCore& core, const HttpServer& server, unsigned count, unsigned at_a_time) {
  struct Timed : HttpCore::Waited {
    uint64_t begun_ns = 0;
  };
  std::deque<std::unique_ptr<Timed>> running;
  std::vector<uint64_t> times_ns;
  unsigned begun = 0;
  while (times_ns.size() < count) {
    while (begun < count && running.size() < at_a_time) {
      auto& request = *running.emplace_back(std::make_unique<Timed>());
      request.expected_version = "\"one\"";
      request.begun_ns = core.reactor->ring().now_ns();
      core.begin_range(request, server, begun++ * 512, range_bytes);
    }
    core.reactor->turn(true);
    std::erase_if(running, [&](const std::unique_ptr<Timed>& request) {
      if (request->times_done == 0) return false;
      check_bytes(*request);
      times_ns.push_back(core.reactor->ring().now_ns() - request->begun_ns);
      return true;
    });
  }
  std::ranges::sort(times_ns);
  return times_ns;
}

}  // namespace

TEST_CASE("one range in fifty stalls, before its first byte or within: its reader does not wait for the end of it") {
  constexpr unsigned count = 1000;
  std::atomic<bool> stalls{false};
  std::mutex mutex;
  std::set<uint64_t> stalled;
  HttpServer server([&](const ServerRequest& request) {
    ServerReply reply = range_reply(request);
    uint64_t first = 0;
    uint64_t last = 0;
    request.range(&first, &last);
    const std::lock_guard lock(mutex);
    if (!stalls || first % (50 * 512) != 0 || !stalled.insert(first).second) return reply;
    const size_t sent = stalled.size() % 2 == 0 ? 0 : body_at(reply) + 5000;
    return ServerReply{.bytes = reply.bytes.substr(0, sent), .close = false, .hang = true};
  });
  // Who waits for a stalled one waits for its end by the watchdog.
  constexpr uint64_t timeout_ns = 4'000'000'000;
  HttpCore core({.connections_max = 16, .attempt_timeout_ns = timeout_ns});
  ask_many(core, server, known_min, 4);
  CHECK(core.counters.hedges == 0);
  CHECK(server.requests() == known_min);
  stalls = true;
  const std::vector<uint64_t> times_ns = ask_many(core, server, count, 4);
  CHECK(times_ns.back() < timeout_ns / 2);
  CHECK(core.counters.retries == 0);
  CHECK(core.counters.errors == 0);
  CHECK(core.counters.hedges_won >= count / 50);
  CHECK(core.counters.hedges >= core.counters.hedges_won);
  CHECK(core.counters.hedges * 20 <= known_min + count);
  CHECK(server.requests() <= known_min + count + core.counters.hedges);
}

TEST_CASE("a server that is slow with everything is not asked twice for everything") {
  std::atomic<bool> slow{false};
  std::mutex mutex;
  std::condition_variable changed;
  unsigned waiting = 0;
  HttpServer server([&](const ServerRequest& request) {
    if (slow) {
      // Each answer waits until the client has shown what it does about it.
      std::unique_lock lock(mutex);
      ++waiting;
      changed.notify_all();
      changed.wait_for(lock, std::chrono::milliseconds(120), [&] { return !slow; });
    }
    return range_reply(request);
  });
  HttpCore core({.connections_max = 32});
  ask_many(core, server, known_min, 4);
  slow = true;
  constexpr unsigned count = 200;
  ask_many(core, server, count, 16);
  CHECK(waiting >= count);
  CHECK(core.counters.hedges > 0);
  CHECK(core.counters.hedges * 20 <= known_min + count);
  CHECK(server.requests() <= known_min + count + (known_min + count) / 20);
}

TEST_CASE("both attempts answer at once: one of them writes, and nothing is written twice") {
  std::atomic<bool> racing{false};
  std::mutex mutex;
  std::condition_variable both;
  unsigned arrived = 0;
  // The first attempt sends a part of the range; what follows is of other letters in each.
  constexpr uint32_t part = 4096;
  HttpServer server([&](const ServerRequest& request) {
    ServerReply reply = range_reply(request);
    if (!racing) return reply;
    uint64_t first = 0;
    uint64_t last = 0;
    request.range(&first, &last);
    const size_t at = body_at(reply);
    std::unique_lock lock(mutex);
    const char letter = ++arrived % 2 == 1 ? 'a' : 'b';
    std::fill(reply.bytes.begin() + static_cast<ptrdiff_t>(at), reply.bytes.end(), letter);
    if (letter == 'a') {
      reply.pause_at = at + part;
      reply.go_on = [&] {
        std::unique_lock inner(mutex);
        both.wait(inner, [&] { return arrived % 2 == 0; });
      };
    } else {
      both.notify_all();
    }
    return reply;
  });
  HttpCore core({.connections_max = 8});
  unsigned won = 0;
  for (unsigned round = 0; round < 8; ++round) {
    racing = false;
    ask_many(core, server, known_min, 4);
    racing = true;
    HttpCore::Waited request;
    request.expected_version = "\"one\"";
    core.begin_range(request, server, 0, range_bytes);
    core.wait(request);
    REQUIRE(!request.failed);
    const std::string at_the_end = request.bytes_of_range;
    const char winner = at_the_end[part];
    won += winner == 'b';
    CHECK(at_the_end == std::string(part, 'a') + std::string(range_bytes - part, winner) + "########");
    // The loser is gone: its bytes go nowhere.
    while (core.reactor->cqes_owed() > 0) core.reactor->turn(true);
    CHECK(request.bytes_of_range == at_the_end);
  }
  // Eight; on a crowded machine a range may come before its hedge, or another one look as if it stalled.
  CHECK(core.counters.hedges > 0);
  CHECK(core.counters.hedges_won >= won);
  CHECK(core.counters.retries == 0);
}

TEST_CASE("a second attempt that is refused leaves the first alone; stop ends both") {
  std::atomic<int> mode{0};
  std::mutex mutex;
  std::condition_variable changed;
  bool refused = false;
  HttpServer server([&](const ServerRequest& request) {
    if (mode == 0) return range_reply(request);
    if (mode == 2) return ServerReply{.bytes = "", .close = false, .hang = true};
    std::unique_lock lock(mutex);
    if (refused) return range_reply(request);
    if (mode.exchange(3) == 3) {
      refused = true;
      changed.notify_all();
      return reply_with("503 Slow Down", "", "");
    }
    changed.wait(lock, [&] { return refused; });
    return range_reply(request);
  });
  HttpCore core({.connections_max = 8});
  ask_many(core, server, known_min, 4);
  mode = 1;
  HttpCore::Waited request;
  request.expected_version = "\"one\"";
  core.begin_range(request, server, 0, range_bytes);
  core.wait(request);
  check_bytes(request);
  CHECK(core.counters.hedges == 1);
  CHECK(core.counters.hedges_won == 0);
  CHECK(core.counters.retries == 0);

  mode = 2;
  HttpCore::Waited stuck;
  core.begin_range(stuck, server, 0, range_bytes);
  while (core.counters.hedges < 2) core.reactor->turn(true);
  core.client->stop();
  CHECK(stuck.times_done == 1);
  CHECK(stuck.error.code == Code::stopping);
  CHECK(core.client->active() == 0);
  CHECK(core.in_flight == 0);
}
