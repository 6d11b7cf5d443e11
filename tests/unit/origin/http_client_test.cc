// Ranged requests through the ring: concurrency, reuse of connections, what answers are taken, retries, deadlines, stop.
#include <doctest/doctest.h>

#include "unit/origin/http_fixture.h"

using namespace blobcache_test;

namespace {

// One request to a server that answers like this; the code it fails with, and nothing beyond the range was written.
Code failure_of(HttpServer::Answer answer, HttpOptions options = {.retries_max = 0}, uint64_t offset = 65536,
                unsigned* requests_out = nullptr) {
  HttpServer server(std::move(answer));
  HttpCore core(std::move(options));
  const auto request = core.ask(server, offset, 65536);
  REQUIRE(request->failed);
  CHECK(request->bytes_of_range.substr(65536) == "########");
  if (requests_out != nullptr) *requests_out = server.requests();
  return request->error.code;
}

}  // namespace

// Fewer in all than make hedging know what is slow (http_hedge.cc): a slow machine would have second attempts counted.
TEST_CASE("48 ranges at a time: right bytes, no more connections than allowed, connections used again") {
  HttpServer server([](const ServerRequest& request) { return range_reply(request); });
  HttpCore core({.connections_max = 16});
  constexpr unsigned count = 48;
  constexpr unsigned rounds = 2;
  for (unsigned round = 0; round < rounds; ++round) {
    HttpCore::Requests requests;
    for (unsigned i = 0; i < count; ++i) {
      requests.push_back(std::make_unique<HttpCore::Waited>());
      requests.back()->expected_version = "\"one\"";
      core.begin_range(*requests.back(), server, i * 65536 + round, 65536 - round);
    }
    core.wait_all(requests);
    for (const auto& request : requests) check_bytes(*request);
  }
  CHECK(server.requests() == rounds * count);
  CHECK(server.connections() <= 16);
  CHECK(core.counters.connections == server.connections());
  CHECK(core.counters.requests == rounds * count);
  // Idle connections are watched by nobody: the core could sleep for ever.
  core.reactor->turn(false);
  CHECK(core.reactor->cqes_owed() == 0);
}

TEST_CASE("an answer that is not the range asked for is never taken") {
  const auto range_of = [](std::string range, std::string etag = "ETag: \"one\"\r\n") {
    return [=](const ServerRequest&) { return reply_with("206 Partial Content", range + etag, pattern(65536, 65536)); };
  };
  CHECK(failure_of(range_of(content_range(0, 65535))) == Code::protocol);
  CHECK(failure_of(range_of(content_range(65536, 131070))) == Code::protocol);
  CHECK(failure_of(range_of("Content-Range: bytes */100\r\n")) == Code::protocol);
  CHECK(failure_of(range_of("")) == Code::protocol);
  CHECK(failure_of(range_of(content_range(65536, 131071), "ETag: \"two\"\r\n")) == Code::stale);
  CHECK(failure_of(range_of(content_range(65536, 131071), "")) == Code::protocol);
  CHECK(failure_of(range_of(content_range(65536, 131071), "Content-Encoding: gzip\r\nETag: \"one\"\r\n")) ==
        Code::protocol);
  // A whole object for a part of it, and an error page that calls itself a success.
  CHECK(failure_of([](const ServerRequest&) {
          return reply_with("200 OK", "ETag: \"one\"\r\n", pattern(0, 200'000));
        }) == Code::protocol);
  CHECK(failure_of([](const ServerRequest&) { return reply_with("200 OK", "", "<html>sorry</html>"); }) ==
        Code::protocol);
  CHECK(failure_of(
            [](const ServerRequest&) {
              return reply_with("200 OK", "Content-Type: text/html\r\n", std::string(65536, 'x'));
            },
            {.retries_max = 0}, 0) == Code::protocol);
}

TEST_CASE("a whole object may come as a 200") {
  HttpServer server([](const ServerRequest&) { return reply_with("200 OK", "ETag: \"one\"\r\n", pattern(0, 5000)); });
  HttpCore core;
  check_bytes(*core.ask(server, 0, 5000));
}

TEST_CASE("a body longer than the range writes nothing beyond it") {
  CHECK(failure_of([](const ServerRequest&) {
          return reply_with("206 Partial Content", content_range(65536, 131071) + "ETag: \"one\"\r\n",
                            pattern(65536, 70000));
        }) == Code::protocol);
}

TEST_CASE("statuses become codes, and only what may pass is asked again") {
  struct Case {
    const char* status;
    Code code;
    bool again;
  };
  for (const Case& item :
       {Case{"404 Not Found", Code::not_found, false}, Case{"403 Forbidden", Code::denied, false},
        Case{"401 Unauthorized", Code::denied, false}, Case{"412 Precondition Failed", Code::stale, false},
        Case{"416 Range Not Satisfiable", Code::stale, false}, Case{"400 Bad Request", Code::invalid, false},
        Case{"302 Found", Code::protocol, false}, Case{"503 Slow Down", Code::io, true},
        Case{"500 Oops", Code::io, true}, Case{"429 Too Many", Code::io, true},
        Case{"504 Late", Code::timeout, true}}) {
    CAPTURE(item.status);
    unsigned requests = 0;
    const Code code = failure_of([&](const ServerRequest&) { return reply_with(item.status, "", "text"); },
                                 {.retries_max = 2}, 65536, &requests);
    CHECK(code == item.code);
    CHECK(requests == (item.again ? 3 : 1));
  }
}

TEST_CASE("connections that break at every position: the range goes on behind what has come") {
  std::atomic<unsigned> asked_twice{0};
  HttpServer server([&](const ServerRequest& request) {
    ServerReply reply = range_reply(request);
    uint64_t first = 0;
    uint64_t last = 0;
    request.range(&first, &last);
    if (request.number > 0 && first == 0) ++asked_twice;
    // 12,000 bytes more each time, in the end all.
    const size_t head = reply.bytes.find("\r\n\r\n") + 4;
    if (reply.bytes.size() - head > 12'000) reply = {.bytes = reply.bytes.substr(0, head + 12'000), .close = true};
    return reply;
  });
  HttpCore core({.retries_max = 1});
  check_bytes(*core.ask(server, 0, 262'144));
  CHECK(asked_twice == 0);
  CHECK(server.requests() == 22);
}

TEST_CASE(
    "the first bytes of a range are told of while the rest is on its way, and are not asked for or written again") {
  constexpr uint32_t bytes = 1 << 20;
  constexpr uint32_t sent = 300'000;
  std::atomic<uint64_t> second_from{0};
  HttpServer server([&](const ServerRequest& request) {
    ServerReply reply = range_reply(request);
    uint64_t last = 0;
    if (request.number > 0) {
      uint64_t first = 0;
      request.range(&first, &last);
      second_from = first;
      return reply;
    }
    const size_t head = reply.bytes.find("\r\n\r\n") + 4;
    return ServerReply{.bytes = reply.bytes.substr(0, head + sent), .close = false, .hang = true};
  });
  // The server hangs after the first part: the watchdog ends the attempt when that part has been looked at.
  HttpCore core({.attempt_timeout_ns = 300'000'000});
  struct Told : HttpCore::Waited {
    std::vector<uint32_t> news;
    bool wrong = false;
  } request;
  request.expected_version = "\"one\"";
  request.on_bytes = [](HttpRequest& here, uint32_t bytes_done) {
    auto& told = static_cast<Told&>(here);
    told.wrong |= told.times_done != 0 || bytes_done >= bytes || (!told.news.empty() && bytes_done < told.news.back());
    const uint32_t before = told.news.empty() ? 0 : told.news.back();
    told.wrong |= told.bytes_of_range.substr(before, bytes_done - before) != pattern(before, bytes_done - before);
    told.news.push_back(bytes_done);
    // Whoever has these bytes now may keep them: a second write would show.
    if (bytes_done == sent) told.bytes_of_range.replace(0, sent, std::string(sent, '!'));
  };
  core.begin_range(request, server, 0, bytes);
  while (request.news.empty() || request.news.back() < sent) core.reactor->turn(true);
  CHECK(request.times_done == 0);
  CHECK(server.requests() == 1);
  core.wait(request);
  REQUIRE(!request.failed);
  CHECK(!request.wrong);
  CHECK(second_from == sent);
  CHECK(request.bytes_of_range == std::string(sent, '!') + pattern(sent, bytes - sent) + "########");
}

TEST_CASE("a length that is not the range's is refused before a byte of it is told of") {
  HttpServer server([](const ServerRequest&) {
    return reply_with("206 Partial Content", content_range(0, 65535) + "ETag: \"one\"\r\n", pattern(0, 65537));
  });
  HttpCore core({.retries_max = 0});
  HttpCore::Waited request;
  request.expected_version = "\"one\"";
  request.on_bytes = [](HttpRequest&, uint32_t) { CHECK(false); };
  core.begin_range(request, server, 0, 65536);
  core.wait(request);
  REQUIRE(request.failed);
  CHECK(request.error.code == Code::protocol);
  CHECK(request.bytes_of_range == std::string(65544, '#'));
}

TEST_CASE("a version that would end its header's line is not sent") {
  std::string head;
  HttpServer server([&](const ServerRequest& request) {
    head = request.head;
    return range_reply(request);
  });
  HttpCore core;
  HttpCore::Waited request;
  request.expected_version = "\"one\"\r\nX-More: 1";
  core.begin_range(request, server, 0, 65536);
  core.wait(request);
  CHECK(request.error.code == Code::stale);
  CHECK(head.find("Range: bytes=0-65535") != std::string::npos);
  CHECK(head.find("X-More") == std::string::npos);
}

TEST_CASE("an error page that calls itself a success passes; a server that ignores ranges is asked once") {
  HttpServer server([](const ServerRequest& request) {
    if (request.number < 2) return reply_with("200 OK", "Content-Type: text/html\r\n", "<html>sorry</html>");
    return range_reply(request);
  });
  HttpCore core;
  check_bytes(*core.ask(server, 65536, 65536));
  unsigned requests = 0;
  CHECK(failure_of([](const ServerRequest&) { return reply_with("200 OK", "ETag: \"one\"\r\n", pattern(0, 200'000)); },
                   {.retries_max = 3}, 65536, &requests) == Code::protocol);
  CHECK(requests == 1);
}

TEST_CASE("a version that changes between two attempts is not mixed") {
  HttpServer server([](const ServerRequest& request) {
    ServerReply reply = range_reply(request, request.number == 0 ? "ETag: \"one\"\r\n" : "ETag: \"two\"\r\n");
    if (request.number == 0) reply = {.bytes = reply.bytes.substr(0, reply.bytes.size() - 1000), .close = true};
    return reply;
  });
  HttpCore core;
  const auto request = core.ask(server, 0, 65536);
  REQUIRE(request->failed);
  CHECK(request->error.code == Code::stale);
}

TEST_CASE("Retry-After is obeyed, and a storm of 503 passes") {
  HttpServer server([](const ServerRequest& request) {
    if (request.number < 3) return reply_with("503 Slow Down", request.number == 2 ? "Retry-After: 1\r\n" : "", "");
    return range_reply(request);
  });
  HttpCore core;
  const uint64_t before_ns = core.reactor->ring().now_ns();
  check_bytes(*core.ask(server, 0, 65536));
  CHECK(core.reactor->ring().now_ns() - before_ns >= 1'000'000'000);
  CHECK(server.requests() == 4);
}

TEST_CASE("a server that hangs costs attempts of attempt_timeout, then an error, within the deadline") {
  HttpServer server([](const ServerRequest&) { return ServerReply{.bytes = "", .close = false, .hang = true}; });
  HttpCore core({.attempt_timeout_ns = 100'000'000, .deadline_ns = 1'000'000'000, .retries_max = 2});
  const uint64_t before_ns = core.reactor->ring().now_ns();
  const auto request = core.ask(server, 0, 65536);
  REQUIRE(request->failed);
  CHECK(request->error.code == Code::timeout);
  CHECK(server.requests() == 3);
  CHECK(core.reactor->ring().now_ns() - before_ns < 2'000'000'000);
}

TEST_CASE("stop ends what runs, what waits and what pauses at once") {
  HttpServer server([](const ServerRequest& request) {
    if (request.number == 0) return reply_with("503 Slow Down", "Retry-After: 30\r\n", "");
    return ServerReply{.bytes = "", .close = false, .hang = true};
  });
  HttpCore core({.connections_max = 2});
  HttpCore::Requests requests;
  for (int i = 0; i < 8; ++i) core.begin_next(requests, server);
  while (server.requests() < 3) core.reactor->turn(false);
  core.client->stop();
  check_stopped(core, requests);
  CHECK(core.reactor->drain(1'000'000'000));
}

TEST_CASE("nobody listens: the error says so after the retries") {
  std::string url;
  {
    HttpServer gone([](const ServerRequest&) { return ServerReply{}; });
    url = gone.url();
  }
  HttpCore core({.retries_max = 1});
  HttpCore::Waited request;
  request.scheme_and_host = url;
  request.path = "/";
  request.body_bytes_max = 100;
  core.client->begin(request);
  core.wait(request);
  REQUIRE(request.failed);
  CHECK(request.error.os_errno == ECONNREFUSED);
  CHECK(!request.sentence.empty());
}

TEST_CASE("counters tell what requests cost: throttling, retries, bytes of what broke off, and times") {
  HttpServer server([](const ServerRequest& request) {
    if (request.number == 0) return reply_with("503 Slow Down", "", "wait");
    ServerReply reply = range_reply(request);
    if (request.number == 1) reply = {.bytes = reply.bytes.substr(0, reply.bytes.size() - 20'000), .close = true};
    return reply;
  });
  HttpCore core;
  check_bytes(*core.ask(server, 0, 65536));
  const OriginCounters& counters = core.counters;
  CHECK(counters.requests == 3);
  CHECK(counters.retries == 2);
  CHECK(counters.throttled == 1);
  CHECK(counters.errors == 0);
  CHECK(counters.bytes == 65536 + 4);
  HistogramSums first_byte;
  first_byte.add(counters.first_byte);
  CHECK(first_byte.count() == 3);
  CHECK(first_byte.percentile_ns(0.5) > 0);
}

TEST_CASE("what nobody waits for lets others go first") {
  OrderedServer ordered(HttpCore::range_bytes);
  HttpCore core({.connections_max = 1});
  HttpCore::Requests requests;
  for (unsigned i = 0; i < 6; ++i) core.begin_next(requests, ordered.server, i < 4);
  core.wait_all(requests);
  CHECK(ordered.order() == std::vector<uint64_t>{0, 4, 5, 1, 2, 3});
}
