// Prints what a hit and a miss cost; asserts nothing about time, only that the work was done.
#include <chrono>

#include <doctest/doctest.h>

#include "unit/cache/tier_fixture.h"

namespace blobcache {

using namespace test;

namespace {

template <class F>
double ns_each(unsigned rounds, F&& f) {
  double best = 1e18;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const auto begin = std::chrono::steady_clock::now();
    for (unsigned i = 0; i < rounds; ++i) f(i);
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - begin;
    if (taken.count() / rounds < best) best = taken.count() / rounds;
  }
  return best;
}

}  // namespace

TEST_CASE("what a hit, a miss and its end cost") {
  TestTier t(128 * MiB);
  const ObjectId small = make_object(1);
  const ObjectId whole = make_object(2);
  constexpr uint64_t blocks = 800;
  for (uint64_t i = 0; i < blocks; ++i) REQUIRE(t.bring_in(block_request(small, i * 64 * KiB, 64 * KiB)));
  for (uint64_t i = 0; i < 12; ++i) REQUIRE(t.bring_in(chunk_request(whole, i * 4 * MiB, 4 * MiB)));
  alignas(64) static std::byte to[4096];
  constexpr unsigned rounds = 100000;
  uint64_t hits = 0;
  // The same pattern of pages for all three, so that the copies cost the same.
  const auto offset = [](unsigned i, uint64_t pages) { return (i * uint64_t{7919}) % pages * 4096; };
  const double chunk_ns =
      ns_each(rounds, [&](unsigned i) { hits += t.tier->try_copy(whole, offset(i, 12 * 1024), 4096, to, 1) ? 1 : 0; });
  const double block_ns = ns_each(
      rounds, [&](unsigned i) { hits += t.tier->try_copy(small, offset(i, blocks * 16), 4096, to, 1) ? 1 : 0; });
  CHECK(hits == 10 * rounds);
  const std::byte* bytes = t.arena.bytes().data();
  const double copy_ns = ns_each(rounds, [&](unsigned i) {
    std::memcpy(to, bytes + offset(i, 12 * 1024), 4096);
    asm volatile("" ::"r"(to) : "memory");
  });
  const double lookup_ns =
      ns_each(rounds, [&](unsigned i) { hits += t.tier->try_copy(small, offset(i, blocks * 16), 8, to, 1) ? 1 : 0; });
  const double miss_ns = ns_each(rounds, [&](unsigned i) {
    hits += t.tier->try_copy(small, huge_object / 2 + offset(i, 1024), 4096, to, 1) ? 1 : 0;
  });
  CHECK(hits == 15 * rounds);
  TestPlan plan;
  uint64_t planned = 0;
  const double plan_ns = ns_each(rounds, [&](unsigned i) {
    planned += t.tier->plan(t.core(0), block_request(small, offset(i, blocks * 16), 4096), 1, plan).has_value() ? 1 : 0;
    t.tier->release(plan);
  });
  CHECK(planned == 5 * rounds);
  MESSAGE("try_copy 4 KiB: chunk frame ", chunk_ns, " ns, block frame ", block_ns, " ns; memcpy alone ", copy_ns,
          " ns; 8 bytes of a block frame ", lookup_ns, " ns; a miss ", miss_ns, " ns; plan + release of a valid block ",
          plan_ns, " ns");

  // Each round evicts: plan of a new block, end of its load, release, a turn of both cores.
  const double evicting_ns = ns_each(20000, [&](unsigned i) {
    if (t.tier->plan(t.core(0), block_request(make_object(3 + i % 64), i * 64 * KiB, 4096), 1, plan)) {
      if (plan.spans[0].blocks_to_load != 0)
        t.tier->finish_load(t.core(0), *plan.spans[0].frame, plan.spans[0].blocks_to_load, {.ok = true});
      t.tier->release(plan);
      ++planned;
    }
    t.turn();
  });
  const double turn_ns = ns_each(20000, [&](unsigned) { t.turn(); });
  CHECK(planned == 5 * rounds + 5 * 20000);
  MESSAGE("plan + finish_load + release with eviction ", evicting_ns - turn_ns, " ns");
}

}  // namespace blobcache
