// Epochs: when may memory that a lock-free reader might still look at be used again?
//
// Readers of the shared tables (index, frames) run on cores, take no lock and write no shared line. What a writer unlinks
// must not be reused while a reader that found it earlier is still copying. Readers never keep such a pointer across a
// turn of their reactor without a pin, so it is enough that every core has passed the end of a turn since the unlink.
//   Thread    enter/leave: the core's own. retire, all_passed: any thread
//   Lifetime  outlives the cores
//   Protocol  writer: unlink; stamp = retire(); ... reuse only when all_passed(stamp)
//             core:   enter(core) after each wait, leave(core) before each wait (a sleeping core holds nobody up)
// Quiescent-state-based reclamation: McKenney, "Read-Copy Update"; here the quiescent state is io_uring_enter.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/limits.h"

namespace blobcache {

class Epochs {
 public:
  void enter(unsigned core) {
    // The reads of this turn must not come before the announcement; those of the turns before must be over for who sees it.
    // On x86 the fence costs what a seq_cst store did, which arm64 lets later reads pass.
    slots_[core].seen.store(now_.load(std::memory_order_relaxed), std::memory_order_release);
    fence();
  }
  void leave(unsigned core) { slots_[core].seen.store(asleep, std::memory_order_release); }

  uint64_t retire() {
    const uint64_t stamp = now_.fetch_add(1, std::memory_order_seq_cst) + 1;
    // Either the core's reads see what was unlinked, or we see its announcement (pairs with the fence in enter()).
    fence();
    return stamp;
  }

  bool all_passed(uint64_t stamp) const {
    for (const Slot& slot : slots_) {
      const uint64_t seen = slot.seen.load(std::memory_order_seq_cst);
      if (seen != asleep && seen < stamp) return false;
    }
    return true;
  }

 private:
  void fence() {
#if defined(__SANITIZE_THREAD__)
    // ThreadSanitizer knows no fences; an operation on one variable of both sides orders as much.
    fenced_.fetch_add(1, std::memory_order_seq_cst);
#else
    std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
  }

  static constexpr uint64_t asleep = ~uint64_t{0};
  struct alignas(64) Slot {
    std::atomic<uint64_t> seen{asleep};
  };
  std::atomic<uint64_t> now_{1};
#if defined(__SANITIZE_THREAD__)
  std::atomic<uint64_t> fenced_{0};
#endif
  Slot slots_[limits::cores_max];
};

}  // namespace blobcache
