#include "node/metrics.h"

#include <ctime>

namespace blobcache::node {
namespace {

constexpr uint64_t second_ns = 1'000'000'000;
constexpr uint64_t minute_ns = 60 * second_ns;

uint64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * second_ns + static_cast<uint64_t>(now.tv_nsec);
}

void add(VolumeNumbers& sum, const serve::Counters& counters) {
  for (unsigned tier = 0; tier < serve::tier_count; ++tier) {
    sum.bytes[tier] += counters.bytes[tier].value();
    sum.replies[tier] += counters.replies[tier].value();
  }
  sum.reads += counters.reads.value();
  sum.origin_bytes += counters.origin_bytes.value();
  sum.passthrough_opens += counters.passthrough_opens.value();
  sum.passthrough_bytes += counters.passthrough_bytes.value();
  sum.prefetch_used += counters.prefetch_used_bytes.value();
  sum.prefetch_wasted += counters.prefetch_wasted_bytes.value();
  for (unsigned place = 0; place < serve::error_place_count; ++place) {
    for (unsigned code = 0; code < code_count; ++code) {
      sum.errors[place][code] += counters.errors[place][code].value();
    }
  }
  for (unsigned kind = 0; kind < serve::operation_kinds; ++kind) sum.latency[kind].add(counters.latency[kind]);
}

}  // namespace

Numbers Metrics::numbers() const {
  Numbers numbers;
  for (const std::unique_ptr<serve::Volume>& volume : view_.shared->volumes) {
    VolumeNumbers& sum = numbers.volumes.emplace_back();
    sum.volume = volume.get();
    for (const std::unique_ptr<Core>& core : *view_.cores) {
      add(sum, core->counters(volume->number));
      add(numbers.all, core->counters(volume->number));
    }
  }
  numbers.memory = view_.shared->memory->stats();
  if (const DiskTier* disk = view_.shared->disk.get(); disk != nullptr) {
    for (unsigned i = 0; i < disk->disk_count(); ++i) numbers.disks.push_back(disk->stats(i));
  }
  if (view_.shared->content.is_open()) numbers.blobs = view_.shared->content.facts();
  numbers.plan = view_.plan;
  numbers.minute = window(numbers.all);
  return numbers;
}

Metrics::Sample Metrics::take_sample(const VolumeNumbers& all) const {
  Sample sample{.at_ns = now_ns(), .replies = all.replies};
  for (const uint64_t bytes : all.bytes) sample.bytes += bytes;
  for (const std::unique_ptr<Core>& core : *view_.cores) {
    sample.busy_ns.push_back(core->reactor().counters().busy_ns.value());
  }
  return sample;
}

void Metrics::sample() {
  VolumeNumbers all;
  for (const std::unique_ptr<serve::Volume>& volume : view_.shared->volumes) {
    for (const std::unique_ptr<Core>& core : *view_.cores) add(all, core->counters(volume->number));
  }
  samples_.push_back(take_sample(all));
  // The oldest one that is kept is as old as a minute, or all there is.
  while (samples_.size() > 1 && samples_.back().at_ns - samples_[1].at_ns >= minute_ns) samples_.pop_front();
}

Window Metrics::window(const VolumeNumbers& all) const {
  Window window;
  if (samples_.empty()) return window;
  const Sample now = take_sample(all);
  const Sample& then = samples_.front();
  window.seconds = static_cast<double>(now.at_ns - then.at_ns) / second_ns;
  window.bytes = now.bytes - then.bytes;
  for (unsigned tier = 0; tier < serve::tier_count; ++tier)
    window.replies[tier] = now.replies[tier] - then.replies[tier];
  for (size_t core = 0; core < now.busy_ns.size(); ++core) {
    window.busy.push_back(static_cast<double>(now.busy_ns[core] - then.busy_ns[core]) / second_ns / window.seconds);
  }
  return window;
}

std::string Metrics::text() const { return metrics_text(numbers()); }

}  // namespace blobcache::node
