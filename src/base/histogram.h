// How long things took.
//   Histogram        one core adds (no locked instruction), anyone reads
//   SharedHistogram  anyone adds
//   Buckets   twelve of each power of ten from 1 us to 85 s, each about a quarter above the one before, and what is longer
//   Merging   HistogramSums of all cores, when somebody asks
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

#include "base/counter.h"

namespace blobcache {

namespace histogram {

inline constexpr unsigned steps = 12;  // a power of ten; 1, 2 and 5 are every fourth
inline constexpr unsigned bounds_count = 8 * steps;

// Upper bounds, the last one of all that fits in no other left out.
inline constexpr std::array<uint64_t, bounds_count> bounds_ns = [] {
  constexpr std::array<uint64_t, steps> hundredths{100, 120, 145, 170, 200, 250, 315, 400, 500, 600, 720, 850};
  std::array<uint64_t, bounds_count> bounds{};
  uint64_t unit_ns = 10;
  for (unsigned i = 0; i < bounds_count; ++i) {
    bounds[i] = hundredths[i % steps] * unit_ns;
    if (i % steps == steps - 1) unit_ns *= 10;
  }
  return bounds;
}();

// For a value of so many bits: the first bucket that it can be in.
inline constexpr std::array<uint8_t, 65> first_bucket = [] {
  std::array<uint8_t, 65> first{};
  for (unsigned bits = 1; bits <= 64; ++bits) {
    const uint64_t least = uint64_t{1} << (bits - 1);
    while (first[bits] < bounds_count && bounds_ns[first[bits]] < least) ++first[bits];
  }
  return first;
}();

inline constexpr unsigned bucket_of(uint64_t ns) {
  unsigned bucket = first_bucket[static_cast<unsigned>(std::bit_width(ns))];
  while (bucket < bounds_count && bounds_ns[bucket] < ns) ++bucket;
  return bucket;
}

}  // namespace histogram

class Histogram {
 public:
  void add(uint64_t ns) {
    counts_[histogram::bucket_of(ns)].add(1);
    sum_ns_.add(ns);
  }

 private:
  friend struct HistogramSums;
  std::array<Counter, histogram::bounds_count + 1> counts_;
  Counter sum_ns_;
};

class SharedHistogram {
 public:
  void add(uint64_t ns) {
    counts_[histogram::bucket_of(ns)].fetch_add(1, std::memory_order_relaxed);
    sum_ns_.fetch_add(ns, std::memory_order_relaxed);
  }

 private:
  friend struct HistogramSums;
  std::array<std::atomic<uint64_t>, histogram::bounds_count + 1> counts_{};
  std::atomic<uint64_t> sum_ns_{0};
};

struct HistogramSums {
  std::array<uint64_t, histogram::bounds_count + 1> counts{};
  uint64_t sum_ns = 0;

  void add(const Histogram& histogram) {
    for (unsigned i = 0; i < counts.size(); ++i) counts[i] += histogram.counts_[i].value();
    sum_ns += histogram.sum_ns_.value();
  }
  void add(const SharedHistogram& histogram) {
    for (unsigned i = 0; i < counts.size(); ++i) counts[i] += histogram.counts_[i].load(std::memory_order_relaxed);
    sum_ns += histogram.sum_ns_.load(std::memory_order_relaxed);
  }
  void add(const HistogramSums& other) {
    for (unsigned i = 0; i < counts.size(); ++i) counts[i] += other.counts[i];
    sum_ns += other.sum_ns;
  }
  uint64_t count() const {
    uint64_t total = 0;
    for (const uint64_t each : counts) total += each;
    return total;
  }
  // An upper bound of the share (0 to 1) of all that is lowest, about a quarter too high at most; 0: nothing was added.
  uint64_t percentile_ns(double share) const {
    const auto wanted = static_cast<uint64_t>(share * static_cast<double>(count()));
    uint64_t seen = 0;
    for (unsigned i = 0; i < histogram::bounds_count; ++i) {
      seen += counts[i];
      if (seen > 0 && seen >= wanted) return histogram::bounds_ns[i];
    }
    return seen == count() ? 0 : histogram::bounds_ns.back();
  }
};

}  // namespace blobcache
