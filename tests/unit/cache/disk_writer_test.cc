// Own-file objects: what the writer was given lies in the file, with its checksums, or nothing says that it does.
#include "cache/disk_writer.h"

#include <malloc.h>

#include <doctest/doctest.h>
#include <unistd.h>

#include "unit/cache/disk_writer_fixture.h"

namespace blobcache {

using namespace test;

TEST_CASE("an object is written behind its loads, chunk by chunk") {
  WriterCore t;
  const ObjectId id = id_of(1);
  constexpr uint64_t bytes = 20 * MiB + 12345;
  // All at once: five of the six wait for the file that the first one asked for.
  t.load_all(id, bytes);
  CHECK_FALSE(t.on_disk(id, bytes));
  t.wait_idle();
  CHECK(t.on_disk(id, bytes));
  t.check_own_file(id, bytes);
  CHECK(t.memory->stats().pinned_frames == 0);
  CHECK(t.tier->stats(0).objects == 1);
  CHECK(t.tier->stats(0).writes_shed == 0);
}

// Sanitizers have heaps of their own, which mallinfo2 does not see.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_HEAP 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define OWN_HEAP 1
#endif
#endif
#ifndef OWN_HEAP
TEST_CASE("a writer takes of the heap what it says") {
  WriterCore t;
  const size_t said = DiskWriter::state_bytes(1, t.chunk_bytes);
  const auto in_use = [] {
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  t.writer.reset();
  const size_t before = in_use();
  t.make_writer();
  const size_t taken = in_use() - before;
  constexpr size_t rounding = 64 * KiB;
  CHECK(taken <= said + rounding);
  CHECK(taken + rounding >= said);
}
#endif

TEST_CASE("objects end anywhere") {
  for (const bool registered : {true, false}) {
    WriterCore t({.registered_buffers = registered});
    uint64_t number = 0;
    for (const uint64_t tail : {0, 1, 511, 512, 4095, 4096, 4097, 65535, 65536, 65537, 131071}) {
      for (const FrameKind kind : {FrameKind::chunk, FrameKind::block}) {
        const ObjectId id = id_of(++number);
        const uint64_t bytes = 4 * MiB + tail;
        // The last bytes alone, in a frame of either kind.
        const uint64_t from = bytes - (tail == 0 ? 4096 : tail);
        t.load({.id = id, .object_bytes = bytes, .offset = from, .bytes = bytes - from, .kind = kind});
        t.wait_idle();
        const uint64_t position = (bytes - 1) / (4 * MiB);
        const uint64_t last = (bytes - 1) % (4 * MiB) / limits::block_bytes;
        CHECK((t.valid_blocks(id, position) >> last & 1) == 1);
        t.check_own_file(id, bytes);
      }
    }
    CHECK(t.tier->stats(0).writes_shed == 0);
    CHECK(t.memory->stats().pinned_frames == 0);
  }
}

TEST_CASE("exactly the blocks that were loaded are said to be there") {
  WriterCore t;
  const ObjectId id = id_of(1);
  constexpr uint64_t bytes = 16 * MiB;
  constexpr uint64_t odd = 0xaaaaaaaaaaaaaaaau;
  // Memory gets every second block without the disk hearing of it, so that the rest comes in 32 runs.
  for (unsigned block = 0; block < 64; ++block) {
    if ((odd >> block & 1) == 0) continue;
    const uint64_t offset = 4 * MiB + block * limits::block_bytes;
    t.load({.id = id, .object_bytes = bytes, .offset = offset, .bytes = 64 * KiB, .write = false});
  }
  t.load({.id = id, .object_bytes = bytes, .offset = 4 * MiB, .bytes = 4 * MiB});
  t.wait_idle();
  CHECK(t.valid_blocks(id, 0) == 0);
  CHECK(t.valid_blocks(id, 1) == ~odd);
  CHECK(t.valid_blocks(id, 2) == 0);
  t.check_own_file(id, bytes);
  // Single blocks, from block frames.
  for (const uint64_t block : {0, 63, 130})
    t.load({.id = id,
            .object_bytes = bytes,
            .offset = block * limits::block_bytes,
            .bytes = 4096,
            .kind = FrameKind::block});
  t.wait_idle();
  CHECK(t.valid_blocks(id, 0) == (uint64_t{1} << 63 | 1));
  CHECK(t.valid_blocks(id, 2) == 4);
  t.check_own_file(id, bytes);
}

TEST_CASE("what is on disk is not written again") {
  WriterCore t;
  const ObjectId id = id_of(1);
  constexpr uint64_t bytes = 8 * MiB;
  t.load({.id = id, .object_bytes = bytes, .offset = 0, .bytes = 1 * MiB});
  t.wait_idle();
  const uint64_t once = t.tier->stats(0).written_bytes;
  CHECK(once >= 1 * MiB);
  t.memory->drop(id, bytes);
  t.load({.id = id, .object_bytes = bytes, .offset = 0, .bytes = 1 * MiB});
  CHECK(t.writer->idle());
  // Half of it is there.
  t.memory->drop(id, bytes);
  t.load({.id = id, .object_bytes = bytes, .offset = 0, .bytes = 2 * MiB});
  t.wait_idle();
  CHECK(t.tier->stats(0).written_bytes == 2 * once);
  CHECK(t.valid_blocks(id, 0) == 0xffffffffu);
  t.check_own_file(id, bytes);
}

TEST_CASE("a frame is held until its bytes are written, whatever happens to it in memory") {
  WriterCore t({.arena_bytes = 16 * MiB});
  const ObjectId id = id_of(1);
  t.load({.id = id, .object_bytes = 8 * MiB, .offset = 0, .bytes = 4 * MiB});
  CHECK(t.memory->stats().pinned_frames == 1);
  t.memory->drop(id, 8 * MiB);
  // The other frames are overwritten many times before the ring is asked to do anything.
  for (uint64_t i = 0; i < 64; ++i)
    t.load({.id = id_of(2), .object_bytes = 256 * MiB, .offset = i * 4 * MiB, .bytes = 4 * MiB, .write = false});
  t.wait_idle();
  CHECK(t.valid_blocks(id, 0) == ~uint64_t{0});
  t.check_own_file(id, 8 * MiB);
  CHECK(t.memory->stats().pinned_frames == 0);
}

TEST_CASE("more writes than may hold a frame are shed and counted, and nothing else is lost") {
  constexpr unsigned frames = 16;
  WriterCore t({.held_bytes_max = frames * limits::block_bytes});
  const ObjectId id = id_of(1);
  constexpr uint64_t bytes = 64 * MiB;
  constexpr unsigned extra = 3;
  for (uint64_t i = 0; i < frames + extra; ++i)
    t.load({.id = id,
            .object_bytes = bytes,
            .offset = i * 2 * limits::block_bytes,
            .bytes = 4096,
            .kind = FrameKind::block});
  CHECK(t.memory->stats().pinned_frames == frames);
  CHECK(t.tier->stats(0).writes_shed == extra);
  t.wait_idle();
  CHECK(t.valid_blocks(id, 0) == 0x55555555u);
  t.check_own_file(id, bytes);
  // They are misses, and may be written later.
  t.memory->drop(id, bytes);
  t.load(
      {.id = id, .object_bytes = bytes, .offset = 32 * limits::block_bytes, .bytes = 4096, .kind = FrameKind::block});
  t.wait_idle();
  CHECK(t.valid_blocks(id, 0) == 0x155555555u);
}

TEST_CASE("what no disk takes is counted as shed, large and small, and written when one takes it again") {
  WriterCore t;
  // Not enough of a failure for a test file to fail, too: the disk comes back by itself.
  REQUIRE(t.tier->begin_write(0, 4096));
  t.tier->abandon_write(0, 4096, EIO);
  REQUIRE(t.tier->disk_for(id_of(1)) < 0);
  const uint64_t shed_before = t.tier->stats(0).writes_shed;
  t.load_all(id_of(1), 5 * MiB);
  CHECK(t.tier->stats(0).writes_shed == shed_before + 80);
  t.load_all(id_of(2), 130 * KiB);
  t.turn_until([&t] { return t.writer->idle(); });
  REQUIRE(t.tier->disk_for(id_of(1)) < 0);
  CHECK(t.tier->stats(0).writes_shed == shed_before + 80 + 3);
  t.turn_until([&t] { return t.tier->disk_for(id_of(1)) == 0; });
  for (const uint64_t number : {1, 2}) {
    const uint64_t bytes = number == 1 ? 5 * MiB : 130 * KiB;
    t.memory->drop(id_of(number), bytes);
    t.load_all(id_of(number), bytes);
    t.wait_idle();
    CHECK(t.on_disk(id_of(number), bytes));
  }
  CHECK(t.tier->stats(0).writes_shed == shed_before + 80 + 3);
}

TEST_CASE("an object that leaves before its write begins, or while it is in flight, stays away") {
  for (const bool in_flight : {false, true}) {
    WriterCore t;
    const ObjectId id = id_of(1);
    constexpr uint64_t bytes = 16 * MiB;
    t.load({.id = id, .object_bytes = bytes, .offset = 0, .bytes = 1 * MiB});
    t.wait_idle();
    REQUIRE(t.valid_blocks(id, 0) == 0xffff);
    t.load({.id = id, .object_bytes = bytes, .offset = 4 * MiB, .bytes = 4 * MiB});
    if (in_flight) {
      t.turn_until([&t] { return t.reactor->cqes_owed() > 0; });
      t.submit();
    }
    REQUIRE(t.tier->remove_and_wait(id));
    t.wait_idle();
    DiskView view;
    CHECK_FALSE(t.tier->find(id, 0, &view));
    CHECK(t.memory->stats().pinned_frames == 0);
    CHECK(t.tier->stats(0).write_errors == 0);
    // Nothing of what was reserved is lost, and it may come back.
    t.memory->drop(id, bytes);
    t.load_all(id, bytes);
    t.wait_idle();
    CHECK(t.on_disk(id, bytes));
    t.check_own_file(id, bytes);
  }
}

TEST_CASE("a disk keeps its limit") {
  constexpr uint64_t limit = 64 * MiB;
  WriterCore t({.limit_bytes = limit});
  for (uint64_t number = 0; number < 12; ++number) {
    t.load_all(id_of(number), 20 * MiB);
    CHECK(t.tier->stats(0).used_bytes <= limit);
    t.wait_idle();
    CHECK(t.tier->stats(0).used_bytes <= limit);
  }
  CHECK(t.tier->stats(0).evicted_bytes + t.tier->stats(0).writes_shed > 0);
  CHECK(t.memory->stats().pinned_frames == 0);
  for (uint64_t number = 0; number < 12; ++number) {
    DiskView view;
    if (t.tier->find(id_of(number), 0, &view)) t.check_own_file(id_of(number), 20 * MiB);
  }
}

TEST_CASE("a write that fails or is cut short is not told of") {
  for (const uint64_t written_bytes : {uint64_t{0}, 2 * MiB}) {
    WriterCore t;
    const ObjectId id = id_of(1);
    constexpr uint64_t bytes = 16 * MiB;
    t.load({.id = id, .object_bytes = bytes, .offset = 0, .bytes = 64 * KiB});
    t.wait_idle();
    REQUIRE(t.valid_blocks(id, 0) == 1);
    {
      const FileSizeLimit limit(12 * MiB + written_bytes);
      t.load({.id = id, .object_bytes = bytes, .offset = 12 * MiB, .bytes = 4 * MiB});
      t.wait_idle();
    }
    CHECK(t.valid_blocks(id, 3) == 0);
    CHECK(t.valid_blocks(id, 0) == 1);
    CHECK(t.tier->stats(0).write_errors + t.tier->stats(0).writes_shed > 0);
    CHECK(t.memory->stats().pinned_frames == 0);
    t.check_own_file(id, bytes);
  }
}

}  // namespace blobcache
