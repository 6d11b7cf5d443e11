// The policies that S3-FIFO is measured against: LRU, SIEVE, W-TinyLFU. They are here and not in src/ because they
//   lost. Thread    one
//   Use       like Eviction: make room by victim and evict, then insert. Pages of 4 KiB
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "cache/eviction.h"

namespace blobcache::rivals {

inline constexpr uint32_t none = EvictionQueue::none;

class Lru {
 public:
  static constexpr unsigned bytes_per_entry = 12;  // two links, size
  Lru(std::span<EvictionEntry> entries, uint64_t) : entries_(entries) {}

  void on_miss(uint64_t) {}
  void on_hit(uint32_t slot) {
    queue_.unlink(entries_, slot);
    queue_.push(entries_, slot);
  }
  void insert(uint32_t slot, uint64_t, uint32_t pages) {
    entries_[slot].pages = pages;
    queue_.push(entries_, slot);
  }
  uint32_t victim() const { return queue_.oldest; }
  void evict(uint32_t slot) { queue_.unlink(entries_, slot); }
  uint64_t used_pages() const { return queue_.pages; }

 private:
  std::span<EvictionEntry> entries_;
  EvictionQueue queue_;
};

// Zhang et al., NSDI 2024: a FIFO, one bit, and a hand that goes from the oldest to the newest and evicts what was not
// visited since it last passed.
class Sieve {
 public:
  static constexpr unsigned bytes_per_entry = 13;  // two links, size, the bit
  Sieve(std::span<EvictionEntry> entries, uint64_t) : entries_(entries) {}

  void on_miss(uint64_t) {}
  void on_hit(uint32_t slot) { entries_[slot].visits.store(1, std::memory_order_relaxed); }
  void insert(uint32_t slot, uint64_t, uint32_t pages) {
    entries_[slot].pages = pages;
    entries_[slot].visits.store(0, std::memory_order_relaxed);
    queue_.push(entries_, slot);
  }
  uint32_t victim() {
    if (hand_ == none) hand_ = queue_.oldest;
    while (entries_[hand_].visits.load(std::memory_order_relaxed) != 0) {
      entries_[hand_].visits.store(0, std::memory_order_relaxed);
      hand_ = entries_[hand_].newer == none ? queue_.oldest : entries_[hand_].newer;
    }
    return hand_;
  }
  void evict(uint32_t slot) {
    if (hand_ == slot) hand_ = entries_[slot].newer;
    queue_.unlink(entries_, slot);
  }
  uint64_t used_pages() const { return queue_.pages; }

 private:
  std::span<EvictionEntry> entries_;
  EvictionQueue queue_;
  uint32_t hand_ = none;
};

// Einziger et al., ACM TOS 2017: a window of 1 %, a main part in two segments (80 % protected), and a sketch of
// frequencies (four rows, halved every ten entries' worth of accesses) by which what leaves the window is compared with
// main's oldest.
class WTinyLfu {
 public:
  static constexpr unsigned bytes_per_entry = 12 + 4 + 8;  // links and size, the hash, eight counters of the sketch
  WTinyLfu(std::span<EvictionEntry> entries, uint64_t capacity_pages)
      : entries_(entries),
        hashes_(entries.size()),
        capacity_pages_(capacity_pages),
        counters_(std::bit_ceil(entries.size() * 8)) {}

  void on_miss(uint64_t hash) { count(static_cast<uint32_t>(hash >> 32)); }
  void on_hit(uint32_t slot) {
    count(hashes_[slot]);
    queues_[entry_segment(slot)].unlink(entries_, slot);
    if (entry_segment(slot) == probation) set_segment(slot, protected_part);
    queues_[entry_segment(slot)].push(entries_, slot);
    while (queues_[protected_part].pages > capacity_pages_ * 99 / 100 * 8 / 10) {
      move(queues_[protected_part].oldest, probation);
    }
  }
  void insert(uint32_t slot, uint64_t hash, uint32_t pages) {
    entries_[slot].pages = pages;
    hashes_[slot] = static_cast<uint32_t>(hash >> 32);
    set_segment(slot, window);
    queues_[window].push(entries_, slot);
    // While there is room the window passes on without a comparison.
    while (!full_ && window_is_over()) move(queues_[window].oldest, probation);
  }
  uint32_t victim() {
    full_ = true;
    const uint32_t candidate = queues_[window].oldest;
    const EvictionQueue& main = queues_[probation].count > 0 ? queues_[probation] : queues_[protected_part];
    if (main.count == 0) return candidate;
    if (!window_is_over()) return main.oldest;
    if (frequency(hashes_[candidate]) <= frequency(hashes_[main.oldest])) return candidate;
    const uint32_t slot = main.oldest;
    move(candidate, probation);
    return slot;
  }
  void evict(uint32_t slot) { queues_[entry_segment(slot)].unlink(entries_, slot); }
  uint64_t used_pages() const {
    return queues_[window].pages + queues_[probation].pages + queues_[protected_part].pages;
  }

 private:
  enum Segment : uint8_t { window, probation, protected_part };

  bool window_is_over() const { return queues_[window].count > 1 && queues_[window].pages > capacity_pages_ / 100; }
  uint8_t entry_segment(uint32_t slot) const { return entries_[slot].visits.load(std::memory_order_relaxed); }
  void set_segment(uint32_t slot, Segment segment) { entries_[slot].visits.store(segment, std::memory_order_relaxed); }
  void move(uint32_t slot, Segment segment) {
    queues_[entry_segment(slot)].unlink(entries_, slot);
    set_segment(slot, segment);
    queues_[segment].push(entries_, slot);
  }
  uint8_t& counter(uint32_t hash, unsigned row) {
    static constexpr uint64_t odd[] = {0x9e3779b97f4a7c15u, 0xc2b2ae3d27d4eb4fu, 0x165667b19e3779f9u,
                                       0xd6e8feb86659fd93u};
    const uint64_t mixed = (hash + uint64_t{1}) * odd[row];
    return counters_[(mixed ^ mixed >> 31) & (counters_.size() - 1)];
  }
  unsigned frequency(uint32_t hash) {
    unsigned least = 15;
    for (unsigned row = 0; row < 4; ++row) least = std::min<unsigned>(least, counter(hash, row));
    return least;
  }
  void count(uint32_t hash) {
    const unsigned least = frequency(hash);
    for (unsigned row = 0; row < 4 && least < 15; ++row) {
      if (counter(hash, row) == least) ++counter(hash, row);
    }
    if (++counted_ < entries_.size() * 10) return;
    counted_ /= 2;
    for (uint8_t& each : counters_) each /= 2;
  }

  std::span<EvictionEntry> entries_;
  std::vector<uint32_t> hashes_;
  uint64_t capacity_pages_;
  EvictionQueue queues_[3];
  std::vector<uint8_t> counters_;
  uint64_t counted_ = 0;
  bool full_ = false;
};

}  // namespace blobcache::rivals
