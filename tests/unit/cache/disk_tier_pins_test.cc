// Pins: what stays whatever else is read, how much of it there may be, and what a pin does not keep.
#include "unit/cache/disk_tier_fixture.h"

namespace blobcache::test {

namespace {

constexpr uint64_t MiB = limits::MiB;

Result<void> pin(TierRig& rig, uint64_t number, uint64_t size) {
  DiskTier::PinFacts facts;
  return rig.tier->pin_and_wait(id_of(number), size, &facts);
}

// Other objects, three times what the disk holds.
void read_through(TierRig& rig, uint64_t first_number) {
  const uint64_t count = 3 * rig.options.cache.disks[0].size.bytes / (4 * MiB);
  for (uint64_t i = 0; i < count; ++i) rig.until([&] { return rig.write_object(first_number + i, 4 * MiB); });
}

bool is_whole(TierRig& rig, uint64_t number, uint64_t size) {
  for (uint64_t position = 0; position < disk_format::index_chunks_of(size); ++position) {
    if (rig.view(number, position).valid != disk_format::blocks_mask(size, position)) return false;
  }
  return true;
}

bool has_file(TierRig& rig, const std::string& name) { return std::filesystem::exists(rig.folder / "cache/" + name); }

}  // namespace

TEST_CASE("a pinned object stays whatever is read, over a restart too, and leaves like any other once it is unpinned") {
  TierRig rig;
  rig.options.cache.disks[0].size = {.bytes = 64 * MiB};
  rig.open();
  constexpr uint64_t size = 21 * MiB + 5;
  REQUIRE(rig.write_object(1, size));
  REQUIRE(rig.write_object(2, 8 * MiB));
  REQUIRE(pin(rig, 1, size));
  CHECK(rig.tier->stats(0).pinned_bytes == 21 * MiB + 4096);
  CHECK(rig.tier->facts(id_of(1), size).pinned);
  CHECK(!rig.tier->facts(id_of(2), 8 * MiB).pinned);
  read_through(rig, 100);
  CHECK(is_whole(rig, 1, size));
  CHECK(!is_whole(rig, 2, 8 * MiB));
  CHECK(rig.tier->remove_and_wait(id_of(1)).error().code == Code::again);
  rig.close();
  rig.open();
  CHECK(rig.view(1).pinned);
  CHECK(rig.tier->stats(0).pinned_bytes == 21 * MiB + 4096);
  read_through(rig, 200);
  CHECK(is_whole(rig, 1, size));
  CHECK(rig.tier->stats(0).used_bytes <= 64 * MiB);
  DiskFile* file = rig.open_file(1);
  REQUIRE(file != nullptr);
  rig.tier->release(*file);
  rig.until([&] { return rig.view(1).whole_verified; });
  // Once more is the same as once.
  DiskTier::PinFacts facts;
  REQUIRE(rig.tier->pin_and_wait(id_of(1), size, &facts));
  CHECK(facts.was_pinned);
  CHECK(rig.tier->unpin_and_wait(id_of(1)).value_or(99) == 1);
  CHECK(rig.tier->unpin_and_wait(id_of(1)).value_or(99) == 0);
  CHECK(rig.tier->stats(0).pinned_bytes == 0);
  read_through(rig, 300);
  CHECK(!is_whole(rig, 1, size));
  rig.close();
  rig.open();
  CHECK(!rig.view(1).pinned);
}

TEST_CASE("a pin that cannot be taken off for good is told of, each time, until the disk takes writes again") {
  TierRig rig;
  rig.open();
  REQUIRE(rig.write_object(1, 8 * MiB));
  REQUIRE(pin(rig, 1, 8 * MiB));
  {
    const FileSizeLimit limit(0);  // no file takes a byte
    CHECK(!rig.tier->unpin_and_wait(id_of(1)));
    CHECK(!rig.view(1).pinned);
    CHECK(!rig.tier->unpin_and_wait(id_of(1)));
    CHECK(!rig.tier->unpin_and_wait({}));
    rig.close();
  }
  rig.open();
  CHECK(rig.view(1).pinned);
  {
    const FileSizeLimit limit(0);
    CHECK(!rig.tier->unpin_and_wait({}));
  }
  rig.until([&] { return rig.tier->unpin_and_wait(id_of(1)).has_value(); });
  rig.close();
  rig.open();
  CHECK(!rig.view(1).pinned);
}

TEST_CASE("what is pinned stays when everything else had to leave, and the disk is still too full") {
  TierRig rig;
  rig.options.cache.disks[0].size = {.bytes = 64 * MiB};
  rig.open();
  REQUIRE(rig.write_object(1, 8 * MiB));
  for (uint64_t number = 2; number < 8; ++number) REQUIRE(rig.write_object(number, 4 * MiB));
  REQUIRE(pin(rig, 1, 8 * MiB));
  CacheConfig changed = rig.options.cache;
  changed.disks[0].high_watermark = 1e-9;  // whatever the filesystem holds, this is less
  changed.disks[0].low_watermark = 0;
  rig.tier->change(changed, {});
  rig.until([&] { return rig.tier->stats(0).used_bytes == 8 * MiB; });
  CHECK(is_whole(rig, 1, 8 * MiB));
  CHECK(!rig.write_object(9, 4 * MiB));
  CHECK(rig.tier->unpin_and_wait(id_of(1)).value_or(99) == 1);
  rig.until([&] { return rig.tier->stats(0).used_bytes == 0; });
}

TEST_CASE("what is pinned first and written then is not pushed out by what comes between") {
  TierRig rig;
  rig.options.cache.disks[0].size = {.bytes = 64 * MiB};
  rig.open();
  constexpr uint64_t size = 32 * MiB;
  REQUIRE(pin(rig, 1, size));
  CHECK(rig.view(1).pinned);
  CHECK(rig.tier->stats(0).pinned_bytes == size);
  for (uint64_t position = 0; position < 8; ++position) {
    DiskFile* file = rig.open_file(1);
    REQUIRE(file != nullptr);
    rig.until([&] { return rig.write(*file, 1, position, ~uint64_t{0}); });
    rig.tier->release(*file);
    for (uint64_t i = 0; i < 10; ++i) rig.until([&] { return rig.write_object(100 + position * 10 + i, 4 * MiB); });
  }
  CHECK(is_whole(rig, 1, size));
  // A second start counts it once, too.
  rig.close();
  rig.open();
  CHECK(rig.tier->stats(0).pinned_bytes == size);
}

TEST_CASE("what is pinned does not leave by its age") {
  TierRig rig;
  rig.open();
  REQUIRE(rig.write_object(1, 4 * MiB));
  REQUIRE(rig.write_object(2, 4 * MiB));
  Packed packed{.file = new_segment(rig)};
  pack(packed, 3, 1000);
  REQUIRE(tell(rig, packed));
  end(rig, packed);
  REQUIRE(pin(rig, 1, 4 * MiB));
  REQUIRE(pin(rig, 3, 1000));
  CacheConfig changed = rig.options.cache;
  changed.object_ttl_ns = 1;
  rig.tier->change(changed, {});
  rig.until([&] { return !rig.known(2); });
  CHECK(rig.known(1));
  CHECK(rig.known(3));
  CHECK(rig.tier->unpin_and_wait({}).value_or(99) == 2);
  changed.object_ttl_ns = 2;  // a new sweep, now
  rig.tier->change(changed, {});
  rig.until([&] { return !rig.known(1) && !rig.known(3); });
}

TEST_CASE("more than four fifths of the low watermark is not pinned") {
  TierRig rig;
  rig.options.cache.disks[0].size = {.bytes = 64 * MiB};
  rig.options.cache.disks[0].low_watermark = 0.99;  // so it is four fifths of the limit
  rig.open();
  const uint64_t most = rig.tier->stats(0).pinned_bytes_max;
  CHECK(most > 51 * MiB);
  CHECK(most < 52 * MiB);
  REQUIRE(pin(rig, 1, 44 * MiB));
  DiskTier::PinFacts facts;
  CHECK(rig.tier->pin_and_wait(id_of(2), 8 * MiB, &facts).error().code == Code::full);
  CHECK(facts.pinned_bytes == 44 * MiB);
  CHECK(facts.wanted_bytes == 8 * MiB);
  CHECK(facts.pinned_bytes_max == most);
  CHECK(!rig.known(2));
  // Small ones that have not come yet count, too.
  REQUIRE(pin(rig, 3, 3 * MiB));
  REQUIRE(pin(rig, 4, 3 * MiB));
  CHECK(pin(rig, 5, 3 * MiB).error().code == Code::full);
  CHECK(rig.tier->unpin_and_wait(id_of(3)).value_or(99) == 1);
  CHECK(pin(rig, 5, 3 * MiB));
  // The rest of the disk is still a cache.
  read_through(rig, 100);
  CHECK(rig.tier->stats(0).evicted_bytes >= 128 * MiB);
  // Of another size than what is known by the name, or of none.
  CHECK(pin(rig, 1, 44 * MiB - 1).error().code == Code::invalid);
  CHECK(pin(rig, 6, 0).error().code == Code::invalid);
  CHECK(pin(rig, 6, ~uint64_t{0}).error().code == Code::invalid);
  CHECK(rig.tier->unpin_and_wait({}).value_or(99) == 3);
  CHECK(rig.tier->stats(0).pinned_bytes == 0);
}

TEST_CASE("a segment stays while something pinned lies in it, and counts with all its bytes") {
  TierRig rig;
  rig.options.cache.disks[0].size = {.bytes = 64 * MiB};
  rig.open();
  const std::string path = disk_format::segment_path(1);
  Packed packed{.file = new_segment(rig)};
  pack(packed, 1, 3 * MiB);
  pack(packed, 2, 2000);
  REQUIRE(tell(rig, packed));
  REQUIRE(pin(rig, 1, 3 * MiB));
  const uint64_t bytes = uint64_t{packed.page} * 4096;
  CHECK(rig.tier->stats(0).pinned_bytes == bytes);
  REQUIRE(pin(rig, 2, 2000));
  CHECK(rig.tier->stats(0).pinned_bytes == bytes);
  // Awaited: pinned by the job that tells of it. The segment grows meanwhile.
  REQUIRE(pin(rig, 3, 5000));
  CHECK(!rig.known(3));
  pack(packed, 3, 5000);
  pack(packed, 4, 5000);
  REQUIRE(tell(rig, packed));
  CHECK(rig.view(3).pinned);
  CHECK(!rig.view(4).pinned);
  const uint64_t grown = uint64_t{packed.page} * 4096;
  CHECK(rig.tier->stats(0).pinned_bytes == grown);
  end(rig, packed);
  rig.close();
  rig.open();
  CHECK(rig.tier->stats(0).pinned_bytes == grown);
  read_through(rig, 100);
  for (uint64_t number = 1; number <= 4; ++number) CHECK(rig.known(number));
  CHECK(rig.tier->unpin_and_wait(id_of(1)).value_or(99) == 1);
  CHECK(rig.tier->unpin_and_wait(id_of(2)).value_or(99) == 1);
  read_through(rig, 200);
  CHECK(has_file(rig, path));
  CHECK(rig.tier->unpin_and_wait(id_of(3)).value_or(99) == 1);
  CHECK(rig.tier->stats(0).pinned_bytes == 0);
  read_through(rig, 300);
  CHECK(!has_file(rig, path));
  CHECK(!rig.known(1));
}

TEST_CASE("what is damaged leaves although it is pinned, and is pinned again when it comes back") {
  TierRig rig;
  rig.open();
  SUBCASE("a block: the others stay, with the pin") {
    REQUIRE(pin(rig, 1, 9 * MiB));
    REQUIRE(rig.write_object(1, 9 * MiB, 1));
    rig.until([&] { return rig.tier->stats(0).corrupt_blocks == 1 && (rig.view(1).valid & 1) == 0; });
    CHECK(rig.view(1).pinned);
    DiskFile* file = rig.open_file(1);
    REQUIRE(file != nullptr);
    REQUIRE(rig.write(*file, 1, 0, 1));
    rig.tier->release(*file);
    rig.until([&] { return rig.view(1).whole_verified; });
    CHECK(rig.view(1).pinned);
  }
  SUBCASE("a packed object") {
    Packed packed{.file = new_segment(rig)};
    pack(packed, 1, 1000);
    REQUIRE(tell(rig, packed));
    REQUIRE(pin(rig, 1, 1000));
    AskedJob<DiskDropJob> drop;
    drop.id = id_of(1);
    drop.blocks = 1;
    REQUIRE(rig.run(drop));
    CHECK(!rig.known(1));
    CHECK(rig.tier->stats(0).pinned_bytes == 0);
    pack(packed, 1, 1000);
    REQUIRE(tell(rig, packed));
    CHECK(rig.view(1).pinned);
    CHECK(rig.tier->stats(0).pinned_bytes == uint64_t{packed.page} * 4096);
    end(rig, packed);
  }
  SUBCASE("a file, a segment: somebody removed them") {
    Packed packed{.file = new_segment(rig)};
    pack(packed, 1, 1000);
    REQUIRE(tell(rig, packed));
    end(rig, packed);
    REQUIRE(rig.write_object(2, 5 * MiB));
    REQUIRE(pin(rig, 1, 1000));
    REQUIRE(pin(rig, 2, 5 * MiB));
    rig.close();
    std::filesystem::remove(rig.folder / "cache/" + disk_format::segment_path(1));
    std::filesystem::remove(rig.path_of(2));
    rig.open();
    CHECK(rig.tier->stats(0).pinned_bytes > 5 * MiB);
    CHECK(rig.open_file(1) == nullptr);
    CHECK(rig.open_file(2) == nullptr);
    CHECK(!rig.known(1));
    CHECK(!rig.known(2));
    CHECK(rig.tier->stats(0).pinned_bytes == 0);
    CHECK(rig.tier->stats(0).used_bytes == 0);
    REQUIRE(rig.write_object(2, 5 * MiB));
    CHECK(rig.view(2).pinned);
    CHECK(rig.tier->unpin_and_wait(id_of(1)).value_or(99) == 1);
    Packed again{.file = new_segment(rig)};
    pack(again, 1, 1000);
    REQUIRE(tell(rig, again));
    CHECK(!rig.view(1).pinned);
    end(rig, again);
  }
}

}  // namespace blobcache::test
