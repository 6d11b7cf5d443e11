// origin.bandwidth: what the bucket gives, and that ranges wait for it without failing while other requests do not.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <mutex>

#include "origin/bandwidth.h"
#include "unit/origin/http_fixture.h"

using namespace blobcache_test;

namespace {

constexpr uint64_t s_ns = 1'000'000'000;
constexpr uint32_t range_bytes = 65536;

ServerReply answer(const ServerRequest& request) {
  uint64_t first = 0;
  uint64_t last = 0;
  if (!request.range(&first, &last)) return reply_with("200 OK", "", "small");
  return reply_with(
      "206 Partial Content",
      "Content-Range: bytes " + std::to_string(first) + "-" + std::to_string(last) + "/8388608\r\nETag: \"one\"\r\n",
      pattern(first, last - first + 1));
}

using Requests = std::vector<std::unique_ptr<HttpCore::Waited>>;
HttpCore::Waited& begin(HttpCore& core, const HttpServer& server, Requests& requests, bool background = false) {
  const uint64_t offset = requests.size() * range_bytes;
  HttpCore::Waited& request = *requests.emplace_back(std::make_unique<HttpCore::Waited>());
  request.expected_version = "\"one\"";
  request.background = background;
  core.begin_range(request, server, offset, range_bytes);
  return request;
}

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
  HttpServer server(answer);
  Bandwidth bandwidth(1'000'000);
  const HttpOptions options{.deadline_ns = 250'000'000, .retries_max = 0, .bandwidth = &bandwidth};
  HttpCore one(options);
  HttpCore two(options);
  Requests requests;
  const uint64_t before_ns = one.reactor->ring().now_ns();
  for (int i = 0; i < 6; ++i) {
    begin(one, server, requests);
    begin(two, server, requests, i % 2 == 1);
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
  for (const auto& request : requests) {
    REQUIRE(!request->failed);
    CHECK(request->bytes_of_range == pattern(request->offset, range_bytes) + "########");
  }
  CHECK(server.requests() == 13);
}

TEST_CASE("readers go before what nobody waits for, which still gets one of four") {
  std::vector<uint64_t> order;
  std::mutex mutex;
  HttpServer server([&](const ServerRequest& request) {
    uint64_t first = 0;
    uint64_t last = 0;
    request.range(&first, &last);
    const std::lock_guard lock(mutex);
    order.push_back(first / range_bytes);
    return answer(request);
  });
  Bandwidth bandwidth(400'000);  // a range is more than the burst: no two are ever begun at a time
  HttpCore core({.bandwidth = &bandwidth});
  Requests requests;
  begin(core, server, requests);
  for (int i = 0; i < 2; ++i) begin(core, server, requests, true);
  for (int i = 0; i < 5; ++i) begin(core, server, requests);
  for (const auto& request : requests) core.wait(*request);
  CHECK(order == std::vector<uint64_t>{0, 3, 4, 5, 1, 6, 7, 2});
}

TEST_CASE("an answer that brings nothing costs no bandwidth") {
  HttpServer server([](const ServerRequest& request) {
    return request.number == 0 ? reply_with("503 Slow Down", "", "wait") : answer(request);
  });
  Bandwidth bandwidth(1024);  // a range is worth a minute
  HttpCore core({.bandwidth = &bandwidth});
  Requests requests;
  const uint64_t before_ns = core.reactor->ring().now_ns();
  core.wait(begin(core, server, requests));
  CHECK(!requests[0]->failed);
  CHECK(core.reactor->ring().now_ns() - before_ns < 30 * s_ns);
}

TEST_CASE("stop ends ranges that wait for bandwidth, and gives back what they took") {
  HttpServer server([](const ServerRequest&) { return ServerReply{.bytes = "", .close = false, .hang = true}; });
  Bandwidth bandwidth(1024);
  HttpCore core({.bandwidth = &bandwidth});
  Requests requests;
  for (int i = 0; i < 4; ++i) begin(core, server, requests, i == 3);
  while (server.requests() < 1) core.reactor->turn(false);
  core.client->stop();
  for (const auto& request : requests) {
    REQUIRE(request->times_done == 1);
    CHECK(request->error.code == Code::stopping);
  }
  CHECK(core.client->active() == 0);
  CHECK(bandwidth.try_take(1, core.reactor->ring().now_ns()) == 0);
}
