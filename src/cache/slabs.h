// Slabs: which frame of the arena is free, and which goes when none is.
//   Owner     MemoryTier
//   Thread    any; one lock for all of it, taken for misses and retirements, never for hits
//   Slabs     4 MiB of the arena: free, one chunk frame, cut into 64 block frames, or emptying (being won back from cut)
//   Limits    try_allocate looks at a bounded number of frames and returns null rather than search on
//   Invariant a frame leaves limbo only when every core has passed a turn since it was unlinked
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "base/epoch.h"
#include "base/list.h"
#include "base/spinlock.h"
#include "cache/frame.h"
#include "cache/frame_index.h"

namespace blobcache {

class Slabs {
 public:
  static constexpr unsigned frames_per_slab = 1 + limits::blocks_per_chunk_frame;

  struct Options {
    std::span<std::byte> arena;
    Frame* frames = nullptr;  // frames_per_slab for each slab, constructed here, in memory that lives longer
    FrameIndex* index = nullptr;
    Epochs* epochs = nullptr;
  };
  explicit Slabs(const Options& options);
  ~Slabs();
  Slabs(const Slabs&) = delete;
  Slabs& operator=(const Slabs&) = delete;

  // A private frame with one pin and no valid block; the caller sets object, position and stripe. Null: everything is
  // pinned or in limbo; repeat a turn later.
  Frame* try_allocate(FrameKind kind, uint32_t now_s);
  // A frame from try_allocate that was never linked.
  void give_back(Frame& frame);
  // A frame whose state has come down to 0.
  void retire(Frame& frame);
  // First to go. frame was found in this turn.
  void demote(Frame& frame);

  unsigned slab_count() const { return slab_count_; }
  // Calls f(Frame&) for each frame that may be in use. Within a turn; f looks at the frame's state before anything else.
  template <class F>
  void for_each_frame(F&& f) const {
    for (unsigned i = 0; i < slab_count_; ++i) {
      f(chunk_frame(i));
      if (!slabs_[i].is_cut.load(std::memory_order_acquire)) continue;
      for (unsigned block = 0; block < limits::blocks_per_chunk_frame; ++block) f(block_frame(i, block));
    }
  }
  // Adds what it knows to stats.
  void add_to(MemoryTierStats& stats) const;

 private:
  enum class Use : uint8_t { free, chunk, cut, emptying };
  struct Slab;
  struct Partial : ListNode {
    Slab* slab = nullptr;
  };
  struct Slab : ListNode {     // in free_, chunk_ or cut_ by its use; in none while emptying
    Partial partial;           // in partial_ while cut with a free block
    uint64_t free_blocks = 0;  // cut, emptying
    uint32_t number = 0;
    Use use = Use::free;
    uint8_t hand = 0;  // cut: the block that the hand of the clock looks at next
    std::atomic<bool> is_cut{false};
  };

  Frame& chunk_frame(unsigned slab) const { return frames_[slab * frames_per_slab]; }
  Frame& block_frame(unsigned slab, unsigned block) const { return frames_[slab * frames_per_slab + 1 + block]; }

  // slabs.cc; all under lock_
  Frame* take(FrameKind kind);
  void cut(Slab& slab);
  void put_free(Frame& frame);
  void put_in_limbo(Frame& frame);
  void reclaim();
  void make_free(Slab& slab);
  uint64_t supply(FrameKind kind) const;

  // slabs_evict.cc; all under lock_
  bool try_evict(FrameKind kind);
  Frame* pop_demoted(FrameKind kind);
  Frame* block_candidate();
  Frame* chunk_candidate();
  Slab* emptiable_candidate(uint32_t* last_used_s_mean);
  bool try_evict_frame(Frame& frame);
  bool try_empty(Slab& slab);

  Frame* const frames_;
  FrameIndex& index_;
  Epochs& epochs_;
  const unsigned slab_count_;
  const uint64_t reserve_[2];    // by kind: evict ahead below this supply
  const uint64_t limbo_max_[2];  // by kind: do not evict ahead beyond this
  std::unique_ptr<Slab[]> slabs_;

  Spinlock lock_;
  List<Slab> free_;
  List<Slab> chunk_;  // front: where the hand is
  List<Slab> cut_;
  List<Partial> partial_;
  List<Frame> limbo_;  // oldest stamp first
  uint64_t newest_stamp_ = 0;
  List<Frame> demoted_[2];
  uint64_t free_slabs_ = 0;
  uint64_t emptying_slabs_ = 0;
  uint64_t free_blocks_ = 0;          // of cut slabs
  uint64_t limbo_count_[2] = {0, 0};  // by kind; blocks of emptying slabs not counted

  // Written under lock_, read by stats.
  std::atomic<uint64_t> used_[2] = {0, 0};
  std::atomic<uint64_t> evicted_bytes_{0};
};

}  // namespace blobcache
