// ScanDetector: says when what is in the cache had better stay, because a scan goes round over more than it.
//   Owner     Eviction.    Thread  samples() any; the rest under the owner's lock
//   Limits    nodes_max keys remembered (288 KiB with their table), whatever the size of the cache; no allocation after
//             the constructor; an access that is not sampled costs one comparison, one that is at most boundaries + 1
//             moves within the list
//   Invariant the same accesses give the same answers: no clock, no randomness
//
// Distances and budgets are in pages of 4 KiB. An access is a visit of a reader to a chunk, not a request: a chunk read
// in 32 pieces by one reader is one access, or all that is read once would look popular.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace blobcache {

class ScanDetector {
 public:
  static constexpr uint32_t nodes_max = 8192;

  explicit ScanDetector(uint64_t capacity_pages);

  // Whether on_access wants to know of this key. hash: uniform over 64 bits.
  bool samples(uint64_t hash) const {
    return (hash & ((uint64_t{1} << sampling_shift_.load(std::memory_order_relaxed)) - 1)) == 0;
  }
  // samples(hash) holds; hit: the cache had it.
  void on_access(uint64_t hash, uint32_t pages, bool hit);
  // The cache is to keep what it has and admit nothing in its place.
  bool frozen() const { return frozen_; }
  // It was frozen, and what it kept is to make room even for what is read once.
  bool refilling() const { return refilling_; }
  void set_capacity(uint64_t capacity_pages);

  uint64_t transitions_count() const { return transitions_count_; }
  uint32_t nodes_count() const { return nodes_count_; }
  // Asserts that list, table, marks and sums agree; for tests, takes time in proportion to the nodes.
  void verify() const;

 private:
  static constexpr uint32_t none = UINT32_MAX;
  static constexpr unsigned boundaries = 10;
  // A list of keys by their last access, in segments; boundary i lies at edges_eighths[i] / 8 of the cache's capacity.
  static constexpr std::array<unsigned, boundaries> edges_eighths = {8, 10, 12, 14, 16, 20, 24, 32, 48, 64};

  struct Node {
    uint64_t hash;
    uint32_t newer;
    uint32_t older;
    uint32_t chain;  // of the table, or of the free nodes
    uint32_t pages;
    uint32_t segment;
  };

  uint32_t& bucket(uint64_t hash);
  uint32_t find(uint64_t hash);
  void unlink(uint32_t index);
  void link_newest(uint32_t index);
  void keep_boundaries();
  void pass_to_older_segment(unsigned segment);
  void forget(uint32_t index);
  void halve_sample();
  uint32_t take_node(uint64_t hash, uint32_t pages);
  void decide();
  bool should_freeze(double kept, double as_is);
  bool should_thaw(double kept);
  uint64_t scaled(uint64_t pages) const { return pages >> sampling_shift_.load(std::memory_order_relaxed); }

  // How much better keeping must look before admission stops: what the sampling errs by, at 128 samples a window.
  static constexpr double freeze_margin = 0.03;
  static constexpr unsigned decisions_per_window = 8;
  static constexpr unsigned accesses_per_decision_min = 32;

  uint64_t capacity_pages_;
  std::atomic<unsigned> sampling_shift_{0};
  std::vector<Node> nodes_;
  std::vector<uint32_t> table_;
  uint32_t newest_ = none;
  uint32_t oldest_ = none;
  uint32_t free_ = 0;
  uint32_t nodes_count_ = 0;
  std::array<uint32_t, boundaries> oldest_of_segment_;
  std::array<uint64_t, boundaries + 1> segment_pages_{};

  // Of the last accesses, each older by a window (an eighth of the cache) counting 1/e: what was read, what of it the
  // cache had, and how far back the rest of its life lay, by segment.
  uint64_t read_pages_ = 0;
  uint64_t hit_pages_ = 0;
  std::array<uint64_t, boundaries> again_pages_{};
  // Since the last decision, and since the last transition or look at what a frozen cache is good for.
  uint64_t decision_pages_ = 0;
  unsigned decision_accesses_ = 0;
  uint64_t round_read_pages_ = 0;
  uint64_t round_hit_pages_ = 0;
  // Since the last transition or comparison with LRU.
  uint64_t lately_read_pages_ = 0;
  uint64_t lately_hit_pages_ = 0;
  uint64_t lately_lru_pages_ = 0;
  unsigned scan_boundary_ = 0;
  bool frozen_ = false;
  bool refilling_ = false;
  bool span_full_ = false;
  uint64_t transitions_count_ = 0;
};

}  // namespace blobcache
