// Who goes when the arena is full, and that a full arena still serves.
#include <doctest/doctest.h>

#include "unit/cache/tier_fixture.h"

namespace blobcache {

using namespace test;

namespace {

uint64_t blocks_hit(TestTier& t, const ObjectId& object, uint64_t block_count, uint32_t now_s) {
  uint64_t count = 0;
  for (uint64_t i = 0; i < block_count; ++i) count += t.hit(object, i * 64 * KiB, 4096, now_s) ? 1 : 0;
  return count;
}

}  // namespace

TEST_CASE("one miss a turn never has to repeat, however much is read") {
  TestTier t(64 * MiB);
  const ObjectId object = make_object(1);
  for (const bool whole : {false, true}) {
    CAPTURE(whole);
    unsigned repeats = 0;
    for (uint64_t i = 0; i < (whole ? 100 : 4000); ++i) {
      const PlanRequest request =
          whole ? chunk_request(object, 1024 * MiB + i * 4 * MiB, 1 * MiB) : block_request(object, i * 64 * KiB, 4096);
      if (!t.bring_in(request, 1 + static_cast<uint32_t>(i))) ++repeats;
      t.turn();
    }
    // Changing sides is the exception: the first chunks wait for slabs to be emptied.
    CHECK(repeats <= (whole ? 2 : 0));
  }
  CHECK(t.tier->stats().evicted_bytes > 0);
}

TEST_CASE("a burst of misses larger than the arena, all from one turn, goes on a turn later") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  unsigned turns = 0;
  for (uint64_t i = 0; i < 1024; ++i) {
    const PlanRequest request = block_request(object, i * 64 * KiB, 64 * KiB);
    const Result<void> planned = t.bring_in(request);
    if (!planned) {
      CHECK(planned.error().code == Code::again);
      ++turns;
      t.turn();
      REQUIRE(t.bring_in(request));
    }
    REQUIRE(t.hit(object, i * 64 * KiB, 64 * KiB));
  }
  // Each turn frees what the turn before evicted ahead: 16 frames and more, not one.
  CHECK(turns > 0);
  CHECK(turns <= 1024 / 16);
  CHECK(t.tier->stats().used_bytes <= 16 * MiB);
  CHECK(t.tier->stats().used_bytes >= 12 * MiB);
}

TEST_CASE("many that fail in one turn all succeed in the next") {
  TestTier t(64 * MiB);
  const ObjectId object = make_object(1);
  uint64_t next = 0;
  while (t.bring_in(block_request(object, next * 64 * KiB, 4096))) ++next;
  for (unsigned i = 1; i < 100; ++i) {
    REQUIRE_FALSE(t.bring_in(block_request(object, (next + i) * 64 * KiB, 4096)));
  }
  t.turn();
  for (unsigned i = 0; i < 100; ++i) REQUIRE(t.bring_in(block_request(object, (next + i) * 64 * KiB, 4096)));
}

TEST_CASE("a core that stays in its turn keeps what it may be reading") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  for (uint64_t i = 0; i < 256; ++i) REQUIRE(t.bring_in(block_request(object, i * 64 * KiB, 4096)));
  // Core 1 stays; core 0 turns and turns, and gets no frame, because core 1 may be copying from any.
  for (int i = 0; i < 10; ++i) {
    CHECK_FALSE(t.bring_in(block_request(object, 256 * 64 * KiB, 4096)));
    t.reactors[0]->turn(false);
  }
  t.reactors[1]->turn(false);
  CHECK(t.bring_in(block_request(object, 256 * 64 * KiB, 4096)));
}

TEST_CASE("pinned frames stay, whatever the pressure; all pinned says again") {
  TestTier t(8 * MiB);
  const ObjectId object = make_object(1);
  std::vector<TestPlan> plans(64);
  for (uint64_t i = 0; i < plans.size(); ++i) {
    REQUIRE(t.tier->plan(t.core(0), block_request(object, i * 64 * KiB, 64 * KiB), 1, plans[i]));
    t.load(object, plans[i]);
  }
  for (uint64_t i = 0; i < 500; ++i) {
    if (!t.bring_in(block_request(object, 64 * MiB + i * 64 * KiB, 4096), 100)) t.turn();
    if (i % 16 == 0) (void)t.bring_in(chunk_request(object, 1024 * MiB + i * 4 * MiB, 4096), 100);
    t.turn();
  }
  std::vector<std::byte> bytes(64 * KiB);
  for (uint64_t i = 0; i < plans.size(); ++i) {
    t.tier->copy(plans[i], i * 64 * KiB, 64 * KiB, bytes.data());
    REQUIRE(right_bytes(object, i * 64 * KiB, 64 * KiB, bytes.data()));
    REQUIRE(t.hit(object, i * 64 * KiB, 64 * KiB));
  }
  std::vector<TestPlan> more(64);
  unsigned pinned = 0;
  Result<void> planned;
  for (unsigned tries = 0; tries < 1000 && pinned < more.size(); ++tries) {
    planned = t.tier->plan(t.core(0), block_request(object, 128 * MiB + pinned * 64 * KiB, 4096), 200, more[pinned]);
    if (planned) ++pinned;
    t.turn();
  }
  CHECK(pinned == 64);
  TestPlan one_more;
  for (int i = 0; i < 10; ++i) {
    planned = t.tier->plan(t.core(0), block_request(object, 256 * MiB, 4096), 200, one_more);
    REQUIRE_FALSE(planned);
    CHECK(planned.error().code == Code::again);
    CHECK(one_more.span_count == 0);
    t.turn();
  }
  CHECK(t.tier->stats().pinned_frames == 128);
  for (TestPlan& plan : plans) t.tier->release(plan);
  for (unsigned i = 0; i < pinned; ++i) {
    t.load(object, more[i]);
    t.tier->release(more[i]);
  }
  CHECK_FALSE(t.tier->plan(t.core(0), block_request(object, 256 * MiB, 4096), 200, one_more).has_value());
  t.turn();
  REQUIRE(t.tier->plan(t.core(0), block_request(object, 256 * MiB, 4096), 200, one_more));
  t.load(object, one_more);
  t.tier->release(one_more);
  CHECK(t.tier->stats().pinned_frames == 0);
}

TEST_CASE("a plan that gets only some of its frames leaves nothing behind") {
  TestTier t(8 * MiB);
  const ObjectId object = make_object(1);
  TestPlan holder;
  REQUIRE(t.tier->plan(t.core(0), chunk_request(object, 0, 4096), 1, holder));
  const MemoryTierStats before = t.tier->stats();
  TestPlan plan;
  REQUIRE_FALSE(t.tier->plan(t.core(0), chunk_request(object, 16 * MiB, 8 * MiB), 1, plan));
  CHECK(plan.span_count == 0);
  CHECK(plan.waiters_pending == 0);
  CHECK(t.tier->stats().pinned_frames == before.pinned_frames);
  CHECK(t.tier->stats().used_bytes == before.used_bytes);
  t.load(object, holder);
  t.tier->release(holder);
  t.turn();
  REQUIRE(t.tier->plan(t.core(0), chunk_request(object, 20 * MiB, 4 * MiB), 1, plan));
  CHECK(plan.blocks_to_load_count() == 64);
  t.load(object, plan);
  t.tier->release(plan);
}

TEST_CASE("what is read again outlives what was read once") {
  TestTier t(64 * MiB);
  const ObjectId hot = make_object(1);
  const ObjectId scan = make_object(2);
  uint32_t now_s = 1;
  for (uint64_t i = 0; i < 256; ++i) REQUIRE(t.bring_in(block_request(hot, i * 64 * KiB, 4096), now_s));
  t.turn();
  // A scan of four times the arena, during which the hot quarter is read a few times.
  for (uint64_t i = 0; i < 4096; ++i) {
    if (i % 256 == 0) {
      ++now_s;
      (void)blocks_hit(t, hot, 256, now_s);
    }
    REQUIRE(t.bring_in(block_request(scan, i * 64 * KiB, 4096), now_s));
    t.turn();
  }
  // Not all of them: the hand gives up after 128 frames that were all used, and takes the oldest.
  CHECK(blocks_hit(t, hot, 256, now_s) >= 243);
  CHECK(t.hit(scan, 4095 * 64 * KiB, 4096));
  CHECK_FALSE(t.hit(scan, 0, 4096));
}

TEST_CASE("the demoted go first, in each class, unless they were read again") {
  for (const bool whole : {false, true}) {
    CAPTURE(whole);
    TestTier t(64 * MiB);
    const ObjectId object = make_object(1);
    const uint64_t step = whole ? 4 * MiB : 64 * KiB;
    const uint64_t count = 64 * MiB / step;
    const auto request = [&](uint64_t i) {
      return whole ? chunk_request(object, i * step, 4096) : block_request(object, i * step, 4096);
    };
    for (uint64_t i = 0; i < 2 * count; ++i) {
      REQUIRE(t.bring_in(request(i), 10));
      t.turn();
    }
    const auto present = [&](uint64_t i) { return t.hit(object, i * step, 4096, 10); };
    const auto present_count = [&] {
      uint64_t sum = 0;
      for (uint64_t i = 0; i <= 2 * count + 2; ++i) sum += present(i) ? 1 : 0;
      return sum;
    };
    // The last to have come in: the hand is far from them.
    const uint64_t victim = 2 * count - 2;
    const uint64_t spared = 2 * count - 4;
    const uint64_t before = present_count();
    t.tier->demote(object, spared * step);
    t.tier->demote(object, victim * step);
    t.tier->demote(object, victim * step);
    t.tier->demote(object, huge_object / 2);  // not there: nothing happens
    CHECK(t.hit(object, spared * step, 4096, 10));
    CHECK(t.bring_in(request(2 * count), 10));
    CHECK_FALSE(present(victim));
    CHECK(present(spared));
    CHECK(present_count() == before);  // one in, one out
  }
}

TEST_CASE("slabs change class towards what is used") {
  TestTier t(64 * MiB);
  const ObjectId object = make_object(1);
  uint32_t now_s = 1;
  const auto bring_in = [&](const PlanRequest& request) {
    for (int tries = 0; tries < 4; ++tries) {
      const bool done = t.bring_in(request, now_s).has_value();
      t.turn();
      if (done) return true;
    }
    return false;
  };
  for (uint64_t i = 0; i < 1024; ++i) REQUIRE(bring_in(block_request(object, i * 64 * KiB, 4096)));
  CHECK(t.tier->stats().chunk_frames == 0);
  // Blocks grow old; chunks come.
  for (uint64_t i = 0; i < 15; ++i) {
    ++now_s;
    REQUIRE(bring_in(chunk_request(object, 1024 * MiB + i * 4 * MiB, 4 * MiB)));
  }
  CHECK(t.tier->stats().chunk_frames >= 12);
  CHECK(t.tier->stats().block_frames <= 4 * 64);
  // And back.
  for (uint64_t i = 0; i < 1024; ++i) {
    now_s += i % 64 == 0 ? 1 : 0;
    REQUIRE(bring_in(block_request(object, 4096 * MiB + i * 64 * KiB, 4096)));
  }
  CHECK(t.tier->stats().chunk_frames <= 2);
  CHECK(t.tier->stats().block_frames >= 12 * 64);
  CHECK(t.hit(object, 4096 * MiB + 1023 * 64 * KiB, 4096, now_s));
}

TEST_CASE("young blocks are not emptied for a chunk that may take an older chunk's place") {
  TestTier t(64 * MiB);
  const ObjectId object = make_object(1);
  for (uint64_t i = 0; i < 8; ++i) REQUIRE(t.bring_in(chunk_request(object, 1024 * MiB + i * 4 * MiB, 4096), 5));
  for (uint64_t i = 0; i < 512; ++i) REQUIRE(t.bring_in(block_request(object, i * 64 * KiB, 4096), 9));
  t.turn();
  for (uint64_t i = 0; i < 5; ++i) {
    if (!t.bring_in(chunk_request(object, 2048 * MiB + i * 4 * MiB, 4096), 10)) --i;
    t.turn();
  }
  CHECK(blocks_hit(t, object, 512, 10) == 512);
}

TEST_CASE("one pinned block keeps its slab from being emptied") {
  TestTier t(8 * MiB);
  const ObjectId object = make_object(1);
  TestPlan pins[2];
  REQUIRE(t.tier->plan(t.core(0), block_request(object, 0, 4096), 1, pins[0]));
  for (uint64_t i = 1; i < 127; ++i) REQUIRE(t.bring_in(block_request(object, i * 64 * KiB, 4096)));
  REQUIRE(t.tier->plan(t.core(0), block_request(object, 127 * 64 * KiB, 4096), 1, pins[1]));
  for (int i = 0; i < 10; ++i) {
    CHECK_FALSE(t.bring_in(chunk_request(object, 1024 * MiB, 4096), 50));
    t.turn();
  }
  CHECK(t.hit(object, 100 * 64 * KiB, 4096));
  for (TestPlan& pin : pins) {
    t.load(object, pin);
    t.tier->release(pin);
  }
  CHECK_FALSE(t.bring_in(chunk_request(object, 1024 * MiB, 4096), 50));
  t.turn();
  CHECK(t.bring_in(chunk_request(object, 1024 * MiB, 4096), 50));
}

}  // namespace blobcache
