// DiskTable<T>: the memory of DiskIndex: items with 32-bit names, found by their hash, in 64 parts.
//   Owner     DiskIndex.   Thread  buckets: under the lock of their part. acquire, release, prefetch: any
//   Limits    items_max, which acquire knows; whatever the hashes are, what it gave can be linked
//   Memory    address space at start, pages when they are first used: released items are used again before new ones
//   Invariant the words of a chain of buckets have no gaps: a removed one gives its place to the last one of its chain
// A look-up costs two misses of the processor's caches: a bucket is one line of 15 words, and beside an item's name a word
// has a tag, bits of the hash, so that items are looked at which are the right one but for 1 in 256 (with 10 M of them).
// Buckets grow by linear hashing, so that memory follows use: in each part one bucket after the other is split, and a walk
// that goes from the first bucket to the last misses nothing, since what a split moves goes further on. A whole round of
// splits is done within a quarter more items, as buckets not yet split are fuller than the others meanwhile. The i-th
// buckets of all parts lie side by side: what is used is the beginning of the memory.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <type_traits>

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

  // Buckets take its upper and its lower bits, but not the 6 uppermost.
  uint64_t hash() const { return id.hash(); }
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

  static uint64_t hash_of(uint32_t owner, uint64_t position) {
    const uint64_t seed = disk_format::seed_of(owner, position, 0);
    return seed ^ (seed >> 32);
  }
  uint64_t hash() const { return hash_of(owner, position); }
};
static_assert(sizeof(DiskChunk) == 24);

template <class T, unsigned items_per_bucket>
class alignas(64) DiskTable {
 public:
  static constexpr unsigned parts = 64;

  struct Shape {
    uint32_t buckets = 0;  // of a part, without those behind others
    uint32_t level = 0;    // rounds of splits that are done
  };
  // To lie beside the part's lock.
  struct Part {
    Shape shape;
    uint32_t number = 0;
    uint32_t items = 0;
  };

  // False: no memory.
  bool allocate(uint32_t items_max) {
    static_assert(items_per_bucket < words_max && std::is_trivially_copyable_v<T>);
    BC_ASSERT(items_max < 1u << 31);  // a bit for the tag
    items_max_ = items_max;
    name_bits_ = static_cast<uint32_t>(std::bit_width(items_max));  // names are stored with 1 added
    const uint32_t buckets = items_max / (items_per_bucket * parts) + 1;
    uint32_t levels = 0;
    while (buckets >> levels >= 32) ++levels;
    first_buckets_ = ((buckets - 1) >> levels) + 1;
    buckets_max_ = first_buckets_ << levels;
    if (!items_memory_.reserve((size_t{items_max} + 1) * sizeof(T))) return false;
    if (!buckets_memory_.reserve(size_t{buckets_max_} * parts * sizeof(Bucket))) return false;
    // A part of n words in chains without gaps needs (n - 1) / words_max further buckets at most. In a split one item of it
    // has two words, but then they lie in two chains, and that pays for the second one.
    if (!further_memory_.reserve((size_t{items_max} / words_max + 2) * sizeof(Bucket))) return false;
    items_ = reinterpret_cast<T*>(items_memory_.data());
    buckets_ = reinterpret_cast<Bucket*>(buckets_memory_.data());
    further_ = reinterpret_cast<Bucket*>(further_memory_.data());
    shape_hint_ = Shape{.buckets = first_buckets_};
    buckets_used_ = uint64_t{first_buckets_} * parts;
    return true;
  }
  Part part(unsigned number) const { return {.shape = {.buckets = first_buckets_}, .number = number}; }

  T& operator[](uint32_t slot) { return items_[slot]; }
  const T& operator[](uint32_t slot) const { return items_[slot]; }

  // Without the lock, to have the bucket's miss at the same time as the lock's: a guess, which is wrong while parts grow.
  void prefetch(unsigned part, uint64_t hash) const {
    const Shape shape = shape_hint_.load(std::memory_order_relaxed);
    __builtin_prefetch(&buckets_[size_t{bucket_of(shape, hash)} * parts + part]);
  }

  // is_it(item): of those whose tag is the same. disk_slot_none: there is none.
  template <class IsIt>
  uint32_t find(const Part& part, uint64_t hash, IsIt&& is_it) const {
    const uint32_t tag = tag_of(hash);
    for (const Bucket* bucket = &first(part, bucket_of(part.shape, hash)); bucket != nullptr;
         bucket = behind(*bucket)) {
      uint32_t candidates = 0;
      for (unsigned i = 0; i < words_max; ++i) {
        const uint32_t word = bucket->words[i];
        candidates |= uint32_t{((word ^ tag) >> name_bits_) == 0 && word != 0} << i;
      }
      for (uint32_t left = candidates; left != 0; left &= left - 1) prefetch_item(name_in(bucket->words[lowest(left)]));
      for (uint32_t left = candidates; left != 0; left &= left - 1) {
        const uint32_t slot = name_in(bucket->words[lowest(left)]);
        if (is_it(items_[slot])) return slot;
      }
    }
    return disk_slot_none;
  }
  // The item's own hash. It is not linked yet.
  void link(Part& part, uint32_t slot) {
    const uint64_t hash = items_[slot].hash();
    append(first(part, bucket_of(part.shape, hash)), tag_of(hash) | (slot + 1));
    ++part.items;
    if (wants_split(part)) split(part);
  }
  void unlink(Part& part, uint32_t slot) {
    erase(first(part, bucket_of(part.shape, items_[slot].hash())), slot);
    --part.items;
  }

  // Calls f(slot) for all of a bucket; f may unlink that slot.
  template <class F>
  void each(const Part& part, uint32_t bucket, F&& f) const {
    const uint32_t* link = nullptr;  // to the line
    for (Bucket* line = &first(part, bucket); line != nullptr; link = &line->behind, line = behind(*line)) {
      for (uint32_t i = 0; i < words_max && line->words[i] != 0;) {
        const uint32_t word = line->words[i];
        f(name_in(word));
        if (link != nullptr && *link == 0) return;  // that was its last word, and it is somebody else's now
        if (line->words[i] == word) ++i;            // else the last one has taken its place
      }
    }
  }

  // disk_slot_none: all are in use. The item is anything.
  uint32_t acquire() {
    const std::lock_guard guard(lock_);
    uint32_t slot = free_ - 1;
    if (slot != disk_slot_none) {
      std::memcpy(&free_, static_cast<const void*>(&items_[slot]), sizeof free_);
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
    std::memcpy(static_cast<void*>(&items_[slot]), &free_, sizeof free_);
    free_ = slot + 1;
    --in_use_;
  }
  uint32_t in_use() const {
    const std::lock_guard guard(lock_);
    return in_use_;
  }
  size_t memory_bytes() const {
    const std::lock_guard guard(lock_);
    return used_ * sizeof(T) + (buckets_used_ + further_used_) * sizeof(Bucket);
  }

 private:
  static constexpr uint32_t words_max = 15;
  struct alignas(64) Bucket {
    uint32_t words[words_max];  // tag above name + 1; 0: this and what follows are empty
    uint32_t behind;            // among further_, + 1; 0: it is the last one
  };
  static_assert(sizeof(Bucket) == 64);

  static unsigned lowest(uint32_t bits) { return static_cast<unsigned>(std::countr_zero(bits)); }
  uint32_t tag_of(uint64_t hash) const { return static_cast<uint32_t>((hash >> 26) << name_bits_); }
  uint32_t name_in(uint32_t word) const { return (word & ((1u << name_bits_) - 1)) - 1; }
  uint32_t bucket_of(Shape shape, uint64_t hash) const {
    const uint32_t beginning = static_cast<uint32_t>((((hash << 6) >> 32) * first_buckets_) >> 32);
    const auto low = static_cast<uint32_t>(hash);
    const uint32_t split = beginning + first_buckets_ * (low & ((2u << shape.level) - 1));
    return split < shape.buckets ? split : beginning + first_buckets_ * (low & ((1u << shape.level) - 1));
  }
  Bucket& first(const Part& part, uint32_t bucket) const { return buckets_[size_t{bucket} * parts + part.number]; }
  Bucket* behind(const Bucket& bucket) const { return bucket.behind == 0 ? nullptr : &further_[bucket.behind - 1]; }
  void prefetch_item(uint32_t slot) const {  // it may lie in two lines
    const auto* begin = reinterpret_cast<const char*>(&items_[slot]);
    __builtin_prefetch(begin);
    __builtin_prefetch(begin + sizeof(T) - 1);
  }

  void append(Bucket& head, uint32_t word) {
    Bucket* bucket = &head;
    while (bucket->behind != 0) bucket = behind(*bucket);
    if (bucket->words[words_max - 1] != 0) {
      bucket->behind = acquire_further();
      bucket = behind(*bucket);
    }
    *std::ranges::find(bucket->words, 0u) = word;
  }
  void erase(Bucket& head, uint32_t slot) {
    Bucket* before = nullptr;
    uint32_t* place = nullptr;
    Bucket* bucket = &head;
    while (true) {
      uint32_t* end = bucket->words + words_max;
      uint32_t* found = std::find_if(bucket->words, end, [&](uint32_t word) { return name_in(word) == slot; });
      if (found != end) place = found;
      if (bucket->behind == 0) break;
      before = bucket;
      bucket = behind(*bucket);
    }
    BC_ASSERT(place != nullptr);
    uint32_t* last = std::ranges::find(bucket->words, 0u) - 1;
    *place = *last;
    *last = 0;
    if (last == bucket->words && before != nullptr) {
      release_further(before->behind);
      before->behind = 0;
    }
  }

  // A round begins at a load of 12, and ends at 1.25 times the items it began with.
  bool wants_split(const Part& part) const {
    if (part.shape.buckets == buckets_max_) return false;
    const uint64_t begun = uint64_t{first_buckets_} << part.shape.level;
    return part.items > begun * 12 + (part.shape.buckets - begun) * 3;
  }
  void split(Part& part) {
    const uint32_t round = first_buckets_ << part.shape.level;
    const uint32_t to = part.shape.buckets;
    const uint32_t from = to - round;
    if (++part.shape.buckets == round * 2) ++part.shape.level;
    Bucket& head = first(part, from);
    for (uint32_t i = 0; i < words_max && head.words[i] != 0; ++i) __builtin_prefetch(&items_[name_in(head.words[i])]);
    each(part, from, [&](uint32_t slot) {
      const uint64_t hash = items_[slot].hash();
      if (bucket_of(part.shape, hash) == from) return;
      append(first(part, to), tag_of(hash) | (slot + 1));
      erase(head, slot);
    });
    shape_hint_.store(part.shape, std::memory_order_relaxed);
    const std::lock_guard guard(lock_);
    buckets_used_ = std::max(buckets_used_, uint64_t{part.shape.buckets} * parts);  // those of all parts share a page
  }

  uint32_t acquire_further() {
    const std::lock_guard guard(lock_);
    uint32_t name = further_free_;
    if (name == 0) {
      BC_ASSERT(further_used_ < items_max_ / words_max + 2);
      return ++further_used_;
    }
    further_free_ = further_[name - 1].behind;
    further_[name - 1].behind = 0;
    return name;
  }
  void release_further(uint32_t name) {
    const std::lock_guard guard(lock_);
    further_[name - 1].behind = further_free_;  // its words are 0
    further_free_ = name;
  }

  // What a look-up needs, in one line.
  T* items_ = nullptr;
  Bucket* buckets_ = nullptr;
  Bucket* further_ = nullptr;
  uint32_t first_buckets_ = 0;  // of a part, before any split
  uint32_t name_bits_ = 0;
  std::atomic<Shape> shape_hint_;  // of the part that grew last
  uint32_t buckets_max_ = 0;       // of a part
  uint32_t items_max_ = 0;

  LazyMemory items_memory_;
  LazyMemory buckets_memory_;
  LazyMemory further_memory_;
  alignas(64) mutable Spinlock lock_;
  uint32_t used_ = 0;  // names below were in use at some time
  uint32_t in_use_ = 0;
  uint32_t free_ = 0;  // a list in the items themselves; name + 1
  uint64_t buckets_used_ = 0;
  uint32_t further_used_ = 0;  // at some time
  uint32_t further_free_ = 0;  // a list in `behind`
};

}  // namespace blobcache
