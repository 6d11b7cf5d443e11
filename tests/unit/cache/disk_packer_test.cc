// Small objects: where the index says they lie, they lie whole, under a sealed header.
#include <filesystem>

#include <doctest/doctest.h>

#include "unit/cache/disk_writer_fixture.h"

namespace blobcache {

using namespace test;

namespace {

uint64_t segment_file_bytes(const WriterCore& t) {
  uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(t.folder / "cache/segments")) bytes += entry.file_size();
  return bytes;
}

}  // namespace

TEST_CASE("small objects of all sizes are packed, without anyone asking for a flush") {
  for (const bool registered : {true, false}) {
    WriterCore t({.registered_buffers = registered});
    uint64_t number = 0;
    constexpr uint64_t sizes[] = {1, 8, 4095, 4096, 4097, 64 * KiB, 64 * KiB + 1, MiB + 17, 4 * MiB - 1};
    for (const uint64_t bytes : sizes) {
      REQUIRE(t.tier->packs(bytes));
      t.load_all(id_of(++number), bytes);
      DiskView view;
      CHECK_FALSE(t.tier->find(id_of(number), 0, &view));
      t.wait_idle();
      CHECK(t.on_disk(id_of(number), bytes));
    }
    number = 0;
    for (const uint64_t bytes : sizes) t.check_packed(id_of(++number), bytes);
    CHECK(t.tier->stats(0).writes_shed == 0);
  }
}

TEST_CASE("a thousand small objects take few writes, and all are there after a restart") {
  WriterCore t;
  const auto bytes_of_number = [](uint64_t number) { return 1 + number * 7919 % 60000; };
  uint64_t pages = 0;
  for (uint64_t number = 1; number <= 1000; ++number) {
    const uint64_t bytes = bytes_of_number(number);
    pages += disk_format::packed_pages(bytes);
    t.load_all(id_of(number), bytes);
    t.reactor->turn(false);
    // As fast as the disk takes them: what is too fast is shed.
    if (number % 20 == 0) t.wait_idle();
  }
  t.wait_idle();
  CHECK(t.tier->stats(0).objects == 1000);
  CHECK(t.tier->stats(0).writes_shed == 0);
  CHECK(segment_file_bytes(t) >= pages * limits::page_bytes);
  for (uint64_t number = 1; number <= 1000; number += 37) t.check_packed(id_of(number), bytes_of_number(number));
  t.close_disks();
  t.open_disks();
  uint64_t missing = 0;
  for (uint64_t number = 1; number <= 1000; ++number) missing += !t.on_disk(id_of(number), bytes_of_number(number));
  CHECK(missing == 0);
  for (uint64_t number = 1; number <= 1000; number += 61) t.check_packed(id_of(number), bytes_of_number(number));
}

TEST_CASE("a flush writes at once and ends the segment; what comes then lies in a new one") {
  WriterCore t;
  t.load_all(id_of(1), 10000);
  CHECK_FALSE(t.writer->idle());
  t.writer->flush();
  const uint64_t begun_ns = t.reactor->now_ns();
  t.wait_idle();
  CHECK(t.on_disk(id_of(1), 10000));
  t.load_all(id_of(2), 10000);
  t.wait_idle();
  // Only the second one had to wait for the timer.
  CHECK(t.reactor->now_ns() - begun_ns >= 100'000'000);
  DiskView first;
  DiskView second;
  REQUIRE(t.tier->find(id_of(1), 0, &first));
  REQUIRE(t.tier->find(id_of(2), 0, &second));
  CHECK(first.place.segment != second.place.segment);
  t.check_packed(id_of(1), 10000);
  t.check_packed(id_of(2), 10000);
}

TEST_CASE("an object is packed once, when all of it is in memory") {
  WriterCore t;
  const ObjectId id = id_of(1);
  constexpr uint64_t bytes = 300 * KiB;
  t.load({.id = id, .object_bytes = bytes, .offset = 0, .bytes = 64 * KiB, .kind = FrameKind::block});
  t.load({.id = id, .object_bytes = bytes, .offset = 128 * KiB, .bytes = 172 * KiB, .kind = FrameKind::block});
  CHECK(t.writer->idle());
  t.load({.id = id, .object_bytes = bytes, .offset = 64 * KiB, .bytes = 64 * KiB, .kind = FrameKind::block});
  CHECK_FALSE(t.writer->idle());
  t.writer->write_packed(id, bytes);  // queued
  t.reactor->turn(false);
  t.reactor->turn(false);
  t.writer->write_packed(id, bytes);  // staged
  t.writer->flush();
  t.writer->write_packed(id, bytes);  // ready, or in flight
  t.wait_idle();
  t.check_packed(id, bytes);
  t.writer->write_packed(id, bytes);  // there
  CHECK(t.writer->idle());
  CHECK(t.tier->stats(0).written_bytes == disk_format::packed_pages(bytes) * limits::page_bytes);
  CHECK(t.tier->stats(0).writes_shed == 0);
}

TEST_CASE("small objects that come faster than the disk takes them wait for their turn") {
  WriterCore t({.arena_bytes = 64 * MiB});
  constexpr uint64_t bytes = 200 * KiB + 5;
  uint64_t loaded = 0;
  // No turn: nothing can be written meanwhile. They are more than both buffers hold.
  for (uint64_t number = 1; number <= 80; ++number, ++loaded)
    t.load({.id = id_of(number), .object_bytes = bytes, .offset = 0, .bytes = bytes, .kind = FrameKind::block});
  t.wait_idle();
  uint64_t found = 0;
  for (uint64_t number = 1; number <= loaded; ++number) {
    if (!t.on_disk(id_of(number), bytes)) continue;
    ++found;
    t.check_packed(id_of(number), bytes);
  }
  CHECK(found == loaded);
  CHECK(t.tier->stats(0).objects == found);
  CHECK(t.tier->stats(0).writes_shed == 0);
}

TEST_CASE("a segment that is full makes way for the next") {
  WriterCore t({.limit_bytes = 256 * MiB});
  const uint64_t segment_bytes = t.tier->segment_bytes(0);
  constexpr uint64_t bytes = 3 * MiB + 1;
  const uint64_t objects = 2 * segment_bytes / bytes + 2;
  REQUIRE(objects * bytes < t.options.limit_bytes / 2);
  for (uint64_t number = 1; number <= objects; ++number) {
    t.load_all(id_of(number), bytes);
    t.wait_idle();
  }
  uint32_t segment_max = 0;
  for (uint64_t number = 1; number <= objects; ++number) {
    DiskView view;
    REQUIRE(t.tier->find(id_of(number), 0, &view));
    CHECK((view.place.page + disk_format::packed_pages(bytes)) * limits::page_bytes <= segment_bytes);
    segment_max = std::max(segment_max, view.place.segment);
    t.check_packed(id_of(number), bytes);
  }
  CHECK(segment_max >= 2);
}

}  // namespace blobcache
