#include "serve/disk_range.h"

#include <cstring>
#include <vector>

#include <doctest/doctest.h>

#include "cache/disk_format.h"
#include "serve/backing_files.h"

namespace blobcache::serve {
namespace {

constexpr uint64_t block = limits::block_bytes;
constexpr uint64_t chunk = disk_format::index_chunk_bytes;
constexpr uint32_t page = limits::page_bytes;

ObjectId id_of(std::string_view name) { return object_id("volume", name, "version"); }

// Bytes that differ from block to block.
std::vector<std::byte> bytes_of(uint64_t size) {
  std::vector<std::byte> bytes(size);
  for (uint64_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i / block * 31 + i % 251);
  return bytes;
}

template <class Page>
const std::byte* raw(const Page& structure) {
  return reinterpret_cast<const std::byte*>(&structure);
}

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

TEST_CASE("leads_to: a view belongs to the file of its own place only") {
  DiskFile file;
  file.id = id_of("a");
  file.disk = 1;
  DiskView view;
  view.place = {.disk = 1, .packed = false, .segment = 0, .page = 0};
  CHECK(leads_to(view, id_of("a"), file));
  CHECK_FALSE(leads_to(view, id_of("b"), file));
  view.place.disk = 0;
  CHECK_FALSE(leads_to(view, id_of("a"), file));
  view.place = {.disk = 1, .packed = true, .segment = 7, .page = 3};
  CHECK_FALSE(leads_to(view, id_of("a"), file));

  DiskFile segment;
  segment.disk = 1;
  segment.packed = true;
  segment.segment = 7;
  CHECK(leads_to(view, id_of("a"), segment));
  segment.segment = 8;
  CHECK_FALSE(leads_to(view, id_of("a"), segment));
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

TEST_CASE("checksum_place: the header page of a packed object, the page of seven chunks of a sidecar") {
  DiskFile file;
  file.fd = 5;
  file.sums_fd = 6;
  const ChecksumPlace sidecar = checksum_place(file, {}, 15);
  CHECK(sidecar.fd == 6);
  CHECK(sidecar.offset == 2 * uint64_t{page});
  file.packed = true;
  const ChecksumPlace header = checksum_place(file, {.disk = 0, .packed = true, .segment = 1, .page = 9}, 0);
  CHECK(header.fd == 5);
  CHECK(header.offset == 9 * uint64_t{page});
}

TEST_CASE("check_blocks: an own file's blocks against its sidecar") {
  const uint64_t size = 9 * chunk + 2 * block + 100;  // position 9: the third chunk of the second page
  const uint64_t position = 9;
  std::vector<std::byte> bytes = bytes_of(2 * block + 100);
  const ObjectId id = id_of("a");
  disk_format::SidecarPage sidecar;
  uint64_t* sums = sidecar.block_checksums + 2 * limits::blocks_per_chunk_frame;
  sums[0] = disk_format::block_checksum({bytes.data(), block});
  sums[1] = disk_format::block_checksum({bytes.data() + block, block});
  sums[2] = disk_format::block_checksum({bytes.data() + 2 * block, 100});
  disk_format::seal(sidecar, id, 1);
  BlockCheck check{.id = id,
                   .object_bytes = size,
                   .place = {},
                   .position = position,
                   .blocks = 7,
                   .page = raw(sidecar),
                   .bytes = bytes.data()};
  CHECK(check_blocks(check).page_good);
  CHECK(check_blocks(check).matching == 7);

  SUBCASE("a flipped bit takes out its own block only") {
    bytes[block + 5] ^= std::byte{1};
    CHECK(check_blocks(check).matching == 5);
  }
  SUBCASE("the last block ends where the object does") {
    bytes.resize(bytes.size() + 1);
    check.bytes = bytes.data();
    check.object_bytes = size + 1;
    CHECK(check_blocks(check).matching == 3);
  }
  SUBCASE("a run that does not begin at the chunk's first block") {
    check.blocks = 6;
    check.bytes = bytes.data() + block;
    CHECK(check_blocks(check).matching == 6);
  }
  SUBCASE("bytes at another block's place are wrong") {
    check.blocks = 2;
    check.bytes = bytes.data();
    CHECK(check_blocks(check).matching == 0);
  }
  SUBCASE("another object's sidecar, another page, or a damaged one says nothing") {
    check.id = id_of("b");
    CHECK_FALSE(check_blocks(check).page_good);
    CHECK(check_blocks(check).matching == 0);
    check.id = id;
    check.position = 2;
    CHECK_FALSE(check_blocks(check).page_good);
    check.position = position;
    sidecar.block_checksums[447] ^= 1;
    CHECK_FALSE(check_blocks(check).page_good);
    CHECK(check_blocks(check).matching == 0);
  }
}

TEST_CASE("check_blocks: a packed object's blocks against its header, in chunks beyond the first too") {
  const uint64_t size = chunk + block + 9;
  const std::vector<std::byte> bytes = bytes_of(size);
  const ObjectId id = id_of("small");
  disk_format::PackedHeader header;
  header.id[0] = id.words[0];
  header.id[1] = id.words[1];
  header.size = size;
  header.block_count = static_cast<uint32_t>((size + block - 1) / block);
  for (uint64_t i = 0; i < header.block_count; ++i) {
    header.block_checksums[i] =
        disk_format::block_checksum({bytes.data() + i * block, std::min<uint64_t>(block, size - i * block)});
  }
  disk_format::seal(header, disk_format::packed_place(4, 20));
  BlockCheck check{.id = id,
                   .object_bytes = size,
                   .place = {.disk = 0, .packed = true, .segment = 4, .page = 20},
                   .position = 1,
                   .blocks = 3,
                   .page = raw(header),
                   .bytes = bytes.data() + chunk};
  CHECK(check_blocks(check).matching == 3);
  check.position = 0;
  check.blocks = ~uint64_t{0};
  check.bytes = bytes.data();
  CHECK(check_blocks(check).matching == ~uint64_t{0});
  check.place.page = 21;
  CHECK_FALSE(check_blocks(check).page_good);
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
