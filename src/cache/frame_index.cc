// The index is chains of frames under atomic heads. Writers hold the stripe's lock; readers hold nothing:
//
// - A frame is complete before the release store that links it, and readers come to it by acquire loads.
// - remove() takes the frame out of the chain and leaves its own `chain` as it was, so a reader that stands on it walks on.
// - A removed frame changes nothing a reader looks at until Slabs reuses it, and Slabs reuses it only after every core has
//   passed a turn. A reader's walk and its copy lie within one turn. So a reader sees the old frame whole, or not at all,
//   and whatever it reaches over an old chain pointer was unlinked within its own turn, hence is not reused either.
//
// Each stripe has its own part of the table, because a bucket must belong to one lock, while a position's chunk frame and
// its 64 block frames (other hashes, other buckets) must share one. Buckets chosen first and locks by bucket would have
// needed two locks to decide whether a block is to be loaded into a chunk frame or a block frame.
#include "cache/frame_index.h"

#include "base/assert.h"

namespace blobcache {

void FrameIndex::insert(Frame& frame) {
  BC_ASSERT(frame.state.load(std::memory_order_relaxed) == 1 && frame.valid.load(std::memory_order_relaxed) == 0);
  Bucket* head = bucket_of(frame);
  frame.chain.store(head->load(std::memory_order_relaxed), std::memory_order_relaxed);
  frame.state.store(frame_linked | 1, std::memory_order_release);
  head->store(&frame, std::memory_order_release);
}

uint32_t FrameIndex::remove(Frame& frame) {
  Bucket* link = bucket_of(frame);
  while (link->load(std::memory_order_relaxed) != &frame) {
    BC_ASSERT(link->load(std::memory_order_relaxed) != nullptr);
    link = &link->load(std::memory_order_relaxed)->chain;
  }
  link->store(frame.chain.load(std::memory_order_relaxed), std::memory_order_release);
  const uint32_t before = frame.state.fetch_and(~frame_linked, std::memory_order_acq_rel);
  BC_ASSERT((before & frame_linked) != 0);
  return before & frame_pins;
}

bool FrameIndex::remove_if_idle(Frame& frame, bool lock_wait) {
  if (frame.state.load(std::memory_order_acquire) != frame_linked) return false;
  Spinlock& stripe_lock = lock(frame.stripe);
  if (lock_wait)
    stripe_lock.lock();
  else if (!stripe_lock.try_lock())
    return false;
  // Acquire: the last unpin of a core that copied from it comes before its reuse.
  const bool idle = frame.state.load(std::memory_order_acquire) == frame_linked;
  if (idle) {
    BC_ASSERT(frame.loading == 0 && frame.waiters.empty());
    remove(frame);
  }
  stripe_lock.unlock();
  return idle;
}

}  // namespace blobcache
