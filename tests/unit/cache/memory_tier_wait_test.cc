// Who is woken, where, when, and with what.
#include <latch>
#include <thread>

#include <doctest/doctest.h>

#include "cache/memory_tier.h"
#include "ring/uring.h"
#include "unit/cache/tier_fixture.h"

namespace blobcache {

using namespace test;

TEST_CASE("a thousand plans of one block give one load") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  std::vector<TestPlan> plans(1000);
  unsigned loads = 0;
  for (size_t i = 0; i < plans.size(); ++i) {
    REQUIRE(t.tier->plan(t.core(i % 2), block_request(object, 0, 4096), 1, plans[i]));
    CHECK(plans[i].waiters_pending == 1);
    loads += plans[i].blocks_to_load_count();
  }
  CHECK(loads == 1);
  t.load(object, plans[0]);
  for (size_t i = 0; i < plans.size(); ++i) CHECK(plans[i].done_count == (i % 2 == 0 ? 1 : 0));
  for (int i = 0; i < 4; ++i) t.turn();
  for (TestPlan& plan : plans) {
    CHECK(plan.done_count == 1);
    CHECK_FALSE(plan.failed);
    t.tier->release(plan);
  }
  CHECK(t.tier->stats().pinned_frames == 0);
}

TEST_CASE("a plan waits for the last of its blocks, whoever loads them") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  TestPlan first;
  TestPlan second;
  REQUIRE(t.tier->plan(t.core(0), chunk_request(object, 0, 128 * KiB), 1, first));
  REQUIRE(t.tier->plan(t.core(1), chunk_request(object, 64 * KiB, 192 * KiB), 1, second));
  CHECK(first.spans[0].blocks_to_load == 3);
  CHECK(second.spans[0].blocks_to_load == 12);
  t.load(object, second, 1);
  CHECK(second.done_count == 0);
  Frame& frame = *first.spans[0].frame;
  fill_blocks(*t.tier, object, frame, 0, 3);
  t.tier->finish_load(t.core(0), frame, 1, {.ok = true});
  t.turn();
  CHECK(first.done_count == 0);
  CHECK(second.done_count == 0);
  t.tier->finish_load(t.core(0), frame, 2, {.ok = true});
  CHECK(first.done_count == 1);
  CHECK(second.done_count == 0);
  t.turn();
  CHECK(second.done_count == 1);
  t.tier->release(first);
  t.tier->release(second);
  CHECK(t.hit(object, 0, 256 * KiB));
}

TEST_CASE("a failed load wakes all with its error, and the next plan loads again") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  std::vector<TestPlan> plans(10);
  for (size_t i = 0; i < plans.size(); ++i)
    REQUIRE(t.tier->plan(t.core(i % 2), block_request(object, 0, 4096), 1, plans[i]));
  t.load(object, plans[0], 0, {.ok = false, .error = {Code::io, 5}});
  t.turn();
  for (TestPlan& plan : plans) {
    CHECK(plan.done_count == 1);
    CHECK(plan.failed);
    CHECK(plan.error == Error{Code::io, 5});
  }
  CHECK_FALSE(t.hit(object, 0, 4096));
  // The frame that failed is not joined again, pinned as it still is.
  TestPlan next;
  REQUIRE(t.tier->plan(t.core(0), block_request(object, 0, 4096), 1, next));
  CHECK(next.blocks_to_load_count() == 1);
  for (TestPlan& plan : plans) t.tier->release(plan);
  t.load(object, next);
  CHECK_FALSE(next.failed);
  t.tier->release(next);
  CHECK(t.hit(object, 0, 4096));
  CHECK(t.tier->stats().block_frames == 1);
}

TEST_CASE("a failed block leaves the valid ones of its chunk") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  REQUIRE(t.bring_in(chunk_request(object, 0, 64 * KiB)));
  TestPlan plan;
  REQUIRE(t.tier->plan(t.core(0), chunk_request(object, 0, 1 * MiB), 1, plan));
  t.load(object, plan, 0, {.ok = false, .error = {Code::timeout}});
  CHECK(plan.failed);
  CHECK(plan.error.code == Code::timeout);
  t.tier->release(plan);
  CHECK(t.hit(object, 0, 64 * KiB));
  CHECK_FALSE(t.hit(object, 0, 128 * KiB));
}

TEST_CASE("canceled waits are not called; the load goes on without its plan") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  TestPlan loader;
  TestPlan waiting;
  REQUIRE(t.tier->plan(t.core(0), block_request(object, 0, 4096), 1, loader));
  REQUIRE(t.tier->plan(t.core(1), block_request(object, 0, 4096), 1, waiting));
  Frame& frame = *loader.spans[0].frame;
  t.tier->cancel_waits(loader);
  CHECK(loader.waiters_pending == 0);
  t.tier->release(loader);
  t.tier->cancel_waits(waiting);
  CHECK(waiting.waiters_pending == 0);
  t.tier->release(waiting);
  // The load's own pin holds the frame while everything else goes.
  CHECK(t.tier->stats().pinned_frames == 1);
  for (uint64_t i = 1; i <= 600; ++i) {
    REQUIRE(t.bring_in(block_request(object, i * 64 * KiB, 4096)));
    t.turn();
  }
  fill_blocks(*t.tier, object, frame, 0, 1);
  t.tier->finish_load(t.core(0), frame, 1, {.ok = true});
  t.turn();
  CHECK(loader.done_count == 0);
  CHECK(waiting.done_count == 0);
  CHECK(t.hit(object, 0, 64 * KiB));
  CHECK(t.tier->stats().pinned_frames == 0);
}

TEST_CASE("whoever waits for a load that is abandoned plans again, and its frame is the load's alone") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  TestPlan hung;
  TestPlan joined;
  TestPlan beside;
  REQUIRE(t.tier->plan(t.core(0), chunk_request(object, 0, 128 * KiB), 1, hung));
  REQUIRE(t.tier->plan(t.core(1), chunk_request(object, 64 * KiB, 64 * KiB), 1, joined));
  REQUIRE(t.tier->plan(t.core(0), chunk_request(object, 128 * KiB, 64 * KiB), 1, beside));
  CHECK(joined.blocks_to_load_count() == 0);
  Frame& frame = *hung.spans[0].frame;
  t.tier->abandon_load(t.core(0), frame, 3);
  t.turn();
  for (TestPlan* plan : {&hung, &joined}) {
    CHECK(plan->done_count == 1);
    CHECK(plan->abandoned);
    t.tier->release(*plan);
  }
  // Another load into the frame ends as it would have.
  CHECK(beside.done_count == 0);
  t.load(object, beside);
  CHECK(beside.done_count == 1);
  CHECK_FALSE(beside.failed);
  CHECK_FALSE(beside.abandoned);
  t.tier->release(beside);

  TestPlan again;
  REQUIRE(t.tier->plan(t.core(1), chunk_request(object, 0, 128 * KiB), 1, again));
  CHECK(again.spans[0].frame != &frame);
  CHECK(again.blocks_to_load_count() == 2);
  t.load(object, again, 1);
  CHECK_FALSE(again.failed);
  t.tier->release(again);
  // What comes at last is in nobody's way, and until then nobody gets the frame.
  for (uint64_t i = 1; i <= 600; ++i) {
    REQUIRE(t.bring_in(block_request(object, (100 + i) * 64 * KiB, 4096)));
    t.turn();
  }
  std::memset(t.tier->frame_bytes(frame), 0xee, 128 * KiB);
  t.tier->abandon_load(t.core(0), frame, 3);
  t.tier->finish_load(t.core(0), frame, 3, {.error = {Code::timeout}});
  t.turn();
  CHECK(t.tier->stats().pinned_frames == 0);
  REQUIRE(t.bring_in(chunk_request(object, 0, 128 * KiB)));
  CHECK(t.hit(object, 0, 128 * KiB));
}

TEST_CASE("a wake-up that is under way is not canceled") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  TestPlan loader;
  TestPlan waiting;
  REQUIRE(t.tier->plan(t.core(0), block_request(object, 0, 4096), 1, loader));
  REQUIRE(t.tier->plan(t.core(1), block_request(object, 0, 4096), 1, waiting));
  t.load(object, loader);
  t.tier->cancel_waits(waiting);
  CHECK(waiting.waiters_pending == 1);
  t.turn();
  CHECK(waiting.waiters_pending == 0);
  CHECK(waiting.done_count == 1);
  t.tier->release(loader);
  t.tier->release(waiting);
}

TEST_CASE("a wake-up that cannot be posted is posted again") {
  TestTier t(16 * MiB);
  const ObjectId object = make_object(1);
  TestPlan loader;
  TestPlan waiting;
  REQUIRE(t.tier->plan(t.core(0), block_request(object, 0, 4096), 1, loader));
  REQUIRE(t.tier->plan(t.core(1), block_request(object, 0, 4096), 1, waiting));
  MessageRing::posts_to_fail = 3;
  t.load(object, loader);
  for (int i = 0; i < 3; ++i) {
    t.turn();
    CHECK(waiting.done_count == 0);
  }
  CHECK(MessageRing::posts_to_fail == 0);
  t.turn();
  t.turn();
  CHECK(waiting.done_count == 1);
  t.tier->release(loader);
  t.tier->release(waiting);
}

namespace {

// Ends the next load from within the wake-up of the one before: a chain as long as there are links.
struct Link : Plan {
  TestTier* t = nullptr;
  std::vector<Link>* links = nullptr;
  static inline unsigned depth = 0;
  static inline unsigned depth_max = 0;
  static inline unsigned ended = 0;

  static void end_next(Plan& plan) {
    auto& self = static_cast<Link&>(plan);
    depth_max = ++depth > depth_max ? depth : depth_max;
    ++ended;
    self.t->tier->release(self);
    const auto index = static_cast<size_t>(&self - self.links->data());
    if (index + 1 < self.links->size()) {
      Link& next = (*self.links)[index + 1];
      self.t->tier->finish_load(self.t->core(0), *next.spans[0].frame, 1, {.ok = true});
    }
    --depth;
  }
};

}  // namespace

TEST_CASE("loads that end within wake-ups do not pile up on the stack") {
  TestTier t(16 * MiB);
  std::vector<Link> links(200);
  for (size_t i = 0; i < links.size(); ++i) {
    links[i].t = &t;
    links[i].links = &links;
    links[i].on_done = &Link::end_next;
    REQUIRE(t.tier->plan(t.core(0), block_request(make_object(1), i * 64 * KiB, 4096), 1, links[i]));
  }
  t.tier->finish_load(t.core(0), *links[0].spans[0].frame, 1, {.ok = true});
  CHECK(Link::ended == links.size());
  CHECK(Link::depth_max == 1);
}

namespace {

struct ThreadPlan : TestPlan {
  ThreadPlan() {
    on_done = [](Plan& plan) {
      auto& self = static_cast<ThreadPlan&>(plan);
      ++self.done_count;
      self.done_on = std::this_thread::get_id();
    };
  }
  std::thread::id done_on;
};

std::unique_ptr<Reactor> make_kernel_reactor(unsigned core, Epochs& epochs) {
  Result<std::unique_ptr<Ring>> ring = create_uring({.sqes = limits::ring_sqes, .cqes = limits::ring_cqes});
  REQUIRE(ring.has_value());
  return std::make_unique<Reactor>(std::move(*ring),
                                   ReactorOptions{.core = core, .cqes = limits::ring_cqes, .epochs = &epochs});
}

}  // namespace

TEST_CASE("another core's plans are woken on that core, through the kernel's rings") {
  Arena arena;
  REQUIRE(arena.allocate(16 * MiB).has_value());
  Epochs epochs;
  MemoryTier tier({.arena = arena.bytes(), .epochs = &epochs});
  const ObjectId object = make_object(1);
  constexpr unsigned rounds = 50;
  constexpr unsigned plans_count = 100;
  std::latch other_made(1);
  std::latch all_ended(2);
  std::atomic<unsigned> rounds_waiting{0};
  unsigned right_thread = 0;
  unsigned right_copies = 0;

  std::thread other([&] {
    auto reactor = make_kernel_reactor(1, epochs);
    other_made.count_down();
    std::vector<ThreadPlan> plans(plans_count);
    for (unsigned round = 0; round < rounds; ++round) {
      // The main thread loads each round's block only when all of these wait for it.
      while (rounds_waiting.load(std::memory_order_acquire) != 2 * round + 1) reactor->turn(false);
      for (ThreadPlan& plan : plans)
        if (!tier.plan(*reactor, block_request(object, round * 64 * KiB, 4096), 1, plan)) std::abort();
      rounds_waiting.store(2 * round + 2, std::memory_order_release);
      for (ThreadPlan& plan : plans) {
        while (plan.waiters_pending > 0) reactor->turn(true);
        right_thread += plan.done_on == std::this_thread::get_id() && plan.done_count == round + 1 ? 1 : 0;
        std::byte bytes[4096];
        tier.copy(plan, round * 64 * KiB, 4096, bytes);
        right_copies += right_bytes(object, round * 64 * KiB, 4096, bytes) ? 1 : 0;
        tier.release(plan);
      }
    }
    all_ended.arrive_and_wait();
  });

  auto reactor = make_kernel_reactor(0, epochs);
  other_made.wait();
  for (unsigned round = 0; round < rounds; ++round) {
    TestPlan plan;
    REQUIRE(tier.plan(*reactor, block_request(object, round * 64 * KiB, 4096), 1, plan));
    REQUIRE(plan.blocks_to_load_count() == 1);
    rounds_waiting.store(2 * round + 1, std::memory_order_release);
    while (rounds_waiting.load(std::memory_order_acquire) != 2 * round + 2) reactor->turn(false);
    fill_blocks(tier, object, *plan.spans[0].frame, round * 64 * KiB, 1);
    tier.finish_load(*reactor, *plan.spans[0].frame, 1, {.ok = true});
    tier.release(plan);
    reactor->turn(false);
  }
  all_ended.arrive_and_wait();
  other.join();
  CHECK(right_thread == rounds * plans_count);
  CHECK(right_copies == rounds * plans_count);
  CHECK(tier.stats().pinned_frames == 0);
}

}  // namespace blobcache
