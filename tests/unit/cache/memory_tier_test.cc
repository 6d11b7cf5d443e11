// What a caller sees of frames: hit, miss, partly there, kinds, sizes, what is counted and what is dropped.
#include "cache/memory_tier.h"

#include <atomic>
#include <cstdlib>
#include <new>

#include <doctest/doctest.h>

#include "unit/cache/allocations.h"
#include "unit/cache/tier_fixture.h"

#if BC_TEST_COUNTS_ALLOCATIONS
namespace {
thread_local uint64_t allocations = 0;
}  // namespace

uint64_t blobcache::test::allocation_count() { return allocations; }

void* operator new(size_t bytes) {
  ++allocations;
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
#endif

namespace blobcache {

using namespace test;

TEST_CASE("a block is a miss, is loaded once, and then a hit") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  CHECK_FALSE(t.hit(object, 8 * KiB, 4096));
  TestPlan plan;
  REQUIRE(t.tier->plan(t.core(0), block_request(object, 8 * KiB, 4096), 1, plan));
  REQUIRE(plan.span_count == 1);
  CHECK(plan.spans[0].offset == 0);
  CHECK(plan.spans[0].blocks_to_load == 1);
  CHECK(plan.waiters_pending == 1);
  CHECK(t.tier->frame_size(*plan.spans[0].frame) == 64 * KiB);
  CHECK_FALSE(t.hit(object, 8 * KiB, 4096));
  t.load(object, plan);
  CHECK(plan.done_count == 1);
  CHECK_FALSE(plan.failed);
  std::byte bytes[4096];
  t.tier->copy(plan, 8 * KiB, 4096, bytes);
  CHECK(right_bytes(object, 8 * KiB, 4096, bytes));
  CHECK(t.tier->stats().pinned_frames == 1);
  t.tier->release(plan);
  CHECK(t.tier->stats().pinned_frames == 0);
  CHECK(t.hit(object, 8 * KiB, 4096));
  CHECK(t.hit(object, 0, 64 * KiB));
  CHECK_FALSE(t.hit(object, 60 * KiB, 8 * KiB));
  CHECK_FALSE(t.hit(make_object(2), 8 * KiB, 4096));

  TestPlan again;
  REQUIRE(t.tier->plan(t.core(0), block_request(object, 0, 64 * KiB), 1, again));
  CHECK(again.waiters_pending == 0);
  CHECK(again.blocks_to_load_count() == 0);
  t.tier->release(again);
}

TEST_CASE("a request over two positions is planned, loaded and copied in any cut") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  for (const FrameKind kind : {FrameKind::block, FrameKind::chunk}) {
    CAPTURE(static_cast<int>(kind));
    const uint64_t base = (kind == FrameKind::chunk ? 8 : 0) * MiB;
    const uint64_t offset = base + 4 * MiB - 104 * KiB;
    PlanRequest request = block_request(object, offset, 256 * KiB);
    request.kind = kind;
    TestPlan plan;
    REQUIRE(t.tier->plan(t.core(0), request, 1, plan));
    CHECK(plan.span_count == (kind == FrameKind::block ? 5 : 2));
    CHECK(plan.blocks_to_load_count() == 5);
    t.load(object, plan);
    CHECK(plan.done_count == 1);
    std::vector<std::byte> bytes(256 * KiB);
    for (const uint64_t skip : {uint64_t{0}, 8 * KiB, 104 * KiB, 200 * KiB}) {
      const auto part = static_cast<uint32_t>(256 * KiB - skip);
      t.tier->copy(plan, offset + skip, part, bytes.data());
      CHECK(right_bytes(object, offset + skip, part, bytes.data()));
      CHECK(t.hit(object, offset + skip, part));
    }
    CHECK_FALSE(t.hit(object, offset - 64 * KiB, 256 * KiB));
    t.tier->release(plan);
  }
}

TEST_CASE("only what is missing of a chunk is loaded") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  REQUIRE(t.bring_in(chunk_request(object, 64 * KiB, 128 * KiB)));
  CHECK(t.hit(object, 64 * KiB, 128 * KiB));
  CHECK_FALSE(t.hit(object, 0, 128 * KiB));
  TestPlan plan;
  REQUIRE(t.tier->plan(t.core(0), chunk_request(object, 0, 4 * MiB), 1, plan));
  REQUIRE(plan.span_count == 1);
  CHECK(plan.spans[0].blocks == ~uint64_t{0});
  CHECK(plan.spans[0].blocks_to_load == ~uint64_t{6});
  t.load(object, plan);
  t.tier->release(plan);
  CHECK(t.hit(object, 0, 4 * MiB));
  CHECK(t.tier->stats().chunk_frames == 1);
}

TEST_CASE("a chunk frame of the position is used before new block frames, and block frames beside it count") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  REQUIRE(t.bring_in(block_request(object, 3 * 64 * KiB, 4096)));
  REQUIRE(t.bring_in(chunk_request(object, 0, 64 * KiB)));
  TestPlan plan;
  REQUIRE(t.tier->plan(t.core(0), block_request(object, 0, 256 * KiB), 1, plan));
  CHECK(plan.span_count == 2);
  CHECK(plan.blocks_to_load_count() == 2);
  t.load(object, plan);
  CHECK(plan.waiters_pending == 0);
  std::vector<std::byte> bytes(256 * KiB);
  t.tier->copy(plan, 0, 256 * KiB, bytes.data());
  CHECK(right_bytes(object, 0, 256 * KiB, bytes.data()));
  t.tier->release(plan);
  CHECK(t.hit(object, 0, 256 * KiB));
  CHECK(t.tier->stats().block_frames == 1);
  CHECK(t.tier->stats().chunk_frames == 1);
  CHECK(t.tier->cached_bytes(object, huge_object) == 256 * KiB);
  CHECK(t.tier->cached_bytes(object, 256 * KiB) == 256 * KiB);
}

TEST_CASE("large requests take chunk frames, up to eight of them") {
  TestTier t(40 * MiB);
  const ObjectId object = make_object(1);
  TestPlan plan;
  REQUIRE(t.tier->plan(t.core(0), block_request(object, 0, 32 * MiB), 1, plan));
  CHECK(plan.span_count == 8);
  CHECK(t.tier->stats().chunk_frames == 8);
  t.load(object, plan);
  CHECK(plan.done_count == 1);
  t.tier->release(plan);
  CHECK(t.hit(object, 0, 32 * MiB));
  TestPlan too_large;
  const Result<void> planned = t.tier->plan(t.core(0), block_request(object, 8 * KiB, 32 * MiB), 1, too_large);
  REQUIRE_FALSE(planned);
  CHECK(planned.error().code == Code::invalid);
  CHECK(t.tier->stats().pinned_frames == 0);
}

TEST_CASE("the registered buffer of a frame is the one its bytes lie in") {
  TestTier t(16 * MiB);
  TestPlan plan;
  REQUIRE(t.tier->plan(t.core(0), chunk_request(make_object(1), 0, 4096), 1, plan));
  const std::byte* bytes = t.tier->frame_bytes(*plan.spans[0].frame);
  CHECK(bytes >= t.arena.bytes().data());
  CHECK(bytes + 4 * MiB <= t.arena.bytes().data() + t.arena.bytes().size());
  CHECK(t.tier->frame_size(*plan.spans[0].frame) == 4 * MiB);
  CHECK(t.tier->buffer_index(*plan.spans[0].frame) == 3);
  t.load(make_object(1), plan);
  t.tier->release(plan);
}

TEST_CASE("cached bytes are exact for a short last block; drop takes what is not pinned") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  const uint64_t object_bytes = 4 * MiB + 64 * KiB + 1000;
  for (const FrameKind kind : {FrameKind::block, FrameKind::chunk}) {
    CAPTURE(static_cast<int>(kind));
    PlanRequest request{
        .object = object, .object_bytes = object_bytes, .offset = 4 * MiB, .bytes = 64 * KiB + 1000, .kind = kind};
    TestPlan plan;
    REQUIRE(t.tier->plan(t.core(0), request, 1, plan));
    CHECK(t.tier->cached_bytes(object, object_bytes) == 0);
    t.load(object, plan);
    CHECK(t.tier->cached_bytes(object, object_bytes) == 64 * KiB + 1000);
    CHECK(t.tier->cached_bytes(make_object(2), object_bytes) == 0);
    t.tier->drop(object, object_bytes);
    CHECK(t.hit(object, 4 * MiB, 64 * KiB));
    t.tier->release(plan);
    t.tier->drop(make_object(2), object_bytes);
    CHECK(t.hit(object, 4 * MiB, 64 * KiB));
    t.tier->drop(object, kind == FrameKind::block ? object_bytes : huge_object);
    CHECK_FALSE(t.hit(object, 4 * MiB, 64 * KiB));
    CHECK_FALSE(t.hit(object, 4 * MiB + 64 * KiB, 8));
    CHECK(t.tier->cached_bytes(object, object_bytes) == 0);
    CHECK(t.tier->stats().used_bytes == 0);
  }
}

TEST_CASE("what is not kept is right for those who waited and found by nobody later") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  TestPlan plan;
  TestPlan joined;
  REQUIRE(t.tier->plan(t.core(0), block_request(object, 0, 4096), 1, plan));
  REQUIRE(t.tier->plan(t.core(0), block_request(object, 4096, 4096), 1, joined));
  t.load(object, plan, 0, {.ok = true, .keep = false});
  CHECK(plan.done_count == 1);
  CHECK(joined.done_count == 1);
  CHECK_FALSE(t.hit(object, 0, 4096));
  TestPlan later;
  REQUIRE(t.tier->plan(t.core(0), block_request(object, 0, 4096), 1, later));
  CHECK(later.blocks_to_load_count() == 1);
  std::byte bytes[4096];
  t.tier->copy(joined, 4096, 4096, bytes);
  CHECK(right_bytes(object, 4096, 4096, bytes));
  t.tier->release(plan);
  t.tier->release(joined);
  t.load(object, later);
  t.tier->release(later);
  CHECK(t.hit(object, 0, 4096));
  CHECK(t.tier->stats().block_frames == 1);
}

#if BC_TEST_COUNTS_ALLOCATIONS
TEST_CASE("hits, plans and loads allocate nothing") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  REQUIRE(t.bring_in(block_request(object, 0, 128 * KiB)));
  REQUIRE(t.bring_in(chunk_request(object, 4 * MiB, 1 * MiB)));
  std::vector<std::byte> to(1 * MiB);
  TestPlan plan;
  const uint64_t before = allocations;
  bool all = true;
  for (unsigned i = 0; i < 100; ++i) {
    all = t.tier->try_copy(object, i * 512, 4096, to.data(), i) && all;
    all = t.tier->try_copy(object, 0, 128 * KiB, to.data(), i) && all;
    all = t.tier->try_copy(object, 4 * MiB, 1 * MiB, to.data(), i) && all;
    all = t.tier->plan(t.core(0), block_request(object, 64 * MiB + i * 64 * KiB, 4096), i, plan).has_value() && all;
    t.tier->finish_load(t.core(0), *plan.spans[0].frame, plan.spans[0].blocks_to_load, {.ok = true});
    t.tier->release(plan);
  }
  CHECK(allocations == before);
  CHECK(all);
  // The function, not the expression: clang removes a new whose result is not used.
  void* counted = ::operator new(8);
  CHECK(allocations == before + 1);
  ::operator delete(counted);
}
#else
TEST_CASE("not tested under a sanitizer: that hits, plans and loads allocate nothing") {
  MESSAGE("allocations are not counted in this build: the sanitizer has its own operator new");
}
#endif

TEST_CASE("descriptors and index take a quarter percent of the arena") {
  for (const size_t arena_bytes : {size_t{1} << 30, size_t{64} << 30})
    CHECK(MemoryTier::metadata_bytes(arena_bytes) <= arena_bytes / 400 + 2 * MiB);
  TestTier t(16 * MiB);
  CHECK(t.tier->stats().metadata_bytes == MemoryTier::metadata_bytes(16 * MiB));
  CHECK(t.tier->stats().arena_bytes == 16 * MiB);
}

}  // namespace blobcache
