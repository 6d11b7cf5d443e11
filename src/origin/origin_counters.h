// OriginCounters: what the requests to an origin's server cost and how they fared. A directory's reads are no requests; they
// are counted where they are made (serve/counters.h).
//   Thread    any core adds, anyone reads; each number is right for itself, not beside the others
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <string_view>

#include "base/histogram.h"

namespace blobcache {

// Times in microseconds, in buckets of a quarter of a power of two: 64 us to 4 s, what is outside in the first and last.
class LatencyHistogram {
 public:
  static constexpr unsigned buckets = 64;

  void add(uint64_t us) { counts_[bucket_of(us)].fetch_add(1, std::memory_order_relaxed); }
  uint64_t count() const {
    uint64_t total = 0;
    for (const std::atomic<uint64_t>& bucket : counts_) total += bucket.load(std::memory_order_relaxed);
    return total;
  }
  uint64_t count(unsigned bucket) const { return counts_[bucket].load(std::memory_order_relaxed); }
  // An upper bound of the share (0 to 1) of all that is lowest, at most a quarter too high; 0: nothing was added.
  uint64_t percentile_us(double share) const {
    const auto wanted = static_cast<uint64_t>(share * static_cast<double>(count()));
    uint64_t seen = 0;
    for (unsigned i = 0; i < buckets; ++i) {
      seen += counts_[i].load(std::memory_order_relaxed);
      if (seen > 0 && seen >= wanted) return bucket_end_us(i);
    }
    return 0;
  }

  static unsigned bucket_of(uint64_t us) {
    if (us < first_us) return 0;
    const auto octave = static_cast<unsigned>(std::bit_width(us / first_us)) - 1;
    const auto quarter = static_cast<unsigned>(us >> (octave + first_us_bits - 2) & 3);
    const unsigned bucket = octave * 4 + quarter;
    return bucket < buckets ? bucket : buckets - 1;
  }
  static uint64_t bucket_end_us(unsigned bucket) { return (first_us + (bucket % 4 + 1) * first_us / 4) << bucket / 4; }

 private:
  static constexpr uint64_t first_us = 64;
  static constexpr unsigned first_us_bits = 6;
  std::array<std::atomic<uint64_t>, buckets> counts_{};
};

// How long requests to the server took, to the end of their body, by verb and status.
class OriginTimes {
 public:
  static constexpr std::array<std::string_view, 2> verbs{"GET", "HEAD"};
  // "none": no answer came; "other": what has no place here.
  static constexpr std::array<std::string_view, 15> statuses{"200", "206", "301", "304", "307", "400",  "403",  "404",
                                                             "412", "416", "429", "500", "503", "none", "other"};

  void add(bool head, long status, uint64_t ns) {
    Series& series = series_[head ? 1 : 0][place_of(status)];
    series.counts[histogram::bucket_of(ns)].fetch_add(1, std::memory_order_relaxed);
    series.sum_ns.fetch_add(ns, std::memory_order_relaxed);
  }
  HistogramSums sums(unsigned verb, unsigned status) const {
    const Series& series = series_[verb][status];
    HistogramSums sums;
    for (unsigned i = 0; i < sums.counts.size(); ++i) sums.counts[i] = series.counts[i].load(std::memory_order_relaxed);
    sums.sum_ns = series.sum_ns.load(std::memory_order_relaxed);
    return sums;
  }

 private:
  struct Series {
    std::array<std::atomic<uint64_t>, histogram::bounds_count + 1> counts{};
    std::atomic<uint64_t> sum_ns{0};
  };
  static unsigned place_of(long status) {
    if (status == 0) return statuses.size() - 2;
    for (unsigned i = 0; i < statuses.size() - 2; ++i) {
      const std::string_view text = statuses[i];
      if (status == (text[0] - '0') * 100 + (text[1] - '0') * 10 + (text[2] - '0')) return i;
    }
    return statuses.size() - 1;
  }
  std::array<std::array<Series, statuses.size()>, verbs.size()> series_{};
};

struct OriginCounters {
  std::atomic<uint64_t> requests{0};     // attempts that were sent, repeated ones too
  std::atomic<uint64_t> bytes{0};        // of bodies, those of attempts that broke off too
  std::atomic<uint64_t> retries{0};      // attempts after the first one of a request
  std::atomic<uint64_t> throttled{0};    // answers 429 and 503
  std::atomic<uint64_t> errors{0};       // requests that failed in the end; "not found" and "replaced" are answers
  std::atomic<uint64_t> hedges{0};       // second attempts beside a first one that stalled
  std::atomic<uint64_t> hedges_won{0};   // those that brought the bytes
  std::atomic<uint64_t> verified{0};     // whole objects that matched the store's checksum
  std::atomic<uint64_t> corrupt{0};      // answers that did not
  std::atomic<bool> md5_matched{false};  // some ETag was the MD5 of its object
  std::atomic<bool> etags_are_no_md5{false};
  std::atomic<uint64_t> connections{0};  // made; the rest of the attempts reused one
  OriginTimes times;
  LatencyHistogram first_byte_us;        // from an attempt's start to its answer's first byte
  LatencyHistogram range_first_byte_us;  // the same of ranges that were had; what lost a race counts as long as it ran
};

}  // namespace blobcache
