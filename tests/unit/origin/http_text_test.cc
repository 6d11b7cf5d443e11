#include <doctest/doctest.h>

#include "origin/http_text.h"

using namespace blobcache;

TEST_CASE("percent-encoding takes every byte and comes back") {
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  CHECK(percent_decode(percent_encode(all)) == all);
  CHECK(percent_decode(percent_encode_path(all)) == all);
  CHECK(percent_encode("a b/ü~=+") == "a%20b%2F%C3%BC~%3D%2B");
  CHECK(percent_encode_path("a b/c") == "a%20b/c");
  CHECK(percent_decode("a+b%2B", {.plus_is_space = true}) == "a b+");
  CHECK(percent_decode("a+b") == "a+b");
  for (const char* bad : {"%", "%4", "%4g", "a%"}) CHECK(!percent_decode(bad));
}

TEST_CASE("content ranges") {
  const auto range = parse_content_range("bytes 10-19/100");
  REQUIRE(range);
  CHECK(range->first == 10);
  CHECK(range->last == 19);
  CHECK(range->total == 100);
  CHECK(parse_content_range("bytes 0-0/*")->total == std::nullopt);
  for (const char* bad : {"", "bytes", "bytes */5", "bytes 5-4/10", "bytes 0-10/10", "bytes -1-2/5", "items 0-1/5",
                          "bytes 0-1", "bytes 0-18446744073709551616/5", "bytes 0-1/5x"}) {
    CAPTURE(bad);
    CHECK(!parse_content_range(bad));
  }
}

TEST_CASE("dates and delays") {
  CHECK(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT") == 784111777);
  CHECK(parse_iso_date("2009-10-12T17:50:30.000Z") == 1255369830);
  CHECK(parse_iso_date("2009-10-12T09:50:30-08:00") == 1255369830);
  CHECK(parse_iso_date("2009-10-12T19:20:30.5+0130") == 1255369830);
  CHECK(!parse_iso_date("2009-10-12T19:20:30+1"));
  CHECK(!parse_http_date("yesterday"));
  CHECK(parse_retry_after_ns("2", 0) == 2'000'000'000u);
  CHECK(parse_retry_after_ns("Sun, 06 Nov 1994 08:49:40 GMT", 784111777) == 3'000'000'000u);
  CHECK(parse_retry_after_ns("Sun, 06 Nov 1994 08:49:30 GMT", 784111777) == 0u);
  CHECK(parse_retry_after_ns("99999999999", 0) == 3'600'000'000'000u);
  CHECK(!parse_retry_after_ns("soon", 0));
}
