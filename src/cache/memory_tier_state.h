// MemoryTier::State: what the two source files of the tier share.
//   Thread    as MemoryTier's functions say
#pragma once

#include <memory>

#include "base/memory.h"
#include "cache/frame.h"
#include "cache/frame_index.h"
#include "cache/memory_tier.h"
#include "cache/slabs.h"

namespace blobcache {

struct MemoryTier::State {
  explicit State(const Options& tier_options);

  // One position of a plan: the 4 MiB at chunk_position * chunk_frame_bytes.
  struct Position {
    const ObjectId& object;
    uint64_t chunk_position;
    unsigned stripe;
    uint64_t blocks;  // wanted, as bits of the chunk
    FrameKind kind;   // of frames to make
    bool small;       // block frames that exist may be used
  };
  Result<void> pin_position(const Position& position, uint32_t now_s, Plan& plan);
  void pin_existing(const Position& position, uint64_t* rest, Plan& plan);
  void add_span(Plan& plan, Frame& frame, uint64_t blocks);
  void link_fresh(const Position& position, Frame& frame, uint64_t* rest, Plan& plan);
  void claim(Plan& plan, Plan::Span& span);

  // Under the stripe's lock.
  void pin(Frame& frame);
  // Anywhere; the frame may be gone afterwards.
  void unpin(Frame& frame);
  void unpin_empty(Frame& frame);
  uint32_t drop_pin(Frame& frame);

  static void on_wake(Op& op, int32_t result, uint32_t flags);
  static void deliver(Waiter& waiter);
  void wake(Reactor& here, List<Waiter>& woken);

  // Calls f(Frame&) for each linked frame of the object. Within a turn.
  template <class F>
  void for_each_frame_of(const ObjectId& object, uint64_t object_bytes, F&& f);

  // Waiters of one core that its own finish_load has to call.
  struct alignas(64) Calls {
    List<Waiter> waiters;
    bool running = false;
  };

  const Options options;
  Arena metadata;  // the frames, then the buckets
  std::unique_ptr<FrameIndex> index;
  std::unique_ptr<Slabs> slabs;
  std::atomic<uint64_t> pinned_frames{0};
  Calls calls[limits::cores_max];  // by core
};

}  // namespace blobcache
