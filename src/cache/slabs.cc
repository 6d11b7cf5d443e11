// Two classes of frames live in one arena. A fixed share for each would be wrong for somebody, so a slab is either one
// chunk frame or 64 block frames and changes sides: a chunk frame that goes leaves a free slab, which is cut when a block
// is needed; a cut slab becomes free when all its blocks are, by chance or because it was emptied on purpose.
//
//   free --take chunk--> chunk --retired, turn passed--> free
//   free --take block--> cut --all blocks free--> free
//                        cut --try_empty--> emptying --all blocks free--> free
//
// Limbo. A frame that was unlinked may still be read by a core in the turn it is in, so it waits in limbo until every core
// has passed the end of a turn, the unlinking core too. Without more, a full cache would answer each miss with "again": the
// frame just evicted is never the frame that can be taken. So allocation evicts ahead: whenever the supply of a class
// (free, or free after the next turn) falls below its reserve, one or two frames are evicted beside the one that is taken.
// The reserve covers the misses that come in one turn: 64 block frames (4 MiB) and 8 chunk frames, at most a sixteenth of
// the arena each. A larger burst does get null, and what it failed to get is evicted then, up to an eighth of the arena, so
// that the repetition a turn later finds as many as were missing. Only a class that is being allocated from keeps a reserve.
//
// The check of limbo costs a look at every core's slot (64 lines, rarely written); the newest frame is asked first, because
// when that one is through, all are: one check a turn in the usual case.
#include "cache/slabs.h"

#include <bit>
#include <mutex>
#include <new>

#include "base/assert.h"

namespace blobcache {
namespace {

constexpr uint64_t all_blocks = ~uint64_t{0};
constexpr unsigned blocks_per_slab = limits::blocks_per_chunk_frame;

uint64_t at_most(uint64_t value, uint64_t bound) { return value < bound ? value : bound; }
unsigned by_kind(FrameKind kind) { return static_cast<unsigned>(kind); }

}  // namespace

Slabs::Slabs(const Options& options)
    : frames_(options.frames),
      index_(*options.index),
      epochs_(*options.epochs),
      slab_count_(static_cast<unsigned>(options.arena.size() / limits::chunk_frame_bytes)),
      reserve_{at_most(64, uint64_t{slab_count_} * blocks_per_slab / 16), at_most(8, (slab_count_ + 8) / 16)},
      limbo_max_{uint64_t{slab_count_} * blocks_per_slab / 8 + 1, slab_count_ / 8 + 1},
      slabs_(std::make_unique<Slab[]>(slab_count_)) {
  for (unsigned i = 0; i < slab_count_; ++i) {
    std::byte* data = options.arena.data() + i * limits::chunk_frame_bytes;
    for (unsigned j = 0; j < frames_per_slab; ++j) {
      Frame& frame = *new (&frames_[i * frames_per_slab + j]) Frame;
      frame.kind = j == 0 ? FrameKind::chunk : FrameKind::block;
      frame.block = static_cast<uint8_t>(j == 0 ? 0 : j - 1);
      frame.slab = i;
      frame.data = data + frame.block * limits::block_bytes;
    }
    slabs_[i].number = i;
    slabs_[i].partial.slab = &slabs_[i];
    free_.push_back(slabs_[i]);
  }
  free_slabs_ = slab_count_;
}

Slabs::~Slabs() {
  for (List<Slab>* list : {&free_, &chunk_, &cut_})
    while (list->pop_front() != nullptr) continue;
  while (partial_.pop_front() != nullptr) continue;
  for (List<Frame>* list : {&limbo_, &demoted_[0], &demoted_[1]})
    while (list->pop_front() != nullptr) continue;
  for (unsigned i = 0; i < slab_count_ * frames_per_slab; ++i) {
    // Nobody may still load into a frame or copy out of it.
    BC_ASSERT((frames_[i].state.load(std::memory_order_acquire) & frame_pins) == 0);
    frames_[i].~Frame();
  }
}

Frame* Slabs::try_allocate(FrameKind kind, uint32_t now_s) {
  const std::lock_guard guard(lock_);
  reclaim();
  Frame* frame = take(kind);
  if (frame == nullptr) {
    if (supply(kind) < limbo_max_[by_kind(kind)] && try_evict(kind)) {
      // In a turn of its own core the victim cannot be had yet; outside of one (no core runs) it can.
      reclaim();
      frame = take(kind);
    }
  } else if (supply(kind) < reserve_[by_kind(kind)] && try_evict(kind) && supply(kind) < reserve_[by_kind(kind)]) {
    try_evict(kind);
  }
  if (frame == nullptr) return nullptr;
  frame->clock_seen_s = now_s;
  frame->last_used_s.store(now_s, std::memory_order_relaxed);
  frame->valid.store(0, std::memory_order_relaxed);
  frame->state.store(1, std::memory_order_relaxed);
  used_[by_kind(kind)].fetch_add(1, std::memory_order_relaxed);
  return frame;
}

void Slabs::give_back(Frame& frame) {
  const std::lock_guard guard(lock_);
  BC_ASSERT(frame.state.load(std::memory_order_relaxed) == 1);
  frame.state.store(0, std::memory_order_relaxed);
  used_[by_kind(frame.kind)].fetch_sub(1, std::memory_order_relaxed);
  put_free(frame);
}

void Slabs::retire(Frame& frame) {
  const std::lock_guard guard(lock_);
  put_in_limbo(frame);
}

void Slabs::demote(Frame& frame) {
  const std::lock_guard guard(lock_);
  const bool linked_in_index = (frame.state.load(std::memory_order_acquire) & frame_linked) != 0;
  if (!linked_in_index || frame.linked()) return;
  frame.last_used_s.store(0, std::memory_order_relaxed);
  demoted_[by_kind(frame.kind)].push_back(frame);
}

void Slabs::add_to(MemoryTierStats& stats) const {
  stats.arena_bytes = slab_count_ * limits::chunk_frame_bytes;
  stats.block_frames = used_[by_kind(FrameKind::block)].load(std::memory_order_relaxed);
  stats.chunk_frames = used_[by_kind(FrameKind::chunk)].load(std::memory_order_relaxed);
  stats.used_bytes = stats.block_frames * limits::block_bytes + stats.chunk_frames * limits::chunk_frame_bytes;
  stats.evicted_bytes = evicted_bytes_.load(std::memory_order_relaxed);
}

Frame* Slabs::take(FrameKind kind) {
  if (kind == FrameKind::chunk) {
    Slab* slab = free_.pop_front();
    if (slab == nullptr) return nullptr;
    --free_slabs_;
    slab->use = Use::chunk;
    chunk_.push_back(*slab);
    return &chunk_frame(slab->number);
  }
  if (partial_.empty()) {
    Slab* slab = free_.pop_front();
    if (slab == nullptr) return nullptr;
    --free_slabs_;
    cut(*slab);
  }
  Slab& slab = *partial_.front()->slab;
  const auto block = static_cast<unsigned>(std::countr_zero(slab.free_blocks));
  slab.free_blocks &= slab.free_blocks - 1;
  if (slab.free_blocks == 0) slab.partial.unlink();
  --free_blocks_;
  return &block_frame(slab.number, block);
}

void Slabs::cut(Slab& slab) {
  slab.use = Use::cut;
  slab.is_cut.store(true, std::memory_order_release);
  slab.hand = 0;
  slab.free_blocks = all_blocks;
  free_blocks_ += blocks_per_slab;
  cut_.push_back(slab);
  partial_.push_back(slab.partial);
}

// Any frame that nobody can look at any more.
void Slabs::put_free(Frame& frame) {
  Slab& slab = slabs_[frame.slab];
  if (frame.kind == FrameKind::chunk) {
    BC_ASSERT(slab.use == Use::chunk);
    slab.unlink();
    make_free(slab);
    return;
  }
  const uint64_t bit = uint64_t{1} << frame.block;
  BC_ASSERT((slab.use == Use::cut || slab.use == Use::emptying) && (slab.free_blocks & bit) == 0);
  slab.free_blocks |= bit;
  if (slab.use == Use::cut) {
    ++free_blocks_;
    if (slab.free_blocks == bit) partial_.push_back(slab.partial);
  }
  if (slab.free_blocks != all_blocks) return;
  if (slab.use == Use::cut) {
    free_blocks_ -= blocks_per_slab;
    slab.partial.unlink();
    slab.unlink();
  } else {
    --emptying_slabs_;
  }
  make_free(slab);
}

void Slabs::make_free(Slab& slab) {
  slab.use = Use::free;
  slab.is_cut.store(false, std::memory_order_release);
  free_.push_back(slab);
  ++free_slabs_;
}

void Slabs::put_in_limbo(Frame& frame) {
  BC_ASSERT(frame.state.load(std::memory_order_acquire) == 0 && !frame.in_limbo);
  if (frame.linked()) frame.unlink();  // it was among the demoted
  used_[by_kind(frame.kind)].fetch_sub(1, std::memory_order_relaxed);
  frame.in_limbo = true;
  newest_stamp_ = frame.retire_stamp = epochs_.retire();
  limbo_.push_back(frame);
  ++limbo_count_[by_kind(frame.kind)];
}

// Frees what every core has passed. Bounded: what remains is freed by the next calls.
void Slabs::reclaim() {
  constexpr unsigned frees_max = 64;
  constexpr unsigned asks_max = 4;
  if (limbo_.empty()) return;
  const bool all_free = epochs_.all_passed(newest_stamp_);
  for (unsigned i = 0; i < (all_free ? frees_max : asks_max) && !limbo_.empty(); ++i) {
    Frame& frame = *limbo_.front();
    if (!all_free && !epochs_.all_passed(frame.retire_stamp)) return;
    frame.unlink();
    frame.in_limbo = false;
    if (frame.kind == FrameKind::chunk || slabs_[frame.slab].use == Use::cut) --limbo_count_[by_kind(frame.kind)];
    put_free(frame);
  }
}

// Frames of the class that are free, or will be when every core has passed a turn.
uint64_t Slabs::supply(FrameKind kind) const {
  const uint64_t slabs = free_slabs_ + emptying_slabs_ + limbo_count_[by_kind(FrameKind::chunk)];
  if (kind == FrameKind::chunk) return slabs;
  return slabs * blocks_per_slab + free_blocks_ + limbo_count_[by_kind(FrameKind::block)];
}

}  // namespace blobcache
