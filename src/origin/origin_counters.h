// OriginCounters: what the requests to an origin's server cost and how they fared. A directory's reads are no requests; they
// are counted where they are made (serve/counters.h).
//   Thread    any core adds, anyone reads; each number is right for itself, not beside the others
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>

#include "base/histogram.h"

namespace blobcache {

// How long requests to the server took, to the end of their body, by verb and status.
class OriginTimes {
 public:
  static constexpr std::array<std::string_view, 2> verbs{"GET", "HEAD"};
  // "none": no answer came; "other": what has no place here.
  static constexpr std::array<std::string_view, 15> statuses{"200", "206", "301", "304", "307", "400",  "403",  "404",
                                                             "412", "416", "429", "500", "503", "none", "other"};

  void add(bool head, long status, uint64_t ns) { series_[head ? 1 : 0][place_of(status)].add(ns); }
  HistogramSums sums(unsigned verb, unsigned status) const {
    HistogramSums sums;
    sums.add(series_[verb][status]);
    return sums;
  }

 private:
  static unsigned place_of(long status) {
    if (status == 0) return statuses.size() - 2;
    for (unsigned i = 0; i < statuses.size() - 2; ++i) {
      const std::string_view text = statuses[i];
      if (status == (text[0] - '0') * 100 + (text[1] - '0') * 10 + (text[2] - '0')) return i;
    }
    return statuses.size() - 1;
  }
  std::array<std::array<SharedHistogram, statuses.size()>, verbs.size()> series_{};
};

struct OriginCounters {
  std::atomic<uint64_t> requests{0};      // attempts that were sent, repeated ones too
  std::atomic<uint64_t> bytes{0};         // of bodies, those of attempts that broke off too
  std::atomic<uint64_t> retries{0};       // attempts after the first one of a request
  std::atomic<uint64_t> throttled{0};     // answers 429 and 503
  std::atomic<uint64_t> errors{0};        // requests that failed in the end; "not found" and "replaced" are answers
  std::atomic<uint64_t> hedges{0};        // second attempts beside a first one that stalled
  std::atomic<uint64_t> hedges_won{0};    // those that brought the bytes
  std::atomic<unsigned> hedge_credit{0};  // what all cores have earned for the next ones (http_hedge.cc)
  std::atomic<uint64_t> verified{0};      // whole objects that matched the store's checksum
  std::atomic<uint64_t> corrupt{0};       // answers that did not
  std::atomic<bool> md5_matched{false};   // some ETag was the MD5 of its object
  std::atomic<bool> etags_are_no_md5{false};
  std::atomic<uint64_t> connections{0};  // made; the rest of the attempts reused one
  OriginTimes times;
  SharedHistogram first_byte;        // from an attempt's start to its answer's first byte
  SharedHistogram range_first_byte;  // the same of ranges that were had; what lost a race counts as long as it ran
};

}  // namespace blobcache
