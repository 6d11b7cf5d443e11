// Frame: the descriptor of one frame of the arena. What a hit reads is one cache line; what misses and eviction write is
// the next one, recency and pins excepted.
//   Owner     Slabs, which makes them all at start and never frees one: a stale pointer always points at a Frame
//   Thread    the first line: any, as each member says; the second: as each member says
//   States    free -> (allocated by Slabs) private, one pin -> (FrameIndex::insert) linked -> (unlinked) orphan while pins
//             remain -> limbo -> (every core has passed a turn) free
//   Invariant valid bits are only ever added while a frame is linked or pinned; they are cleared when it leaves limbo
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/limits.h"
#include "base/list.h"
#include "base/object_id.h"
#include "cache/memory_tier.h"

namespace blobcache {

// Frame::state: whether the index leads to it, and how many pins it has. At 0 the frame belongs to nobody, and whoever
// brought it there gives it to Slabs.
inline constexpr uint32_t frame_linked = 1u << 31;
inline constexpr uint32_t frame_pins = frame_linked - 1;

struct alignas(64) FrameHot {
  // Written before the frame is linked, by the core that allocated it.
  ObjectId object;
  uint64_t position = 0;  // offset in the object, in frames of this kind
  uint8_t stripe = 0;
  FrameKind kind = FrameKind::block;     // for ever
  std::atomic<uint32_t> last_used_s{0};  // any core, only when it changes
  std::atomic<Frame*> chain{nullptr};    // next in the bucket; under the stripe's lock, read by anyone
  std::atomic<uint64_t> valid{0};        // blocks whose bytes are the object's; under the stripe's lock, read by anyone
  std::byte* data = nullptr;             // for ever
  // Pins are added under the stripe's lock and taken away by anyone, so "no pins" under the lock stays true.
  std::atomic<uint32_t> state{0};
};
static_assert(sizeof(FrameHot) == 64);

struct Frame : FrameHot, ListNode {  // the node: in limbo, or among the demoted; under the lock of Slabs
  // Under the stripe's lock:
  uint64_t loading = 0;  // blocks that somebody loads; not 0: the load holds a pin of its own
  List<Waiter> waiters;
  // Under the lock of Slabs:
  uint64_t retire_stamp = 0;
  uint32_t clock_seen_s = 0;  // last_used_s when the hand last came by
  uint32_t slab = 0;          // for ever
  uint8_t block = 0;          // of the slab, for ever
  bool in_limbo = false;

  size_t size() const { return kind == FrameKind::chunk ? limits::chunk_frame_bytes : limits::block_bytes; }
  uint64_t offset() const { return position * size(); }
  void touch(uint32_t now_s) {
    if (last_used_s.load(std::memory_order_relaxed) != now_s) last_used_s.store(now_s, std::memory_order_relaxed);
  }
};
static_assert(sizeof(Frame) == 128);

// Blocks [first, last] of a chunk frame as bits.
inline uint64_t block_bits(unsigned first, unsigned last) {
  return (~uint64_t{0} >> (limits::blocks_per_chunk_frame - 1 - last)) & (~uint64_t{0} << first);
}

}  // namespace blobcache
