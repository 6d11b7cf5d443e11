// Metrics: the node's numbers as Prometheus reads them. What there is stands in one table (metrics_table.cc); the numbers are
// the cores' plain counters, added up when somebody asks.
//   Owner     Endpoint.   Thread  one (that of Reports); the counters are read while cores count
//   Sums      a number is right for itself; numbers of one answer may be some requests apart
//   Ratios    over the last minute, from samples: sample() every few seconds
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "base/histogram.h"
#include "node/view.h"
#include "serve/counters.h"

namespace blobcache::node {

struct VolumeNumbers {
  const serve::Volume* volume = nullptr;
  std::array<uint64_t, serve::tier_count> bytes{};
  std::array<uint64_t, serve::tier_count> replies{};
  uint64_t reads = 0;
  uint64_t origin_bytes = 0;
  uint64_t passthrough_opens = 0;
  uint64_t passthrough_bytes = 0;
  uint64_t prefetch_used = 0;
  uint64_t prefetch_wasted = 0;
  std::array<std::array<uint64_t, code_count>, serve::error_place_count> errors{};
  std::array<HistogramSums, serve::operation_kinds> latency;
};

// What changed in the last minute.
struct Window {
  double seconds = 0;  // 0: there is no sample yet
  std::array<uint64_t, serve::tier_count> replies{};
  uint64_t bytes = 0;
  std::vector<double> busy;  // of each core, 0 to 1
};

// All that the table's lines are made from.
struct Numbers {
  std::vector<VolumeNumbers> volumes;
  VolumeNumbers all;
  Window minute;
  MemoryTierStats memory;
  std::vector<DiskStats> disks;
  BlobStore::Facts blobs;  // all zero without a content store
  const Plan* plan = nullptr;
};

class Metrics {
 public:
  explicit Metrics(const NodeView& view) : view_(view) {}
  void sample();
  Numbers numbers() const;
  std::string text() const;

 private:
  struct Sample {
    uint64_t at_ns = 0;
    std::array<uint64_t, serve::tier_count> replies{};
    uint64_t bytes = 0;
    std::vector<uint64_t> busy_ns;
  };
  Sample take_sample(const VolumeNumbers& all) const;
  Window window(const VolumeNumbers& all) const;

  const NodeView view_;
  std::deque<Sample> samples_;  // of a little more than a minute, the oldest first
};

// Prometheus' text format, version 0.0.4. Defined in metrics_table.cc.
std::string metrics_text(const Numbers& numbers);

}  // namespace blobcache::node
