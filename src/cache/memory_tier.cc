// The hit, and what is asked about the whole tier. plan(), finish_load() and waiting are in memory_tier_plan.cc; the table
// is frame_index.cc, its argument for reading without a lock is there; who is evicted is slabs_evict.cc.
//
// try_copy is the most-run function of the program. A hit of one block in a chunk frame touches: a bucket, the first line of
// a Frame, and the bytes. In a block frame one bucket more, because chunk frames are asked first; that bucket is prefetched.
// Why chunk frames first: a scan asks for 16 blocks at once and finds all with one look.
//
// The copy needs no pin and no second look at the valid bits after it:
//   1. A valid bit is set with release after the bytes were written, and read with acquire before they are copied.
//   2. While a frame is linked, valid bits are never taken back: a block that is to go takes its frame out of the index.
//   3. The bytes of an unlinked frame stay as they are until it is reused, which needs every core, ours too, to have passed
//      the end of a turn since. We are in the turn in which we found it.
// A block that is loading is written by its loader alone, and its bit is 0, so nobody copies from it.
//
// Rejected: a sequence number per frame, checked after the copy (two more loads of a line that loads write, and a copy that
// may have to be thrown away); a reference count per hit (two shared writes, 40-100 ns each under contention).
#include "cache/memory_tier.h"

#include <bit>
#include <cstring>
#include <mutex>
#include <new>

#include "base/assert.h"
#include "cache/memory_tier_state.h"

namespace blobcache {
namespace {

constexpr size_t chunk_bytes = limits::chunk_frame_bytes;
constexpr size_t block_bytes = limits::block_bytes;
constexpr uint64_t blocks_per_chunk = limits::blocks_per_chunk_frame;

struct Range {
  size_t within;  // of the position
  size_t bytes;
};

// A range that its position's chunk frame does not have whole: each block from there or from its block frame. All are
// found before the first is copied, since a copy of 15 of 16 blocks would be thrown away.
bool try_copy_blocks(const FrameIndex& index, const FrameKey& chunk_key, unsigned stripe, const Frame* chunk,
                     Range range, std::byte* to, uint32_t now_s) {
  const auto first = static_cast<unsigned>(range.within / block_bytes);
  const auto last = static_cast<unsigned>((range.within + range.bytes - 1) / block_bytes);
  const uint64_t in_chunk = chunk == nullptr ? 0 : chunk->valid.load(std::memory_order_acquire);
  Frame* frames[blocks_per_chunk];
  for (unsigned block = first; block <= last; ++block) {
    frames[block] = nullptr;
    if ((in_chunk >> block & 1) != 0) continue;
    Frame* frame =
        index.find({chunk_key.object, FrameKind::block, chunk_key.position * blocks_per_chunk + block}, stripe);
    if (frame == nullptr || frame->valid.load(std::memory_order_acquire) == 0) return false;
    frames[block] = frame;
  }
  const size_t end = range.within + range.bytes;
  for (unsigned block = first; block <= last; ++block) {
    const size_t block_begin = block * block_bytes;
    const size_t from = range.within > block_begin ? range.within : block_begin;
    const size_t until = end < block_begin + block_bytes ? end : block_begin + block_bytes;
    const std::byte* bytes = chunk == nullptr ? nullptr : chunk->data + block_begin;
    if (frames[block] != nullptr) {
      frames[block]->touch(now_s);
      bytes = frames[block]->data;
    }
    std::memcpy(to, bytes + (from - block_begin), until - from);
    to += until - from;
  }
  return true;
}

}  // namespace

MemoryTier::State::State(const Options& tier_options) : options(tier_options) {
  const size_t slab_count = options.arena.size() / chunk_bytes;
  BC_ASSERT(options.arena.size() % chunk_bytes == 0 && slab_count >= 2 && options.epochs != nullptr);
  const size_t frame_count = slab_count * Slabs::frames_per_slab;
  const size_t bucket_count = FrameIndex::bucket_count(slab_count * blocks_per_chunk);
  const Result<void> allocated = metadata.allocate(metadata_bytes(options.arena.size()));
  BC_ASSERT(allocated.has_value());  // the memory plan has counted it
  auto* frames = reinterpret_cast<Frame*>(metadata.bytes().data());
  auto* buckets = reinterpret_cast<FrameIndex::Bucket*>(frames + frame_count);
  for (size_t i = 0; i < bucket_count; ++i) new (&buckets[i]) FrameIndex::Bucket(nullptr);
  index = std::make_unique<FrameIndex>(buckets, slab_count * blocks_per_chunk);
  slabs = std::make_unique<Slabs>(
      Slabs::Options{.arena = options.arena, .frames = frames, .index = index.get(), .epochs = options.epochs});
}

MemoryTier::MemoryTier(const Options& options) : state_(new State(options)) {}

MemoryTier::~MemoryTier() { delete state_; }

size_t MemoryTier::metadata_bytes(size_t arena_bytes) {
  const size_t slab_count = arena_bytes / chunk_bytes;
  const size_t bytes = slab_count * Slabs::frames_per_slab * sizeof(Frame) +
                       FrameIndex::bucket_count(slab_count * blocks_per_chunk) * sizeof(FrameIndex::Bucket);
  return (bytes + limits::huge_page_bytes - 1) / limits::huge_page_bytes * limits::huge_page_bytes;
}

bool MemoryTier::try_copy(const ObjectId& object, uint64_t offset, uint32_t bytes, std::byte* to, uint32_t now_s) {
  const FrameIndex& index = *state_->index;
  size_t bytes_left = bytes;
  while (bytes_left > 0) {
    const FrameKey key{object, FrameKind::chunk, offset / chunk_bytes};
    const size_t within = offset % chunk_bytes;
    const size_t part = bytes_left < chunk_bytes - within ? bytes_left : chunk_bytes - within;
    const unsigned stripe = FrameIndex::stripe_of(object, key.position);
    __builtin_prefetch(index.bucket({object, FrameKind::block, offset / block_bytes}, stripe));
    Frame* chunk = index.find(key, stripe);
    const uint64_t wanted = block_bits(static_cast<unsigned>(within / block_bytes),
                                       static_cast<unsigned>((within + part - 1) / block_bytes));
    if (chunk != nullptr && (chunk->valid.load(std::memory_order_acquire) & wanted) == wanted) {
      chunk->touch(now_s);
      std::memcpy(to, chunk->data + within, part);
    } else if (!try_copy_blocks(index, key, stripe, chunk, {within, part}, to, now_s)) {
      return false;
    }
    to += part;
    offset += part;
    bytes_left -= part;
  }
  return true;
}

void MemoryTier::copy(const Plan& plan, uint64_t offset, uint32_t bytes, std::byte* to) const {
  const uint64_t end = offset + bytes;
  size_t copied = 0;
  for (unsigned i = 0; i < plan.span_count; ++i) {
    const Plan::Span& span = plan.spans[i];
    const uint64_t valid = span.frame->valid.load(std::memory_order_acquire);
    for (uint64_t rest = span.blocks; rest != 0;) {
      // A run of blocks that lie next to each other.
      const auto first = static_cast<unsigned>(std::countr_zero(rest));
      const auto count = static_cast<unsigned>(std::countr_one(rest >> first));
      const uint64_t run = block_bits(first, first + count - 1);
      rest &= ~run;
      const uint64_t run_begin = span.offset + first * block_bytes;
      const uint64_t run_end = run_begin + count * block_bytes;
      const uint64_t from = run_begin > offset ? run_begin : offset;
      const uint64_t until = run_end < end ? run_end : end;
      if (from >= until) continue;
      const uint64_t read = block_bits(static_cast<unsigned>((from - span.offset) / block_bytes),
                                       static_cast<unsigned>((until - 1 - span.offset) / block_bytes));
      BC_ASSERT((valid & read) == read);
      std::memcpy(to + (from - offset), span.frame->data + (from - span.offset), until - from);
      copied += until - from;
    }
  }
  BC_ASSERT(copied == bytes);
}

bool MemoryTier::holds(const ObjectId& object, uint64_t offset, uint64_t bytes) const {
  const FrameIndex& index = *state_->index;
  const uint64_t end = offset + bytes;
  while (offset < end) {
    const uint64_t position = offset / chunk_bytes;
    const uint64_t until = end < (position + 1) * chunk_bytes ? end : (position + 1) * chunk_bytes;
    const unsigned stripe = FrameIndex::stripe_of(object, position);
    uint64_t missing = block_bits(static_cast<unsigned>(offset % chunk_bytes / block_bytes),
                                  static_cast<unsigned>((until - 1) % chunk_bytes / block_bytes));
    const Frame* chunk = index.find({object, FrameKind::chunk, position}, stripe);
    if (chunk != nullptr) missing &= ~chunk->valid.load(std::memory_order_acquire);
    for (; missing != 0; missing &= missing - 1) {
      const auto block = static_cast<unsigned>(std::countr_zero(missing));
      const Frame* frame = index.find({object, FrameKind::block, position * blocks_per_chunk + block}, stripe);
      if (frame == nullptr || frame->valid.load(std::memory_order_acquire) == 0) return false;
    }
    offset = until;
  }
  return true;
}

bool MemoryTier::loads(const ObjectId& object, uint64_t offset, uint64_t bytes) const {
  const FrameIndex& index = *state_->index;
  const uint64_t last_block = (offset + bytes - 1) / block_bytes;
  for (uint64_t block = offset / block_bytes; block <= last_block; ++block) {
    const uint64_t position = block / blocks_per_chunk;
    const unsigned stripe = FrameIndex::stripe_of(object, position);
    const std::lock_guard guard(state_->index->lock(stripe));
    const Frame* chunk = index.find({object, FrameKind::chunk, position}, stripe);
    if (chunk != nullptr && (chunk->loading >> block % blocks_per_chunk & 1) != 0) return true;
    const Frame* frame = index.find({object, FrameKind::block, block}, stripe);
    if (frame != nullptr && frame->loading != 0) return true;
  }
  return false;
}

std::byte* MemoryTier::frame_bytes(const Frame& frame) const { return frame.data; }
size_t MemoryTier::frame_size(const Frame& frame) const { return frame.size(); }
unsigned MemoryTier::buffer_index(const Frame& frame) const {
  const auto at = static_cast<size_t>(frame.data - state_->options.arena.data());
  return state_->options.buffer_index_first + static_cast<unsigned>(at / limits::ring_buffer_bytes_max);
}

void MemoryTier::demote(const ObjectId& object, uint64_t offset) {
  const uint64_t chunk_position = offset / chunk_bytes;
  const unsigned stripe = FrameIndex::stripe_of(object, chunk_position);
  Frame* frame = state_->index->find({object, FrameKind::chunk, chunk_position}, stripe);
  if (frame == nullptr) frame = state_->index->find({object, FrameKind::block, offset / block_bytes}, stripe);
  if (frame != nullptr && frame->last_used_s.load(std::memory_order_relaxed) != 0) state_->slabs->demote(*frame);
}

// By position where the object is small, by frame where it is larger than what the arena could hold of it.
template <class F>
void MemoryTier::State::for_each_frame_of(const ObjectId& object, uint64_t object_bytes, F&& f) {
  const uint64_t positions = (object_bytes + chunk_bytes - 1) / chunk_bytes;
  if (positions > slabs->slab_count()) {
    slabs->for_each_frame([&](Frame& frame) {
      // Linked: what was written before it was linked stays for this turn, whatever happens to the frame.
      if ((frame.state.load(std::memory_order_acquire) & frame_linked) != 0 && frame.object == object) f(frame);
    });
    return;
  }
  for (uint64_t position = 0; position < positions; ++position) {
    const unsigned stripe = FrameIndex::stripe_of(object, position);
    if (Frame* chunk = index->find({object, FrameKind::chunk, position}, stripe); chunk != nullptr) f(*chunk);
    for (unsigned block = 0; block < blocks_per_chunk; ++block) {
      const uint64_t block_position = position * blocks_per_chunk + block;
      if (block_position * block_bytes >= object_bytes) break;
      Frame* frame = index->find({object, FrameKind::block, block_position}, stripe);
      if (frame != nullptr) f(*frame);
    }
  }
}

uint64_t MemoryTier::cached_bytes(const ObjectId& object, uint64_t object_bytes) const {
  const uint64_t tail_begin = object_bytes / block_bytes * block_bytes;
  uint64_t total = 0;
  state_->for_each_frame_of(object, object_bytes, [&](Frame& frame) {
    uint64_t valid = frame.valid.load(std::memory_order_acquire);
    if (frame.kind == FrameKind::block && valid != 0) {
      // Counted with the chunk frame if that has it too.
      const uint64_t position = frame.position / blocks_per_chunk;
      const Frame* chunk = state_->index->find({object, FrameKind::chunk, position}, frame.stripe);
      const uint64_t in_chunk = chunk == nullptr ? 0 : chunk->valid.load(std::memory_order_acquire);
      if ((in_chunk >> (frame.position % blocks_per_chunk) & 1) != 0) valid = 0;
    }
    total += static_cast<unsigned>(std::popcount(valid)) * block_bytes;
    const uint64_t tail = tail_begin - frame.offset();
    const bool has_tail =
        tail_begin >= frame.offset() && tail < frame.size() && (valid >> (tail / block_bytes) & 1) != 0;
    if (has_tail) total -= block_bytes - (object_bytes - tail_begin);
  });
  return total;
}

void MemoryTier::drop(const ObjectId& object, uint64_t object_bytes) {
  state_->for_each_frame_of(object, object_bytes, [&](Frame& frame) {
    if (state_->index->remove_if_idle(frame, true)) state_->slabs->retire(frame);
  });
}

MemoryTierStats MemoryTier::stats() const {
  MemoryTierStats stats;
  state_->slabs->add_to(stats);
  stats.pinned_frames = state_->pinned_frames.load(std::memory_order_relaxed);
  stats.metadata_bytes = state_->metadata.bytes().size();
  return stats;
}

}  // namespace blobcache
