// FrameIndex: finds the frame of (object, kind, position). A hash table of a fixed size, read without a lock.
//   Owner     MemoryTier
//   Thread    find: any, within a turn (Epochs) or under the stripe's lock. insert, remove: under the stripe's lock
//   Stripes   64 locks, each for its own part of the table. A chunk frame and all block frames of its 4 MiB are of one
//             stripe, so one lock is enough to decide who loads what of a position.
//   Limits    two buckets a frame, at least 64 a stripe; it never grows
//   Order     the lock of Slabs may be held while a stripe is tried (try_lock); never the other way round
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/spinlock.h"
#include "cache/frame.h"

namespace blobcache {

struct FrameKey {
  const ObjectId& object;
  FrameKind kind;
  uint64_t position;  // in frames of this kind
};

class FrameIndex {
 public:
  static constexpr unsigned stripe_count = 64;
  using Bucket = std::atomic<Frame*>;

  // buckets: bucket_count(block_frames) of them, null, and living longer than this.
  FrameIndex(Bucket* buckets, size_t block_frames)
      : buckets_(buckets), buckets_per_stripe_(bucket_count(block_frames) / stripe_count) {}

  static size_t bucket_count(size_t block_frames) {
    const size_t per_stripe = 2 * block_frames / stripe_count;
    return stripe_count * (per_stripe < 64 ? 64 : per_stripe);
  }

  // chunk_position: offset / chunk_frame_bytes. Taken from the top bits of the chunk's hash; its bucket uses those below.
  static unsigned stripe_of(const ObjectId& object, uint64_t chunk_position) {
    return static_cast<unsigned>(hash(object, chunk_position, FrameKind::chunk) >> 58);
  }
  Spinlock& lock(unsigned stripe) { return stripes_[stripe].lock; }

  const Bucket* bucket(const FrameKey& key, unsigned stripe) const {
    const uint64_t fraction = hash(key.object, key.position, key.kind) << 6;
    const auto within = static_cast<uint64_t>((static_cast<unsigned __int128>(fraction) * buckets_per_stripe_) >> 64);
    return buckets_ + stripe * buckets_per_stripe_ + within;
  }
  static Frame* find_in(const Bucket* bucket, const FrameKey& key) {
    Frame* frame = bucket->load(std::memory_order_acquire);
    while (frame != nullptr &&
           !(frame->position == key.position && frame->object == key.object && frame->kind == key.kind))
      frame = frame->chain.load(std::memory_order_acquire);
    return frame;
  }
  Frame* find(const FrameKey& key, unsigned stripe) const { return find_in(bucket(key, stripe), key); }

  // frame: private, with object, position and stripe set and one pin. Linked afterwards.
  void insert(Frame& frame);
  // frame: linked. What remains in state are its pins. Readers that are on it go on along its chain.
  uint32_t remove(Frame& frame);
  // Removes a frame that has no pins; false: it has, or is not linked, or (lock_wait false) its stripe is locked.
  bool remove_if_idle(Frame& frame, bool lock_wait);

 private:
  // The object's words are uniform; the multiplications spread neighbouring positions over the high bits.
  static uint64_t hash(const ObjectId& object, uint64_t position, FrameKind kind) {
    uint64_t mixed = object.hash() + position * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(kind) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 32)) * 0xd6e8feb86659fd93u;
    return (mixed ^ (mixed >> 32)) * 0xd6e8feb86659fd93u;
  }
  Bucket* bucket_of(const Frame& frame) {
    return buckets_ + (bucket({frame.object, frame.kind, frame.position}, frame.stripe) - buckets_);
  }

  struct alignas(64) Stripe {
    Spinlock lock;
  };
  Bucket* buckets_;
  size_t buckets_per_stripe_;
  Stripe stripes_[stripe_count];
};

}  // namespace blobcache
