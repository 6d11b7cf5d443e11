// origin.bandwidth: what the bucket gives, and that ranges wait for it without failing while other requests do not.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <ctime>

#include "origin/bandwidth.h"
#include "origin/bandwidth_queue.h"
#include "unit/origin/http_fixture.h"

using namespace blobcache_test;

namespace {

constexpr uint64_t s_ns = 1'000'000'000;
constexpr uint32_t range_bytes = HttpCore::range_bytes;
using Requests = HttpCore::Requests;

}  // namespace

TEST_CASE("a bucket that is not in debt gives all of a range, and then nothing until that is paid") {
  Bandwidth bandwidth(1000);
  uint64_t now_ns = 3600 * s_ns;
  CHECK(bandwidth.try_take(2000, now_ns) == 0);
  // An hour without a request is worth a tenth of a second.
  const uint64_t paid_ns = now_ns + 1'900'000'000;
  CHECK(bandwidth.try_take(1, now_ns) == paid_ns);
  CHECK(bandwidth.try_take(1, paid_ns - 1) == paid_ns);
  CHECK(bandwidth.try_take(1000, paid_ns) == 0);
  CHECK(bandwidth.try_take(1, paid_ns) == paid_ns + s_ns);
  bandwidth.give_back(500);
  CHECK(bandwidth.try_take(1, paid_ns) == paid_ns + s_ns / 2);
}

TEST_CASE("a queue that the last one has left waits for nothing") {
  const std::unique_ptr<Reactor> reactor = make_reactor();
  Bandwidth bandwidth(1);
  REQUIRE(bandwidth.try_take(1000, reactor->ring().now_ns()) == 0);
  {
    BandwidthQueue queue({.home = *reactor,
                          .bandwidth = bandwidth,
                          .on_turn = [](BandwidthWaiter&, void*) { CHECK(false); },
                          .context = nullptr});
    BandwidthWaiter reader;
    BandwidthWaiter other;
    CHECK(!queue.take(reader, 1, false));
    CHECK(!queue.take(other, 1, true));
    queue.leave(reader);
    queue.leave(other);
  }  // an armed timer would end the program here
  CHECK(bandwidth.try_take(1, reactor->ring().now_ns()) != 0);
}

TEST_CASE("over a minute of ranges of any size the rate holds") {
  Bandwidth bandwidth(1'000'000);
  uint64_t now_ns = 100 * s_ns;
  uint64_t taken_bytes = 0;
  uint32_t bytes = 1;
  while (now_ns < 160 * s_ns) {
    const uint64_t again_ns = bandwidth.try_take(bytes, now_ns);
    REQUIRE((again_ns == 0 || again_ns > now_ns));
    if (again_ns != 0) {
      now_ns = again_ns;
      continue;
    }
    taken_bytes += bytes;
    bytes = bytes * 7 % 99'991;
  }
  CHECK(taken_bytes >= 60'000'000);
  CHECK(taken_bytes <= 60'000'000 + 200'000);
}

TEST_CASE("ranges on two cores share the bandwidth; their deadlines stand still; look-ups pass by") {
  HttpServer server([](const ServerRequest& request) {
    return request.header("range").empty() ? reply_with("200 OK", "", "small") : range_reply(request);
  });
  Bandwidth bandwidth(1'000'000);
  const HttpOptions options{.deadline_ns = 250'000'000, .retries_max = 0, .bandwidth = &bandwidth};
  HttpCore one(options);
  HttpCore two(options);
  Requests requests;
  const uint64_t before_ns = one.reactor->ring().now_ns();
  for (int i = 0; i < 6; ++i) {
    one.begin_next(requests, server);
    two.begin_next(requests, server, i % 2 == 1);
  }
  HttpCore::Waited look_up;
  look_up.scheme_and_host = server.url();
  look_up.path = "/other";
  look_up.body_bytes_max = 100;
  one.client->begin(look_up);
  one.wait(look_up);
  CHECK(!look_up.failed);
  CHECK(requests.back()->times_done == 0);
  const auto all_done = [&] {
    return std::ranges::all_of(requests, [](const auto& request) { return request->times_done == 1; });
  };
  while (!all_done()) {
    one.reactor->turn(false);
    two.reactor->turn(false);
  }
  // 12 ranges: when the last is begun the eleven before it are paid, less the burst.
  const uint64_t took_ns = one.reactor->ring().now_ns() - before_ns;
  CHECK(took_ns >= 11 * range_bytes * s_ns / 1'000'000 - s_ns / 10);
  CHECK(took_ns < 10 * s_ns);
  for (const auto& request : requests) check_bytes(*request);
  CHECK(server.requests() == 13);
}

TEST_CASE("readers go before what nobody waits for, which still gets one of four") {
  OrderedServer ordered(range_bytes);
  Bandwidth bandwidth(400'000);  // a range is more than the burst: no two are ever begun at a time
  HttpCore core({.bandwidth = &bandwidth});
  Requests requests;
  core.begin_next(requests, ordered.server);
  for (int i = 0; i < 2; ++i) core.begin_next(requests, ordered.server, true);
  for (int i = 0; i < 5; ++i) core.begin_next(requests, ordered.server);
  core.wait_all(requests);
  CHECK(ordered.order() == std::vector<uint64_t>{0, 3, 4, 5, 1, 6, 7, 2});
}

TEST_CASE("an answer that brings nothing costs no bandwidth") {
  HttpServer server([](const ServerRequest& request) {
    return request.number == 0 ? reply_with("503 Slow Down", "", "wait") : range_reply(request);
  });
  Bandwidth bandwidth(1024);  // a range is worth a minute
  HttpCore core({.bandwidth = &bandwidth});
  Requests requests;
  const uint64_t before_ns = core.reactor->ring().now_ns();
  core.wait(core.begin_next(requests, server));
  CHECK(!requests[0]->failed);
  CHECK(core.reactor->ring().now_ns() - before_ns < 30 * s_ns);
}

TEST_CASE("stop ends ranges that wait for bandwidth, and gives back what they took") {
  HttpServer server([](const ServerRequest&) { return ServerReply{.bytes = "", .close = false, .hang = true}; });
  Bandwidth bandwidth(1024);
  HttpCore core({.bandwidth = &bandwidth});
  Requests requests;
  for (int i = 0; i < 4; ++i) core.begin_next(requests, server, i == 3);
  while (server.requests() < 1) core.reactor->turn(false);
  core.client->stop();
  check_stopped(core, requests);
  CHECK(bandwidth.try_take(1, core.reactor->ring().now_ns()) == 0);
}

namespace {

// 100 ranges without a limit, so that it is known when a range stalls; then the next one to come stalls, and only that one.
struct StallingServer {
  std::atomic<bool> stalls{false};
  std::atomic<uint64_t> asked_again_ns{0};
  HttpServer server{[this](const ServerRequest& request) {
    if (stalls.exchange(false)) return ServerReply{.bytes = "", .close = false, .hang = true};
    asked_again_ns = steady_ns();
    return range_reply(request);
  }};

  static uint64_t steady_ns() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * s_ns + static_cast<uint64_t>(now.tv_nsec);
  }
  void make_known(HttpCore& core) {
    Requests known;
    for (int i = 0; i < 100; ++i) core.wait(core.begin_next(known, server));
    stalls = true;
  }
};

}  // namespace

TEST_CASE("a second attempt waits for bandwidth as any range does, and what was taken for the loser is given back") {
  StallingServer stalling;
  Bandwidth bandwidth(0);
  HttpCore core({.bandwidth = &bandwidth});
  stalling.make_known(core);
  bandwidth.set(2 * range_bytes);  // a range is worth half a second
  const uint64_t begun_ns = StallingServer::steady_ns();
  const auto request = core.ask(stalling.server, 0, range_bytes);
  check_bytes(*request);
  CHECK(core.counters.hedges == 1);
  CHECK(core.counters.hedges_won == 1);
  CHECK(core.counters.retries == 0);
  CHECK(stalling.asked_again_ns - begun_ns >= s_ns / 2 - s_ns / 10);
  // Two were taken and one came: nothing is owed since the second one began.
  CHECK(bandwidth.try_take(1, core.reactor->ring().now_ns()) == 0);
}

TEST_CASE("bytes that come after all end the wait for a second attempt's bandwidth, and cost none") {
  std::atomic<bool> slow{false};
  std::atomic<bool> may_go_on{false};
  HttpServer server([&](const ServerRequest& request) {
    ServerReply reply = range_reply(request);
    if (slow.exchange(false)) reply.go_on = [&] { may_go_on.wait(false); };
    return reply;
  });
  Bandwidth bandwidth(0);
  HttpCore core({.connections_max = 2, .bandwidth = &bandwidth});
  Requests known;
  for (int i = 0; i < 100; ++i) core.wait(core.begin_next(known, server));
  slow = true;
  bandwidth.set(1024);  // a range is worth a minute
  HttpCore::Waited request;
  request.expected_version = "\"one\"";
  core.begin_range(request, server, 0, range_bytes);
  // It stalls, and waits in line for a second attempt.
  while (!request.linked()) core.reactor->turn(true);
  may_go_on = true;
  may_go_on.notify_all();
  core.wait(request);
  check_bytes(request);
  CHECK(core.counters.hedges == 0);
  CHECK(server.requests() == 101);
  // The debt is that of one range.
  const uint64_t paid_ns = bandwidth.try_take(1, core.reactor->ring().now_ns());
  CHECK(paid_ns <= core.reactor->ring().now_ns() + 64 * s_ns);
}
