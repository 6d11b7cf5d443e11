#include "cache/disk_check.h"

#include <algorithm>
#include <vector>

#include <doctest/doctest.h>

#include "cache/disk_format.h"

namespace blobcache {
namespace {

constexpr uint64_t block = limits::block_bytes;
constexpr uint64_t chunk = disk_format::index_chunk_bytes;
constexpr uint64_t page = limits::page_bytes;

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

TEST_CASE("checksum_place: the header page of a packed object, the page of seven chunks of a sidecar") {
  DiskFile file;
  file.fd = 5;
  file.sums_fd = 6;
  const ChecksumPlace sidecar = checksum_place(file, {}, 15);
  CHECK(sidecar.fd == 6);
  CHECK(sidecar.offset == 2 * page);
  file.packed = true;
  const ChecksumPlace header = checksum_place(file, {.disk = 0, .packed = true, .segment = 1, .page = 9}, 0);
  CHECK(header.fd == 5);
  CHECK(header.offset == 9 * page);
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
                   .page = raw(sidecar),
                   .blocks = 7,
                   .bytes = bytes.data(),
                   .bytes_read = bytes.size()};
  CHECK(check_blocks(check).page_good);
  CHECK(check_blocks(check).matching == 7);

  SUBCASE("a flipped bit takes out its own block only") {
    bytes[block + 5] ^= std::byte{1};
    CHECK(check_blocks(check).matching == 5);
  }
  SUBCASE("the last block ends where the object does") {
    bytes.resize(bytes.size() + 1);
    check.bytes = bytes.data();
    check.bytes_read = bytes.size();
    check.object_bytes = size + 1;
    CHECK(check_blocks(check).matching == 3);
  }
  SUBCASE("a run that does not begin at the chunk's first block") {
    check.blocks = 6;
    check.bytes = bytes.data() + block;
    CHECK(check_blocks(check).matching == 6);
  }
  SUBCASE("what was not read whole does not match, whatever lies behind it") {
    check.bytes_read = 2 * block + 99;
    CHECK(check_blocks(check).matching == 3);
    check.bytes_read = block;
    CHECK(check_blocks(check).matching == 1);
    check.bytes_read = 0;
    CHECK(check_blocks(check).page_good);
    CHECK(check_blocks(check).matching == 0);
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
                   .page = raw(header),
                   .blocks = 3,
                   .bytes = bytes.data() + chunk,
                   .bytes_read = size - chunk};
  CHECK(check_blocks(check).matching == 3);
  check.position = 0;
  check.blocks = ~uint64_t{0};
  check.bytes = bytes.data();
  check.bytes_read = chunk;
  CHECK(check_blocks(check).matching == ~uint64_t{0});
  check.place.page = 21;
  CHECK_FALSE(check_blocks(check).page_good);
}

}  // namespace blobcache
