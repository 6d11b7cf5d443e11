// pool_bench: how long the pair acquire + release of a buffer takes on the serving path, and nothing else (P8).
//
// A slot of Pool<T> is what carries a registered buffer through a request: it is handed out at the first byte and taken
// back at the last CQE. Two shapes, because a stack of free indices is at its best when the same slot comes back:
//   slot        one out, one in: the slot is always in the first cache level
//   slots_deep  32 out, then 32 in, in another order, as at queue depth 32
// Each prints nanoseconds per pair. Whether anything is allocated is counted from outside (alloc_counter).

#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/pool.h"

namespace {

using blobcache::Pool;

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

struct Case {
  std::string_view name;
  const char* what;
  void (*cycle)(Pool<Slot>& pool, uint64_t pairs);
};
constexpr Case cases[] = {
    {"slot", "slot with its registered buffer", cycle_one},
    {"slots_deep", "slot with its registered buffer, 32 out at a time", cycle_deep},
};

double nanoseconds_per_pair(const Case& chosen, uint64_t pairs) {
  Pool<Slot> pool(slots);
  const auto begin = std::chrono::steady_clock::now();
  chosen.cycle(pool, pairs);
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
  if (pool.free_count() != slots) std::abort();
  return took.count() / static_cast<double>(pairs);
}

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
    std::printf("%.4f\n", nanoseconds_per_pair(each, pairs));
    return 0;
  }
  std::fprintf(stderr, "usage: pool_bench --list | NAME PAIRS\n");
  return 2;
}
