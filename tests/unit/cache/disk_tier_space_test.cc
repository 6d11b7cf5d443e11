// Room on the disk: limits, eviction, budgets, age, packed objects.
#include "unit/cache/disk_tier_fixture.h"

namespace blobcache::test {

namespace {

constexpr uint64_t MiB = limits::MiB;

uint64_t bytes_in(const std::string& folder) {
  uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    struct stat status;
    if (entry.is_regular_file() && stat(entry.path().c_str(), &status) == 0)
      bytes += static_cast<uint64_t>(status.st_blocks) * 512;
  }
  return bytes;
}

disk_format::Uuid disk_of(TierRig& rig) {
  const Result<disk_format::FormatFile> format = disk_format::parse_format(read_file(rig.folder / "cache/FORMAT"));
  REQUIRE(format);
  return format->disk;
}

// As it lies there; zeros: there is none that holds.
disk_format::BudgetFile budget_file(TierRig& rig, const disk_format::Uuid& disk) {
  const std::string bytes = read_file(rig.folder / "cache/index/budget");
  disk_format::BudgetFile file;
  if (bytes.size() == sizeof file) std::memcpy(&file, bytes.data(), sizeof file);
  return bytes.size() == sizeof file && disk_format::check(file, disk) ? file : disk_format::BudgetFile{};
}

}  // namespace

TEST_CASE("what is used stays below the limit, on the disk too, while more is written than fits") {
  TierRig rig;
  rig.options.cache.disks[0].size = {.bytes = 64 * MiB};
  rig.open();
  for (uint64_t number = 0; number < 48; ++number) {
    rig.until([&] { return rig.write_object(number, 4 * MiB); });
    CHECK(rig.tier->stats(0).used_bytes <= 64 * MiB);
  }
  CHECK(rig.tier->stats(0).evicted_bytes >= 128 * MiB);
  uint64_t kept = 0;
  for (uint64_t number = 0; number < 48; ++number) kept += rig.known(number) && rig.view(number).valid != 0;
  CHECK(kept >= 12);
  CHECK(kept <= 16);
  // 4 KiB of checksums an object, and the index.
  CHECK(bytes_in(rig.folder / "cache/objects") <= 64 * MiB + 48 * 8192);
  // What left entirely is not known any more, and has no file.
  rig.until([&] { return rig.tier->stats(0).objects <= kept + 1; });
  CHECK(rig.tier->stats(0).state == DiskState::ok);
}

TEST_CASE("part of a large object leaves by punching, and the rest is still right") {
  TierRig rig;
  rig.options.cache.disks[0].size = {.bytes = 48 * MiB};
  rig.open();
  rig.until([&] { return rig.write_object(1, 32 * MiB); });
  for (uint64_t number = 2; number < 8; ++number) rig.until([&] { return rig.write_object(number, 4 * MiB); });
  uint64_t chunks = 0;
  DiskFile* file = rig.open_file(1);
  REQUIRE(file != nullptr);
  for (uint64_t position = 0; position < 8; ++position) {
    if (rig.view(1, position).valid == 0) continue;
    ++chunks;
    CHECK(rig.has_bytes(*file, 1, position * 4 * MiB, 4 * MiB));
  }
  CHECK(chunks < 8);
  CHECK(chunks > 0);
  struct stat status;
  // Punched a moment after they left the index.
  rig.until([&] {
    REQUIRE(fstat(file->fd, &status) == 0);
    return static_cast<uint64_t>(status.st_blocks) * 512 <= chunks * 4 * MiB;
  });
  CHECK(status.st_size == 32 * MiB);
  CHECK(!rig.view(1).whole_verified);
  rig.tier->release(*file);
}

TEST_CASE("of what a disk gives the cache, the quota and what is kept for the content store are limits, too") {
  TierRig rig;
  rig.options.cache.disks[0].size = {.bytes = 64 * MiB};
  const auto limit = [&rig] {
    rig.open();
    const uint64_t bytes = rig.tier->stats(0).limit_bytes;
    rig.close();
    return bytes;
  };
  CHECK(limit() == 64 * MiB);
  rig.options.cache.blobs_reserved = {.bytes = 16 * MiB};
  CHECK(limit() == 48 * MiB);
  rig.options.quota = {.bytes = 56 * MiB};
  CHECK(limit() == 48 * MiB);
  rig.options.quota = {.bytes = 32 * MiB};
  CHECK(limit() == 32 * MiB);
  // Divided among disks.
  rig.options.cache.disks.push_back(rig.options.cache.disks[0]);
  rig.options.cache.disks[1].path = rig.folder / "cache2";
  CHECK(limit() == 16 * MiB);
  rig.options.quota = {};
  CHECK(limit() == 56 * MiB);
  rig.options.cache.blobs_reserved = {.bytes = 1024 * MiB};
  CHECK(limit() == 0);
}

TEST_CASE("a write that cannot fit is refused and counted, and its reservation given back") {
  TierRig rig;
  rig.options.cache.disks[0].size = {.bytes = 16 * MiB};
  rig.open();
  CHECK(!rig.tier->begin_write(0, 17 * MiB));
  CHECK(rig.tier->stats(0).writes_shed == 17 * 16);
  CHECK(rig.tier->begin_write(0, 16 * MiB));
  CHECK(!rig.tier->begin_write(0, 4096));
  rig.tier->abandon_write(0, 16 * MiB, 0);
  CHECK(rig.tier->begin_write(0, 16 * MiB));
  rig.tier->abandon_write(0, 16 * MiB, 0);
}

TEST_CASE("a full filesystem stops writes for a moment, a failing one until probes are good") {
  TierRig rig;
  rig.open();
  REQUIRE(rig.tier->begin_write(0, 4096));
  rig.tier->abandon_write(0, 4096, ENOSPC);
  CHECK(rig.tier->stats(0).state == DiskState::degraded);
  CHECK(rig.tier->disk_for(id_of(1)) == -1);
  CHECK(!rig.tier->begin_write(0, 4096));
  rig.until([&] { return rig.tier->stats(0).state == DiskState::ok; });
  CHECK(rig.tier->disk_for(id_of(1)) == 0);
  REQUIRE(rig.write_object(1, 5 * MiB));
  REQUIRE(rig.tier->begin_write(0, 4096));
  rig.tier->abandon_write(0, 4096, EIO);
  CHECK(rig.tier->stats(0).state == DiskState::degraded);
  CHECK(!rig.tier->stats(0).why.empty());
  CHECK(rig.known(1));  // still read
  rig.until([&] { return rig.tier->stats(0).state == DiskState::ok; });
  CHECK(rig.tier->stats(0).write_errors == 2);
}

TEST_CASE("a disk whose reads fail is not found until it is well again") {
  TierRig rig;
  rig.open();
  REQUIRE(rig.write_object(1, 5 * MiB));
  for (int i = 0; i < 3; ++i) rig.tier->on_read_error(0, EIO);
  CHECK(rig.tier->stats(0).state == DiskState::down);
  CHECK(!rig.known(1));
  CHECK(rig.open_file(1) == nullptr);
  rig.until([&] { return rig.known(1); });
  CHECK(rig.tier->stats(0).state == DiskState::ok);
}

TEST_CASE("after a second without the end of a read the disk gets no new ones; each end begins the second anew") {
  TierRig rig;
  rig.open();
  REQUIRE(rig.write_object(1, 5 * MiB));
  rig.until([&] { return rig.view(1).whole_verified; });
  constexpr uint64_t ms = 1'000'000;
  const uint64_t begin_ns = rig.reactor->now_ns();
  const unsigned first = rig.tier->reads().enter(0, 0);
  const unsigned second = rig.tier->reads().enter(1, 0);
  rig.tier->watch(begin_ns);
  rig.tier->watch(begin_ns + 950 * ms);
  CHECK(rig.known(1));
  rig.tier->reads().leave(1, 0, second);
  rig.tier->watch(begin_ns + 1050 * ms);
  CHECK(rig.known(1));
  rig.tier->watch(begin_ns + 2100 * ms);
  CHECK(rig.tier->stats(0).state == DiskState::down);
  CHECK(!rig.known(1));
  CHECK(rig.tier->disk_for(id_of(2)) == -1);
  rig.tier->reads().leave(0, 0, first);
  rig.until([&] { return rig.known(1); });
}

TEST_CASE("a read that never ends takes the disk down, until it ends") {
  TierRig rig;
  rig.open();
  REQUIRE(rig.write_object(1, 5 * MiB));
  const unsigned phase = rig.tier->reads().enter(0, 0);
  rig.until([&] { return rig.tier->stats(0).state == DiskState::down; });
  CHECK(!rig.known(1));
  rig.tier->reads().leave(0, 0, phase);
  rig.until([&] { return rig.known(1); });
}

TEST_CASE("what was read again before a restart stays in a full cache after it") {
  TierRig rig;
  rig.options.cache.disks[0].size = {.bytes = 64 * MiB};
  rig.open();
  Packed packed{.file = new_segment(rig)};
  pack(packed, 100, 3 * MiB);
  REQUIRE(tell(rig, packed));
  end(rig, packed);
  // Of two chunks each; of the even ones the second chunk is read again, of the odd ones nothing.
  for (uint64_t number = 0; number < 4; ++number) REQUIRE(rig.write_object(number, 8 * MiB));
  const auto visit = [&rig](uint64_t number, uint64_t position) {
    const DiskView view = rig.view(number, position);
    for (int i = 0; i < 2; ++i) rig.tier->on_visit(id_of(number), position, 4 * MiB, &view);
  };
  visit(0, 1);
  visit(2, 1);
  visit(100, 0);
  rig.close();
  rig.open();
  for (uint64_t number = 10; number < 30; ++number) rig.until([&] { return rig.write_object(number, 4 * MiB); });
  for (uint64_t number = 0; number < 4; ++number) {
    CHECK(rig.view(number, 0).valid == 0);
    CHECK((rig.view(number, 1).valid != 0) == (number % 2 == 0));
  }
  CHECK(rig.known(100));
}

TEST_CASE("the day's write budget ends writes") {
  TierRig rig;
  rig.options.cache.write_budget_bytes = 8 * MiB;
  rig.open();
  // What was reserved and then not written has cost nothing.
  REQUIRE(rig.tier->begin_write(0, 8 * MiB));
  CHECK(!rig.tier->begin_write(0, 4096));
  rig.tier->abandon_write(0, 8 * MiB, 0);
  CHECK(rig.write_object(1, 4 * MiB));
  CHECK(rig.write_object(2, 4 * MiB));
  const uint64_t shed = rig.tier->stats(0).writes_shed;
  CHECK(!rig.tier->begin_write(0, 4096));
  CHECK(rig.tier->stats(0).writes_shed == shed + 1);
  rig.close();
  // What was written is spent, whatever became of it.
  rig.options.cache.write_budget_bytes = 12 * MiB;
  rig.open();
  REQUIRE(rig.tier->begin_write(0, 4 * MiB));
  rig.tier->abandon_write(0, 4 * MiB, 0, true);
  CHECK(!rig.tier->begin_write(0, 4096));
}

TEST_CASE("a restart begins no new write budget; another day, or a larger budget, does") {
  TierRig rig;
  rig.options.cache.write_budget_bytes = 8 * MiB;
  rig.open();
  REQUIRE(rig.write_object(1, 4 * MiB));
  rig.close();
  rig.open();
  REQUIRE(rig.write_object(2, 4 * MiB));
  const disk_format::Uuid disk = disk_of(rig);
  // What a killed process leaves: the keeper has written it within moments.
  rig.until([&] { return budget_file(rig, disk).written_bytes == 8 * MiB; });
  rig.close();
  rig.open();
  CHECK(!rig.tier->begin_write(0, 4096));
  rig.close();

  SUBCASE("a larger one counts what was written") {
    rig.options.cache.write_budget_bytes = 8 * MiB + 4096;
    rig.open();
    CHECK(!rig.tier->begin_write(0, 8192));
    CHECK(rig.tier->begin_write(0, 4096));
    rig.tier->abandon_write(0, 4096, 0);
  }
  SUBCASE("yesterday's is over") {
    disk_format::BudgetFile file = budget_file(rig, disk);
    file.day -= 1;
    disk_format::seal(file, disk);
    write_file(rig.folder / "cache/index/budget", {reinterpret_cast<const char*>(&file), sizeof file});
    rig.open();
    CHECK(rig.write_object(3, 4 * MiB));
  }
  SUBCASE("a damaged one, or another disk's, is not believed") {
    disk_format::BudgetFile file = budget_file(rig, disk);
    disk_format::seal(file, node_uuid);
    write_file(rig.folder / "cache/index/budget", {reinterpret_cast<const char*>(&file), sizeof file});
    rig.open();
    CHECK(rig.write_object(3, 4 * MiB));
  }
}

TEST_CASE("objects and segments leave when their time is over") {
  TierRig rig;
  rig.options.cache.object_ttl_ns = 1'000'000'000;
  rig.open();
  REQUIRE(rig.write_object(1, 4 * MiB));
  Packed packed{.file = new_segment(rig)};
  pack(packed, 2, 1000);
  REQUIRE(tell(rig, packed));
  end(rig, packed);
  CHECK(rig.known(1));
  CHECK(rig.known(2));
  rig.until([&] { return !rig.known(1) && !rig.known(2); });
  rig.until([&] { return rig.tier->stats(0).used_bytes == 0; });
  CHECK(!std::filesystem::exists(rig.path_of(1)));
  CHECK(!std::filesystem::exists(rig.folder / "cache/" + disk_format::segment_path(1)));
}

TEST_CASE("age, budget, quota and watermarks change while the tier runs") {
  TierRig rig;
  rig.open();
  REQUIRE(rig.write_object(1, 4 * MiB));
  CacheConfig changed = rig.options.cache;
  SUBCASE("age") {
    changed.object_ttl_ns = 1;
    rig.tier->change(changed, {});
    rig.until([&] { return !rig.known(1); });
    changed.object_ttl_ns = 0;
    rig.tier->change(changed, {});
    REQUIRE(rig.write_object(2, 4 * MiB));
    rig.close();  // with the sweeps that were due
    rig.open();
    CHECK(rig.known(2));
  }
  SUBCASE("budget") {
    changed.write_budget_bytes = 4 * MiB;
    rig.tier->change(changed, {});
    REQUIRE(rig.tier->begin_write(0, 4 * MiB));
    rig.tier->abandon_write(0, 4 * MiB, 0, true);
    CHECK(!rig.tier->begin_write(0, 4096));
    changed.write_budget_bytes = 8 * MiB;
    rig.tier->change(changed, {});
    CHECK(rig.write_object(2, 4 * MiB));
    CHECK(!rig.tier->begin_write(0, 4096));
    changed.write_budget_bytes = 0;
    rig.tier->change(changed, {});
    CHECK(rig.write_object(3, 4 * MiB));
  }
  SUBCASE("quota") {
    const uint64_t limit = rig.tier->stats(0).limit_bytes;
    rig.tier->change(changed, {.bytes = 56 * MiB});
    rig.until([&] { return rig.tier->stats(0).limit_bytes == 56 * MiB; });
    rig.tier->change(changed, {});
    rig.until([&] { return rig.tier->stats(0).limit_bytes == limit; });
  }
  SUBCASE("watermarks") {
    // Whatever the filesystem holds, this is less.
    changed.disks[0].high_watermark = 1e-9;
    changed.disks[0].low_watermark = 0;
    rig.tier->change(changed, {});
    rig.until([&] { return rig.tier->stats(0).used_bytes == 0; });
    CHECK(!rig.write_object(2, 4 * MiB));
  }
}

TEST_CASE("packed objects are found, survive a restart with their marks, and leave with their segment") {
  TierRig rig;
  rig.options.cache.disks[0].size = {.bytes = 32 * MiB};
  rig.open();
  Packed packed{.file = new_segment(rig)};
  CHECK(packed.file->segment == 1);
  pack(packed, 1, 3 * MiB + 5);
  pack(packed, 2, 100);
  pack(packed, 3, 200000);
  REQUIRE(tell(rig, packed));
  CHECK(rig.view(1).place.packed);
  CHECK(rig.view(1).valid == disk_format::blocks_mask(3 * MiB + 5, 0));
  CHECK(rig.tier->stats(0).used_bytes == uint64_t{packed.page} * 4096);
  rig.tier->mark_verified(id_of(2), 0, 1);
  // Known already: passed over.
  packed.items.push_back({.id = id_of(2), .size = 100, .page = 9999});
  REQUIRE(tell(rig, packed));
  CHECK(rig.view(2).place.page == 1 + 769);
  end(rig, packed);
  rig.close();

  rig.open();
  CHECK(rig.view(2).verified == 0);
  DiskFile* file = rig.open_file(2);
  REQUIRE(file != nullptr);
  CHECK(file->packed);
  CHECK(rig.view(2).verified == 1);
  CHECK(rig.has_bytes(*file, 2, 0, 0));
  Buffer got(4096);
  REQUIRE(pread(file->fd, got.bytes().data(), 4096, (rig.view(2).place.page + 1) * 4096) >= 100);
  Buffer wanted(4096);
  fill_object_bytes(2, 0, wanted.bytes().first(100));
  CHECK(std::memcmp(got.bytes().data(), wanted.bytes().data(), 100) == 0);
  rig.tier->release(*file);
  rig.tier->verify_soon(id_of(3));
  rig.until([&] { return rig.view(3).whole_verified; });
  // A damaged one leaves alone.
  AskedJob<DiskDropJob> drop;
  drop.id = id_of(3);
  drop.blocks = 1;
  REQUIRE(rig.run(drop));
  CHECK(!rig.known(3));
  CHECK(rig.known(1));
  for (uint64_t number = 10; number < 30; ++number) rig.until([&] { return rig.write_object(number, 4 * MiB); });
  CHECK(!rig.known(1));
  CHECK(!rig.known(2));
  CHECK(!std::filesystem::exists(rig.folder / "cache/" + disk_format::segment_path(1)));
}

TEST_CASE("packed objects are verified soon after they were written, and the damaged one leaves alone") {
  TierRig rig;
  rig.open();
  Packed packed{.file = new_segment(rig)};
  constexpr uint64_t sizes[] = {100, 200000, 70000, 3 * MiB + 5, 4096, 900000, 300000};
  uint64_t number = 0;
  for (const uint64_t bytes : sizes) pack(packed, ++number, bytes);
  const uint32_t damaged_page = packed.items[2].page + 18;  // its last one
  Buffer other(4096);
  REQUIRE(pwrite(packed.file->fd, other.bytes().data(), 4096, off_t{damaged_page} * 4096) == 4096);
  REQUIRE(tell(rig, packed));
  rig.until([&] { return !rig.known(3); });
  for (number = 1; number <= std::size(sizes); ++number) {
    if (number != 3) rig.until([&] { return rig.view(number).whole_verified; });
  }
  CHECK(rig.tier->stats(0).corrupt_blocks == 1);
  end(rig, packed);
}

TEST_CASE("small objects that the index has no room for are counted as shed") {
  TierRig rig;
  rig.options.memory_bytes = 1;
  rig.open();
  Packed packed{.file = new_segment(rig)};
  constexpr uint64_t objects = 5000;
  for (uint64_t number = 0; number < objects; ++number)
    packed.items.push_back({.id = id_of(number), .size = 1, .page = static_cast<uint32_t>(2 * number)});
  CHECK(!tell(rig, packed));
  const DiskStats stats = rig.tier->stats(0);
  CHECK(stats.objects > 0);
  CHECK(stats.objects < objects);
  CHECK(stats.objects + stats.writes_shed == objects);
  end(rig, packed);
}

TEST_CASE("a segment that was being written when the tier stopped is used on") {
  TierRig rig;
  rig.open();
  Packed packed{.file = new_segment(rig)};
  pack(packed, 1, 100);
  REQUIRE(tell(rig, packed));
  rig.tier->mark_verified(id_of(1), 0, 1);
  rig.tier->release(*packed.file);
  rig.close();
  rig.open();
  DiskFile* segment = rig.open_file(1);
  REQUIRE(segment != nullptr);
  rig.tier->release(*segment);
  CHECK(rig.view(1).verified == 1);
  rig.tier->release(*rig.tier->try_file(id_of(1), rig.view(1)));
  DiskFile* next = new_segment(rig);
  CHECK(next->segment == 2);
  Packed empty{.file = next};
  end(rig, empty);
  rig.until([&] { return !std::filesystem::exists(rig.folder / "cache/" + disk_format::segment_path(2)); });
}

}  // namespace blobcache::test
