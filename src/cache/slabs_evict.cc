// Who goes. CLOCK with a second chance in each class, on recency in seconds: hits write last_used_s only when its second
// has changed, so there is no reference bit to clear; instead the hand notes the second it saw, and a frame that was used
// in a later second than that stays for another round. A frame that was read once (a scan) goes in the order it came.
//
// The hand looks at a bounded number of frames: 128 are some 10 us when every line is cold, less than the read that the
// eviction makes room for. If all of those were used since its last visit, the one used longest ago goes, which is sampled
// LRU. Frames that are pinned are passed by; when all within the bound are, the answer is null and the next call goes on
// from where the hand stands.
//
// First of all go the demoted (the kernel's page cache has their bytes), unless they were used again since.
//
// Classes trade slabs by age: a block frame is needed, but the coldest chunk frame was used before the coldest block frame:
// the chunk frame goes, and its slab is cut. A chunk frame is needed, but some cut slab's frames were last used, on
// average, before the coldest chunk frame: the slab is emptied whole. The average, because by its newest frame one hot
// 64 KiB would hold 4 MiB for ever, and by its oldest every cut slab would look cold. A slab with a pinned frame stays.
//
// The index is told with a try_lock on the victim's stripe: a stripe's holder never waits for our lock, but a victim that
// is being looked at just now is no good victim, and waiting for it would stop every other allocation.
#include <bit>

#include "base/assert.h"
#include "cache/slabs.h"

namespace blobcache {
namespace {

constexpr unsigned block_steps_max = 128;
constexpr unsigned chunk_steps_max = 64;
constexpr unsigned slab_steps_max = 4;
constexpr unsigned demoted_steps_max = 16;

bool looks_idle(const Frame& frame) { return frame.state.load(std::memory_order_acquire) == frame_linked; }
uint32_t last_used_s(const Frame& frame) { return frame.last_used_s.load(std::memory_order_relaxed); }

// One look of the hand: true: this one goes. Otherwise *best is the one used longest ago so far.
bool goes_at_once(Frame& frame, Frame** best) {
  const uint32_t used_s = last_used_s(frame);
  if (used_s <= frame.clock_seen_s) return true;
  frame.clock_seen_s = used_s;
  if (*best == nullptr || used_s < last_used_s(**best)) *best = &frame;
  return false;
}

}  // namespace

bool Slabs::try_evict(FrameKind kind) {
  Frame* demoted = pop_demoted(FrameKind::chunk);
  if (demoted == nullptr && kind == FrameKind::block) demoted = pop_demoted(FrameKind::block);
  if (demoted != nullptr) return try_evict_frame(*demoted);

  Frame* chunk = chunk_candidate();
  if (kind == FrameKind::block) {
    Frame* block = block_candidate();
    if (block == nullptr || (chunk != nullptr && last_used_s(*chunk) < last_used_s(*block))) block = chunk;
    return block != nullptr && try_evict_frame(*block);
  }
  uint32_t mean_s = 0;
  Slab* slab = emptiable_candidate(&mean_s);
  if (slab != nullptr && (chunk == nullptr || mean_s < last_used_s(*chunk))) return try_empty(*slab);
  return chunk != nullptr && try_evict_frame(*chunk);
}

Frame* Slabs::pop_demoted(FrameKind kind) {
  for (unsigned i = 0; i < demoted_steps_max; ++i) {
    Frame* frame = demoted_[static_cast<unsigned>(kind)].pop_front();
    if (frame == nullptr) return nullptr;
    if (last_used_s(*frame) == 0 && looks_idle(*frame)) return frame;
  }
  return nullptr;
}

Frame* Slabs::block_candidate() {
  Frame* best = nullptr;
  for (unsigned i = 0; i < block_steps_max && !cut_.empty(); ++i) {
    Slab& slab = *cut_.front();
    if (slab.hand == limits::blocks_per_chunk_frame) {
      slab.hand = 0;
      slab.unlink();
      cut_.push_back(slab);
      continue;
    }
    Frame& frame = block_frame(slab.number, slab.hand++);
    if (looks_idle(frame) && goes_at_once(frame, &best)) return &frame;
  }
  return best;
}

Frame* Slabs::chunk_candidate() {
  Frame* best = nullptr;
  for (unsigned i = 0; i < chunk_steps_max && !chunk_.empty(); ++i) {
    Slab& slab = *chunk_.front();
    slab.unlink();
    chunk_.push_back(slab);
    Frame& frame = chunk_frame(slab.number);
    if (looks_idle(frame) && goes_at_once(frame, &best)) return &frame;
  }
  return best;
}

// Of the next few cut slabs, the one without pins whose frames in use were used longest ago on average.
Slabs::Slab* Slabs::emptiable_candidate(uint32_t* last_used_s_mean) {
  Slab* best = nullptr;
  for (unsigned i = 0; i < slab_steps_max && !cut_.empty(); ++i) {
    Slab& slab = *cut_.front();
    slab.unlink();
    cut_.push_back(slab);
    uint64_t sum_s = 0;
    unsigned count = 0;
    bool pinned = false;
    for (unsigned block = 0; block < limits::blocks_per_chunk_frame && !pinned; ++block) {
      const Frame& frame = block_frame(slab.number, block);
      if (frame.in_limbo || (slab.free_blocks >> block & 1) != 0) continue;
      pinned = !looks_idle(frame);
      sum_s += last_used_s(frame);
      ++count;
    }
    if (pinned) continue;
    const auto mean_s = static_cast<uint32_t>(count == 0 ? 0 : sum_s / count);
    if (best != nullptr && mean_s >= *last_used_s_mean) continue;
    best = &slab;
    *last_used_s_mean = mean_s;
  }
  return best;
}

bool Slabs::try_evict_frame(Frame& frame) {
  if (!index_.remove_if_idle(frame, false)) return false;
  const auto valid_blocks = static_cast<unsigned>(std::popcount(frame.valid.load(std::memory_order_relaxed)));
  evicted_bytes_.fetch_add(valid_blocks * limits::block_bytes, std::memory_order_relaxed);
  put_in_limbo(frame);
  return true;
}

// All or nothing but for a race: a frame that was pinned meanwhile keeps the slab cut, and the others have gone early.
bool Slabs::try_empty(Slab& slab) {
  unsigned in_limbo = 0;
  for (unsigned block = 0; block < limits::blocks_per_chunk_frame; ++block) {
    Frame& frame = block_frame(slab.number, block);
    if ((slab.free_blocks >> block & 1) != 0) continue;
    if (!frame.in_limbo && !try_evict_frame(frame)) return false;
    ++in_limbo;
  }
  BC_ASSERT(slab.use == Use::cut && in_limbo > 0);
  limbo_count_[static_cast<unsigned>(FrameKind::block)] -= in_limbo;
  free_blocks_ -= static_cast<unsigned>(std::popcount(slab.free_blocks));
  if (slab.partial.linked()) slab.partial.unlink();
  slab.unlink();
  slab.use = Use::emptying;
  ++emptying_slabs_;
  return true;
}

}  // namespace blobcache
