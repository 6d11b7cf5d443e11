// What the log says of a failed request: the thing, the cause, the remedy; and not more often than somebody can read.
#include "origin/http_failure.h"

#include <doctest/doctest.h>

using namespace blobcache;

namespace {

struct Failure {
  Error error{};
  long status = 0;
  std::string curl_says;
  std::string_view server_says;
  uint32_t attempts = 6;
};

std::string sentence_of(const Failure& failure) {
  HttpRequest request;
  request.scheme_and_host = "http://store:9000";
  request.failed = true;
  request.error = failure.error;
  request.head.status = failure.status;
  request.sentence = failure.curl_says;
  request.attempts = failure.attempts;
  return failure_sentence(request, {.deadline_ns = 60'000'000'000}, "reading 'a/b' of s3://bucket",
                          failure.server_says);
}

}  // namespace

TEST_CASE("a failure is one sentence: the thing, the cause, the remedy") {
  CHECK(sentence_of({.error = {Code::io, EIO}, .status = 503, .server_says = "SlowDown"}) ==
        "reading 'a/b' of s3://bucket from http://store:9000 failed: the answer was status 503 (SlowDown) (6 attempts "
        "within "
        "1min); the server is overloaded: lower origin.connections, or ask for a higher limit there");
  const auto contains = [](const std::string& text, std::string_view part) {
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
  };
  contains(sentence_of({.error = {Code::denied, EACCES}, .status = 403, .attempts = 1}), "check the credentials");
  contains(sentence_of({.error = {Code::io, ECONNREFUSED}, .curl_says = "Connection refused"}), "Connection refused");
  contains(sentence_of({.error = {Code::timeout, ETIMEDOUT}}), "the server did not answer");
  contains(sentence_of({.error = {Code::protocol, EPROTO}, .status = 200}), "ignores ranges");
}

TEST_CASE("answers are no failures") {
  CHECK(sentence_of({.error = {Code::not_found, ENOENT}, .status = 404}).empty());
  CHECK(sentence_of({.error = {Code::stale, ESTALE}, .status = 412}).empty());
  CHECK(sentence_of({.error = {Code::stopping, ECANCELED}}).empty());
}

TEST_CASE("one line a second, which says how many were left out") {
  constexpr uint64_t s_ns = 1'000'000'000;
  LinePerSecond lines;
  uint64_t left = 99;
  CHECK(lines.may_say(5 * s_ns, &left));
  CHECK(left == 0);
  CHECK(!lines.may_say(5 * s_ns + 1, &left));
  CHECK(!lines.may_say(6 * s_ns - 1, &left));
  CHECK(lines.may_say(6 * s_ns, &left));
  CHECK(left == 2);
}
