// pool_bench: how long the pair acquire + release of a buffer takes on the serving path, and nothing else (P8).
//
// A slot of Pool<T> is what carries a registered buffer through a request: it is handed out at the first byte and taken
// back at the last CQE. Two shapes, because a stack of free indices is at its best when the same slot comes back:
//   slot        one out, one in: the slot is always in the first cache level
//   slots_deep  32 out, then 32 in, in another order, as at queue depth 32
// A frame of L0 is a registered buffer that is shared by all cores and found by its content, so its pair costs a look-up,
// a lock and two atomic counts more. Hits do not take it (they copy within a turn), misses and chains do:
//   frame       MemoryTier::plan + release of a 64 KiB frame that is in memory, random over 1,024 of them
// Each prints nanoseconds per pair. Whether anything is allocated is counted from outside (alloc_counter).

#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/memory.h"
#include "base/pool.h"
#include "cache/memory_tier.h"
#include "ring/uring.h"

namespace {

using namespace blobcache;

constexpr uint32_t slots = 512;  // fuse.max_background
constexpr unsigned depth = 32;
static_assert(slots > depth && (depth & (depth - 1)) == 0);

// As large as a request slot: neighbours do not share a cache line.
struct alignas(64) Slot {
  std::byte* buffer;
  uint16_t buffer_index;
  std::byte rest[112];
};

// The compiler must believe that somebody uses the slot.
void use(Slot* slot) { asm volatile("" : : "r"(slot) : "memory"); }

Slot* acquire(Pool<Slot>& pool) {
  Slot* slot = pool.try_acquire();
  if (slot == nullptr) std::abort();
  use(slot);
  return slot;
}

void cycle_one(Pool<Slot>& pool, uint64_t pairs) {
  for (uint64_t i = 0; i < pairs; ++i) pool.release(*acquire(pool));
}

void cycle_deep(Pool<Slot>& pool, uint64_t pairs) {
  Slot* out[depth];
  for (uint64_t done = 0; done < pairs; done += depth) {
    for (Slot*& slot : out) slot = acquire(pool);
    for (unsigned i = 0; i < depth; ++i) pool.release(*out[(i * 11) % depth]);  // 11 is odd: a permutation
  }
}

using Duration = std::chrono::duration<double, std::nano>;

template <void (*cycle)(Pool<Slot>& pool, uint64_t pairs)>
Duration time_pool(uint64_t pairs) {
  Pool<Slot> pool(slots);
  const auto begin = std::chrono::steady_clock::now();
  cycle(pool, pairs);
  const Duration took = std::chrono::steady_clock::now() - begin;
  if (pool.free_count() != slots) std::abort();
  return took;
}

constexpr uint64_t frames = 1024;
constexpr size_t frame_bytes = limits::block_bytes;

PlanRequest request_of_frame(uint64_t index) {
  return {.object = {{1, 2}},
          .object_bytes = frames * frame_bytes,
          .offset = index * frame_bytes,
          .bytes = 4096,
          .kind = FrameKind::block};
}

// Every frame valid: what a plan for any of them finds.
void load_all(MemoryTier& tier, Reactor& reactor, Plan& plan) {
  for (uint64_t i = 0; i < frames; ++i) {
    if (!tier.plan(reactor, request_of_frame(i), 1, plan) || plan.span_count != 1) std::abort();
    tier.finish_load(reactor, *plan.spans[0].frame, plan.spans[0].blocks_to_load, {.ok = true});
    tier.release(plan);
  }
}

Duration time_frames(uint64_t pairs) {
  Epochs epochs;
  Arena arena;
  auto ring = create_uring({.sqes = 8, .cqes = 16});
  if (!ring || !arena.allocate(2 * frames * frame_bytes)) std::abort();
  Reactor reactor(std::move(*ring), {.core = 0, .cqes = 16, .epochs = &epochs});
  MemoryTier tier({.arena = arena.bytes(), .epochs = &epochs});
  Plan plan;
  plan.on_done = [](Plan&) {};
  load_all(tier, reactor, plan);
  uint64_t random = 1;
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t i = 0; i < pairs; ++i) {
    random = random * 6364136223846793005 + 1442695040888963407;  // Knuth's MMIX
    if (!tier.plan(reactor, request_of_frame(random >> 54), 1, plan) || plan.waiters_pending != 0) std::abort();
    tier.release(plan);
  }
  return std::chrono::steady_clock::now() - begin;
}
static_assert(frames == 1 << 10, "the top 10 bits of the random number choose a frame");

struct Case {
  std::string_view name;
  const char* what;
  Duration (*time)(uint64_t pairs);
};
constexpr Case cases[] = {
    {"slot", "slot with its registered buffer", time_pool<cycle_one>},
    {"slots_deep", "slot with its registered buffer, 32 out at a time", time_pool<cycle_deep>},
    {"frame", "frame in L0, by content, for a miss or a chain", time_frames},
};

}  // namespace

int main(int argc, char** argv) {
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name == "--list") {
    for (const Case& each : cases) std::printf("%s %s\n", each.name.data(), each.what);
    return 0;
  }
  const std::string_view count = argc == 3 ? argv[2] : "";
  uint64_t pairs = 0;
  std::from_chars(count.data(), count.data() + count.size(), pairs);
  for (const Case& each : cases) {
    if (each.name != name || pairs == 0) continue;
    std::printf("%.4f\n", each.time(pairs).count() / static_cast<double>(pairs));
    return 0;
  }
  std::fprintf(stderr, "usage: pool_bench --list | NAME PAIRS\n");
  return 2;
}
