#include <doctest/doctest.h>

#include "node/http_content.h"

using namespace blobcache::node;

namespace {

struct Expected {
  std::string_view field;
  HttpRange::Kind kind;
  uint64_t begin;
  uint64_t end;
};

}  // namespace

TEST_CASE("ranges of a blob of 1000 bytes, as RFC 9110 has them") {
  using enum HttpRange::Kind;
  for (const Expected& expected : {
           Expected{"bytes=0-0", part, 0, 1},
           {"bytes=0-999", part, 0, 1000},
           {"bytes=10-5000", part, 10, 1000},
           {"bytes=999-", part, 999, 1000},
           {"bytes=-1", part, 999, 1000},
           {"bytes=-5000", part, 0, 1000},
           {"bytes=1000-", none, 0, 0},
           {"bytes=1000-2000", none, 0, 0},
           {"bytes=-0", none, 0, 0},
           // What is no single range is as if it were not there.
           {"", whole, 0, 1000},
           {"bytes=", whole, 0, 1000},
           {"bytes=-", whole, 0, 1000},
           {"bytes=5-4", whole, 0, 1000},
           {"bytes=0-1,5-6", whole, 0, 1000},
           {"bytes=a-b", whole, 0, 1000},
           {"bytes=--5", whole, 0, 1000},
           {"bytes=0-99999999999999999999999", whole, 0, 1000},
           {"lines=0-1", whole, 0, 1000},
       }) {
    CAPTURE(expected.field);
    const HttpRange range = parse_range(expected.field, 1000);
    CHECK(range.kind == expected.kind);
    if (expected.kind == none) continue;
    CHECK(range.begin == expected.begin);
    CHECK(range.end == expected.end);
  }
  CHECK(parse_range("bytes=0-0", 0).kind == none);
  CHECK(parse_range("bytes=-1", 0).kind == none);
  CHECK(parse_range("", 0).kind == whole);
}

TEST_CASE("paths of the content store") {
  CHECK(ContentRoutes::takes("/v1/blobs"));
  CHECK(ContentRoutes::takes("/v1/blobs/abc"));
  CHECK(!ContentRoutes::takes("/v1/blobsy"));
  CHECK(!ContentRoutes::takes("/v1/status"));
}
