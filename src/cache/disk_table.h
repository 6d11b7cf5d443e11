// DiskTable<T>: the memory of DiskIndex: items with 32-bit names in chains under buckets, in 64 parts.
//   Owner     DiskIndex.   Thread  chains: under the lock of their part. acquire, release: any (a lock of its own)
//   Limits    items_max; one bucket for items_per_bucket of them, 8 a part at least
//   Memory    address space at start, pages when they are first used: released items are used again before new ones
// Names, not pointers, and links apart from the items: 4 bytes a link, and no padding behind 56 bytes.
#pragma once

#include <cstdint>
#include <mutex>

#include "base/assert.h"
#include "base/memory.h"
#include "base/spinlock.h"
#include "cache/disk_format.h"

namespace blobcache {

inline constexpr uint32_t disk_slot_none = ~uint32_t{0};

struct DiskObject {
  ObjectId id;
  uint64_t size : 47;
  uint64_t disk : 5;
  uint64_t frequency : 8;
  uint64_t packed : 1;
  uint64_t whole : 1;
  uint64_t confirmed : 1;  // its marks count
  uint64_t : 1;
  uint64_t place;  // packed_place, or the recorded FileStamp
  uint64_t valid;  // chunk 0; the others are DiskChunks
  uint64_t verified;
  uint64_t chunks : 24;           // DiskChunks that it has
  uint64_t chunks_verified : 24;  // of all its chunks, those of which every block is verified
  uint64_t pinned : 1;
  uint64_t : 15;

  void add_chunks(int change) { chunks = (chunks + static_cast<uint64_t>(change)) & 0xffffff; }
  void add_chunks_verified(int change) {
    chunks_verified = (chunks_verified + static_cast<uint64_t>(change)) & 0xffffff;
  }
};
static_assert(sizeof(DiskObject) == 56);
static_assert(disk_format::object_bytes_max < uint64_t{1} << 47);
static_assert(disk_format::index_chunks_of(disk_format::object_bytes_max) < 1u << 24);
inline constexpr unsigned disks_max = 32;

struct DiskChunk {
  uint64_t valid;
  uint64_t verified;
  uint32_t owner;
  uint32_t position : 24;  // never 0
  uint32_t frequency : 8;
};
static_assert(sizeof(DiskChunk) == 24);

template <class T, unsigned items_per_bucket>
class DiskTable {
 public:
  static constexpr unsigned parts = 64;

  // False: no memory.
  bool allocate(uint32_t items_max) {
    items_max_ = items_max;
    buckets_per_part_ = items_max / items_per_bucket / parts < 8 ? 8 : items_max / items_per_bucket / parts;
    // Buckets hold name + 1, so that zero is an empty one.
    if (!items_memory_.reserve((size_t{items_max} + 1) * sizeof(T))) return false;
    if (!next_memory_.reserve((size_t{items_max} + 1) * sizeof(uint32_t))) return false;
    if (!buckets_memory_.reserve(size_t{buckets_per_part_} * parts * sizeof(uint32_t))) return false;
    items_ = reinterpret_cast<T*>(items_memory_.data());
    next_ = reinterpret_cast<uint32_t*>(next_memory_.data());
    buckets_ = reinterpret_cast<uint32_t*>(buckets_memory_.data());
    return true;
  }

  T& operator[](uint32_t slot) { return items_[slot]; }
  const T& operator[](uint32_t slot) const { return items_[slot]; }

  // fraction: uniform bits, the upper ones count.
  uint32_t bucket(unsigned part, uint64_t fraction) const {
    return part * buckets_per_part_ + static_cast<uint32_t>(((fraction >> 32) * buckets_per_part_) >> 32);
  }
  uint32_t first_bucket(unsigned part) const { return part * buckets_per_part_; }
  uint32_t buckets_per_part() const { return buckets_per_part_; }

  uint32_t head(uint32_t bucket) const { return buckets_[bucket] - 1; }
  uint32_t next(uint32_t slot) const { return next_[slot] - 1; }
  void link(uint32_t bucket, uint32_t slot) {
    next_[slot] = buckets_[bucket];
    buckets_[bucket] = slot + 1;
  }
  void unlink(uint32_t bucket, uint32_t slot) {
    uint32_t* link = &buckets_[bucket];
    while (*link != slot + 1) {
      BC_ASSERT(*link != 0);
      link = &next_[*link - 1];
    }
    *link = next_[slot];
  }

  // disk_slot_none: all are in use. The item is as it was left.
  uint32_t acquire() {
    const std::lock_guard guard(lock_);
    uint32_t slot = free_ - 1;
    if (slot != disk_slot_none) {
      free_ = next_[slot];
    } else if (used_ < items_max_) {
      slot = used_++;
    } else {
      return disk_slot_none;
    }
    ++in_use_;
    return slot;
  }
  void release(uint32_t slot) {
    const std::lock_guard guard(lock_);
    next_[slot] = free_;
    free_ = slot + 1;
    --in_use_;
  }
  uint32_t in_use() const {
    const std::lock_guard guard(lock_);
    return in_use_;
  }
  size_t memory_bytes() const {
    const std::lock_guard guard(lock_);
    return used_ * (sizeof(T) + sizeof(uint32_t)) + uint64_t{buckets_per_part_} * parts * sizeof(uint32_t);
  }

 private:
  LazyMemory items_memory_;
  LazyMemory next_memory_;
  LazyMemory buckets_memory_;
  T* items_ = nullptr;
  uint32_t* next_ = nullptr;  // in a chain, or among the free; name + 1, 0: the last
  uint32_t* buckets_ = nullptr;
  uint32_t items_max_ = 0;
  uint32_t buckets_per_part_ = 0;
  mutable Spinlock lock_;
  uint32_t used_ = 0;  // names below were in use at some time
  uint32_t in_use_ = 0;
  uint32_t free_ = 0;
};

}  // namespace blobcache
