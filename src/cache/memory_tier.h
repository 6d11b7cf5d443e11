// MemoryTier: L0. Frames of the arena, found by (object, position), shared by all cores.
//   Owner     Node.      Thread  any core; helper threads for statistics only
//   Lifetime  built before the cores start, destroyed after they have ended
//   Frames    two classes: a chunk frame (4 MiB, 64 blocks, partly valid) for scans and prefetch, a block frame (64 KiB) for
//             random and small reads. A slab of the arena is one chunk frame or cut into 64 block frames, and changes
//             class when the other needs it more.
//   Hits      try_copy takes no lock and writes no shared line (recency only when its second has changed)
//   Misses    plan() pins the frames of a range and names the blocks nobody loads yet: the caller loads them and says so
//             with finish_load(). Everyone, the loader too, waits with a Waiter; so a block is loaded once (single-flight).
//   Limits    pinned frames are the callers' requests in flight; plan() says again when all frames are pinned
//   Invariant a pinned frame is never reused; a block is valid only while its bytes are the object's; a frame taken out
//             of the index is reused only when every core has passed a turn (base/epoch.h)
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/epoch.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/object_id.h"
#include "base/result.h"
#include "ring/reactor.h"

namespace blobcache {

enum class FrameKind : uint8_t { block, chunk };

struct Frame;

// Waits for blocks of one frame. Belongs to a Plan; on_done of the plan runs on the home core when no waiter is pending.
struct Plan;
struct Waiter : ListNode, Message {
  Plan* plan = nullptr;
  uint64_t blocks = 0;   // wanted, as bits of the frame
  bool pending = false;  // in the frame's list, or its message under way
  // The tier's own:
  bool in_frame = false;  // in the frame's list; under its lock
  bool failed = false;
  bool abandoned = false;
  Error error{};
  uint8_t sources = 0;  // of the loads that brought part of it so far
  Reactor* sender = nullptr;
  std::atomic<bool> woken{false};
};

// What a range needs. Pins its frames from plan() to release(). Never moved while waiting.
struct Plan {
  static constexpr unsigned spans_max = 8;
  struct Span {
    Frame* frame = nullptr;
    uint64_t offset = 0;          // of the frame in the object
    uint64_t blocks = 0;          // of the frame that the range touches, as bits
    uint64_t blocks_to_load = 0;  // of those, the ones that this plan's owner must load
    Waiter waiter;
  };
  Span spans[spans_max];
  unsigned span_count = 0;
  unsigned waiters_pending = 0;
  bool failed = false;
  bool abandoned = false;  // failed, since a load was abandoned: planned again it finds other frames
  Error error{};           // of the first load that failed
  uint8_t sources = 0;     // LoadOutcome::source of the loads that were waited for, as bits
  Reactor* home = nullptr;
  // Runs on the home core each time waiters_pending has come down to 0.
  void (*on_done)(Plan& plan) = nullptr;
};

struct PlanRequest {
  ObjectId object;
  uint64_t object_bytes = 0;
  uint64_t offset = 0;                // offset + bytes <= object_bytes
  uint32_t bytes = 0;                 // > 0
  FrameKind kind = FrameKind::block;  // of frames that do not exist yet
};

// How a load ended.
struct LoadOutcome {
  bool ok = false;
  bool keep = true;  // false: right for those who wait, but not to be found by anyone later
  Error error{};
  uint8_t source = 0;  // 0-7: where the bytes came from, in the caller's own numbers
};

struct MemoryTierStats {
  uint64_t arena_bytes = 0;
  uint64_t used_bytes = 0;  // frames that hold an object
  uint64_t pinned_frames = 0;
  uint64_t chunk_frames = 0;  // in use
  uint64_t block_frames = 0;
  uint64_t evicted_bytes = 0;   // valid ones that were taken out for others
  uint64_t metadata_bytes = 0;  // descriptors and index, outside the arena
};

class MemoryTier {
 public:
  struct Options {
    std::span<std::byte> arena;  // a multiple of 4 MiB, 4 MiB of it at least twice
    // The ring's registered buffer that arena byte i lies in is buffer_index_first + i / limits::ring_buffer_bytes_max.
    unsigned buffer_index_first = 0;
    Epochs* epochs = nullptr;
  };
  explicit MemoryTier(const Options& options);
  ~MemoryTier();
  MemoryTier(const MemoryTier&) = delete;
  MemoryTier& operator=(const MemoryTier&) = delete;

  // Memory for descriptors and index beside an arena of this size, 0.23 % of it in steps of 2 MiB: for the memory plan.
  static size_t metadata_bytes(size_t arena_bytes);

  // The hit: copies bytes [offset, offset + bytes) of object to `to` and says true if all of them are valid here; else
  // false, with `to` in any state. Between Epochs::enter and leave only. now_s: coarse seconds, for recency.
  bool try_copy(const ObjectId& object, uint64_t offset, uint32_t bytes, std::byte* to, uint32_t now_s);

  // The miss: pins the frames of the range, marks the blocks that nobody has as loading (spans' blocks_to_load), and hangs
  // a waiter on each frame of which something is still missing. waiters_pending == 0 afterwards: everything is valid.
  // Spans are in the order of positions; a chunk frame's come before the block frames' of the same 4 MiB. on_done must be
  // set. Errors: again (every frame is pinned, or was evicted in this turn: repeat a turn later), invalid (more than
  // spans_max frames).
  Result<void> plan(Reactor& home, const PlanRequest& request, uint32_t now_s, Plan& plan);

  // Ends the load of `blocks` (a subset of what plan() gave to this caller). Wakes whoever waited for them, on their cores.
  // This core's on_done run before it returns, unless it was called from within an on_done: then when that has returned.
  // No read into the blocks may be in flight any more. The frame may be gone afterwards.
  void finish_load(Reactor& here, Frame& frame, uint64_t blocks, const LoadOutcome& outcome);

  // The load of `blocks` hangs. Whoever waits for them is woken with Plan::abandoned, as finish_load would wake him, and the
  // frame leaves the index: the next plan makes another. Its bytes stay the load's until finish_load.
  void abandon_load(Reactor& here, Frame& frame, uint64_t blocks);

  // Stops waiting (interrupt, deadline). Loads go on. When it returns, waiters_pending counts only those whose wake-up is
  // already under way to this core; on_done runs when they have arrived.
  void cancel_waits(Plan& plan);

  // Copies out of a plan's frames after its waits ended without error. [offset, offset+bytes) as planned or less.
  void copy(const Plan& plan, uint64_t offset, uint32_t bytes, std::byte* to) const;

  // Unpins. waiters_pending must be 0.
  void release(Plan& plan);

  // One pin more on a frame that is pinned already (by a plan, or by the load of some of its blocks), and back.
  void hold(Frame& frame);
  void unhold(Frame& frame);
  // Whether try_copy of the range would find all of it. Within a turn.
  bool holds(const ObjectId& object, uint64_t offset, uint64_t bytes) const;
  // Whether a part of the range is on its way into a frame. Within a turn.
  bool loads(const ObjectId& object, uint64_t offset, uint64_t bytes) const;

  // The bytes behind a frame's block, and the registered buffer they lie in.
  std::byte* frame_bytes(const Frame& frame) const;
  size_t frame_size(const Frame& frame) const;
  unsigned buffer_index(const Frame& frame) const;

  // The page cache has these bytes now: first to go when a frame is needed.
  void demote(const ObjectId& object, uint64_t offset);
  // Valid bytes of an object in memory, for stat.
  uint64_t cached_bytes(const ObjectId& object, uint64_t object_bytes) const;
  // Drops all frames of an object that are not pinned.
  void drop(const ObjectId& object, uint64_t object_bytes);
  MemoryTierStats stats() const;

 private:
  struct State;
  State* state_;
};

}  // namespace blobcache
