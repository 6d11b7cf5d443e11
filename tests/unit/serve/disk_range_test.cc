#include "serve/disk_range.h"

#include <doctest/doctest.h>

#include "cache/disk_file.h"
#include "cache/disk_format.h"
#include "serve/backing_files.h"

namespace blobcache::serve {
namespace {

constexpr uint64_t block = limits::block_bytes;
constexpr uint64_t chunk = disk_format::index_chunk_bytes;
constexpr uint32_t page = limits::page_bytes;

}  // namespace

TEST_CASE("index_spans: a range touches the blocks of one chunk or of two, or is not for a single read") {
  SUBCASE("one byte") {
    const IndexSpans spans = index_spans({.offset = 3 * chunk + 5 * block + 7, .bytes = 1});
    REQUIRE(spans.count == 1);
    CHECK(spans.spans[0].position == 3);
    CHECK(spans.spans[0].blocks == uint64_t{1} << 5);
  }
  SUBCASE("a whole chunk") {
    const IndexSpans spans = index_spans({.offset = chunk, .bytes = static_cast<uint32_t>(chunk)});
    REQUIRE(spans.count == 1);
    CHECK(spans.spans[0].position == 1);
    CHECK(spans.spans[0].blocks == ~uint64_t{0});
  }
  SUBCASE("the last byte of one chunk and the first of the next") {
    const IndexSpans spans = index_spans({.offset = chunk - 1, .bytes = 2});
    REQUIRE(spans.count == 2);
    CHECK(spans.spans[0].position == 0);
    CHECK(spans.spans[0].blocks == uint64_t{1} << 63);
    CHECK(spans.spans[1].position == 1);
    CHECK(spans.spans[1].blocks == 1);
  }
  SUBCASE("three chunks") {
    CHECK(index_spans({.offset = chunk - 1, .bytes = static_cast<uint32_t>(chunk) + 2}).count == 0);
  }
}

TEST_CASE("direct_read: whole units of the alignment, short only at the end of an own file") {
  const DiskPlace own{.disk = 0, .packed = false, .segment = 0, .page = 0};
  const DiskPlace packed{.disk = 0, .packed = true, .segment = 2, .page = 10};
  const uint64_t size = 3 * uint64_t{page} + 100;
  SUBCASE("inside an own file") {
    const DirectRead direct = direct_read(own, size, {.offset = page, .bytes = 2 * page}, page);
    CHECK(direct.at.offset == page);
    CHECK(direct.at.bytes == 2 * page);
    CHECK(direct.full);
  }
  SUBCASE("an odd length in the middle is rounded up and still all there") {
    const DirectRead direct = direct_read(own, size, {.offset = 0, .bytes = 700}, 512);
    CHECK(direct.at.bytes == 1024);
    CHECK(direct.full);
  }
  SUBCASE("the end of an own file reads short") {
    const DirectRead direct = direct_read(own, size, {.offset = 2 * page, .bytes = page + 100}, page);
    CHECK(direct.at.bytes == 2 * page);
    CHECK_FALSE(direct.full);
  }
  SUBCASE("the end of a packed object is padded") {
    const DirectRead direct = direct_read(packed, size, {.offset = 2 * page, .bytes = page + 100}, page);
    CHECK(direct.at.offset == 13 * uint64_t{page});
    CHECK(direct.at.bytes == 2 * page);
    CHECK(direct.full);
  }
}

TEST_CASE("BackingFiles: what was put under an id is what is taken from it") {
  BackingFiles files;
  DiskFile a;
  DiskFile b;
  files.put(1, a);
  files.put(1'000'000, b);
  CHECK(&files.take(1'000'000) == &b);
  CHECK(&files.take(1) == &a);
  files.put(1, b);
  CHECK(&files.take(1) == &b);
}

}  // namespace blobcache::serve
