// What the disk needs of the memory tier: holding a frame beyond its load, asking what is there, and where bytes came from.
#include <thread>

#include <doctest/doctest.h>

#include "cache/memory_tier.h"
#include "unit/cache/tier_fixture.h"

namespace blobcache {

using namespace test;

TEST_CASE("a frame that is held outlives its load and its plan, and is found meanwhile") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  TestPlan plan;
  REQUIRE(t.tier->plan(t.core(0), chunk_request(object, 0, 1 * MiB), 1, plan));
  Frame& frame = *plan.spans[0].frame;
  t.tier->hold(frame);
  t.load(object, plan);
  t.tier->release(plan);
  CHECK(t.tier->stats().pinned_frames == 1);
  for (uint64_t i = 1; i <= 600; ++i) {
    REQUIRE(t.bring_in(block_request(make_object(2), i * 64 * KiB, 4096), 2));
    t.turn();
  }
  CHECK(t.hit(object, 0, 1 * MiB));
  CHECK(right_bytes(object, 0, 1 * MiB, t.tier->frame_bytes(frame)));
  t.tier->unhold(frame);
  CHECK(t.tier->stats().pinned_frames == 0);
}

TEST_CASE("a frame that is dropped while held keeps its bytes, and is free after") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  TestPlan plan;
  REQUIRE(t.tier->plan(t.core(0), chunk_request(object, 0, 1 * MiB), 1, plan));
  Frame& frame = *plan.spans[0].frame;
  t.tier->hold(frame);
  t.load(object, plan, 0, {.ok = true, .keep = false});
  t.tier->release(plan);
  CHECK_FALSE(t.hit(object, 0, 4096));
  for (uint64_t i = 1; i <= 16; ++i) {
    // Every other frame is used, again and again.
    const PlanRequest request = chunk_request(make_object(2), i * 4 * MiB, 4 * MiB);
    Result<void> brought = t.bring_in(request);
    for (int turns = 0; turns < 4 && !brought; ++turns) {  // what is evicted in a turn is free in a later one
      t.turn();
      brought = t.bring_in(request);
    }
    REQUIRE(brought);
  }
  CHECK(right_bytes(object, 0, 1 * MiB, t.tier->frame_bytes(frame)));
  t.tier->unhold(frame);
  CHECK(t.tier->stats().pinned_frames == 0);
  CHECK(t.tier->stats().used_bytes <= 12 * MiB);
}

TEST_CASE("a load that fails while its frame is held leaves nothing behind") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  TestPlan plan;
  REQUIRE(t.tier->plan(t.core(0), block_request(object, 0, 4096), 1, plan));
  Frame& frame = *plan.spans[0].frame;
  t.tier->hold(frame);
  t.load(object, plan, 0, {.ok = false});
  t.tier->release(plan);
  t.tier->unhold(frame);
  t.turn();
  CHECK(t.tier->stats().pinned_frames == 0);
  CHECK(t.tier->stats().used_bytes == 0);
}

TEST_CASE("holds says what try_copy would find") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  CHECK_FALSE(t.tier->holds(object, 0, 1));
  // Block frames 0 and 1, then a chunk frame with blocks 2 to 7, another with the first block of the next chunk.
  REQUIRE(t.bring_in(block_request(object, 0, 128 * KiB)));
  REQUIRE(t.bring_in(chunk_request(object, 128 * KiB, 384 * KiB)));
  REQUIRE(t.bring_in(chunk_request(object, 4 * MiB, 1)));
  CHECK(t.tier->holds(object, 0, 512 * KiB));
  CHECK_FALSE(t.tier->holds(object, 0, 512 * KiB + 1));
  CHECK(t.tier->holds(object, 100 * KiB, 300 * KiB));
  CHECK(t.tier->holds(object, 4 * MiB, 64 * KiB));
  CHECK_FALSE(t.tier->holds(object, 4 * MiB - 1, 2));
  CHECK_FALSE(t.tier->holds(make_object(2), 0, 1));
  for (uint64_t offset = 0; offset < 640 * KiB; offset += 24 * KiB) {
    for (uint64_t bytes = 8; bytes < 640 * KiB; bytes += 40 * KiB)
      CHECK(t.tier->holds(object, offset, bytes) == t.hit(object, offset, static_cast<uint32_t>(bytes)));
  }
  // A range over a whole chunk.
  REQUIRE(t.bring_in(chunk_request(object, 0, 8 * MiB)));
  CHECK(t.tier->holds(object, 1, 8 * MiB - 1));
  CHECK_FALSE(t.tier->holds(object, 1, 8 * MiB));
}

TEST_CASE("a plan knows the sources of the loads that it waited for, and of no others") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  TestPlan plan;
  TestPlan narrow;
  TestPlan later;
  REQUIRE(t.tier->plan(t.core(0), chunk_request(object, 0, 256 * KiB), 1, plan));
  REQUIRE(t.tier->plan(t.core(1), chunk_request(object, 64 * KiB, 4096), 1, narrow));
  Frame& frame = *plan.spans[0].frame;
  fill_blocks(*t.tier, object, frame, 0, 15);
  t.tier->finish_load(t.core(0), frame, 1, {.ok = true, .source = 0});
  t.tier->finish_load(t.core(0), frame, 2, {.ok = true, .source = 3});
  REQUIRE(t.tier->plan(t.core(0), chunk_request(object, 0, 256 * KiB), 1, later));
  t.tier->finish_load(t.core(0), frame, 12, {.ok = true, .source = 7});
  t.turn();
  t.turn();
  CHECK(plan.done_count == 1);
  CHECK(plan.sources == 0b1000'1001);
  CHECK(narrow.sources == 0b0000'1000);
  CHECK(later.sources == 0b1000'0000);
  for (TestPlan* each : {&plan, &narrow, &later}) t.tier->release(*each);
  // A plan that finds everything waited for nothing, whatever it did before.
  REQUIRE(t.tier->plan(t.core(0), chunk_request(object, 0, 256 * KiB), 1, plan));
  CHECK(plan.waiters_pending == 0);
  CHECK(plan.sources == 0);
  t.tier->release(plan);
}

TEST_CASE("a hold moves between threads with the frame's bytes") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  for (unsigned round = 0; round < 50; ++round) {
    TestPlan plan;
    REQUIRE(t.tier->plan(t.core(0), block_request(object, round * 64 * KiB, 64 * KiB), 1, plan));
    Frame& frame = *plan.spans[0].frame;
    t.tier->hold(frame);
    std::byte first{};
    std::thread reader([&] {
      first = t.tier->frame_bytes(frame)[0];
      t.tier->unhold(frame);
    });
    t.tier->hold(frame);
    t.tier->unhold(frame);
    reader.join();
    t.load(object, plan);
    t.tier->release(plan);
    t.turn();
    CHECK(t.hit(object, round * 64 * KiB, 64 * KiB));
  }
  CHECK(t.tier->stats().pinned_frames == 0);
}

}  // namespace blobcache
