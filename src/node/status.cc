#include "node/status.h"

#include <algorithm>
#include <chrono>
#include <ctime>

#include <fmt/format.h>
#include <unistd.h>

#include "base/text.h"

namespace blobcache::node {
namespace {

struct Sums {
  uint64_t requests = 0;
  uint64_t reads = 0;
  uint64_t memory_hits = 0;
  uint64_t disk_hits = 0;
  uint64_t passthrough_opens = 0;
  uint64_t passthrough_bytes = 0;
  uint64_t origin_reads = 0;
  uint64_t origin_bytes = 0;
  uint64_t interrupts = 0;
  uint64_t deadlines = 0;
  uint64_t errors = 0;
  uint64_t bytes[serve::tier_count] = {};
  uint64_t replies[serve::tier_count] = {};
  HistogramSums read_latency;
};

// {"memory":1,...}
std::string tiers_json(const uint64_t (&values)[serve::tier_count]) {
  return fmt::format(R"({{"memory":{},"disk":{},"peer":{},"origin":{}}})", values[0], values[1], values[2], values[3]);
}

// Pairs of a bucket's upper bound and what is in it, empty ones left out, so that who asks twice knows the times between. The
// last bucket has no bound. Bounds are told in units of `unit_ns`.
std::string buckets_json(const HistogramSums& sums, uint64_t unit_ns = 1) {
  std::string pairs;
  for (unsigned i = 0; i < sums.counts.size(); ++i) {
    if (sums.counts[i] == 0) continue;
    const std::string bound =
        i < histogram::bounds_count ? fmt::format("{}", histogram::bounds_ns[i] / unit_ns) : "null";
    pairs += fmt::format("{}[{},{}]", pairs.empty() ? "" : ",", bound, sums.counts[i]);
  }
  return "[" + pairs + "]";
}

uint64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

std::string slow_json(const serve::SlowRequests& slow) {
  const uint64_t now_ns = monotonic_ns();
  std::string all;
  for (const serve::SlowRequest& each : slow.all()) {
    all += fmt::format(
        R"({}{{"operation":"{}","file":{},"age_s":{},"total_ms":{},"disk_ms":{},"peer_ms":{},"origin_ms":{}}})",
        all.empty() ? "" : ",", each.operation, json_string(each.file),
        now_ns > each.ended_ns ? (now_ns - each.ended_ns) / 1'000'000'000 : 0, each.total_ms, each.disk_ms,
        each.peer_ms, each.origin_ms);
  }
  return "[" + all + "]";
}

// Of what was fetched ahead of readers.
std::string prefetch_json(const std::vector<std::unique_ptr<Core>>& cores, unsigned volume) {
  const auto total = [&](auto counter_of) {
    uint64_t value = 0;
    for (const std::unique_ptr<Core>& core : cores) value += counter_of(core->counters(volume)).value();
    return value;
  };
  using serve::Counters;
  using serve::Tier;
  const auto from = [&](Tier tier) {
    return total([&](const Counters& c) -> const Counter& { return c.prefetch_bytes[static_cast<unsigned>(tier)]; });
  };
  uint64_t in_flight_max = 0;
  for (const std::unique_ptr<Core>& core : cores) {
    in_flight_max = std::max(in_flight_max, core->counters(volume).prefetch_in_flight_max.value());
  }
  return fmt::format(
      R"({{"disk":{},"origin":{},"used":{},"wasted":{},"canceled":{},"pieces":{},"failed":{},"linked":{},"chains":{},)"
      R"("submissions":{},"broken":{},"in_flight_max":{},"files":{},"files_opened":{}}})",
      from(Tier::disk), from(Tier::origin),
      total([](const Counters& c) -> const Counter& { return c.prefetch_used_bytes; }),
      total([](const Counters& c) -> const Counter& { return c.prefetch_wasted_bytes; }),
      total([](const Counters& c) -> const Counter& { return c.prefetch_canceled_bytes; }),
      total([](const Counters& c) -> const Counter& { return c.prefetch_pieces; }),
      total([](const Counters& c) -> const Counter& { return c.prefetch_failed; }),
      total([](const Counters& c) -> const Counter& { return c.prefetch_linked_bytes; }),
      total([](const Counters& c) -> const Counter& { return c.prefetch_chains; }),
      total([](const Counters& c) -> const Counter& { return c.prefetch_submissions; }),
      total([](const Counters& c) -> const Counter& { return c.prefetch_chains_broken; }), in_flight_max,
      total([](const Counters& c) -> const Counter& { return c.prefetch_files; }),
      total([](const Counters& c) -> const Counter& { return c.prefetch_files_opened; }));
}

Sums sum(const std::vector<std::unique_ptr<Core>>& cores, unsigned volume) {
  Sums sums;
  for (const std::unique_ptr<Core>& core : cores) {
    const serve::Counters& counters = core->counters(volume);
    for (const Counter& counter : counters.requests) sums.requests += counter.value();
    for (const auto& place : counters.errors) {
      for (const Counter& counter : place) sums.errors += counter.value();
    }
    for (unsigned tier = 0; tier < serve::tier_count; ++tier) {
      sums.bytes[tier] += counters.bytes[tier].value();
      sums.replies[tier] += counters.replies[tier].value();
    }
    sums.read_latency.add(counters.latency[static_cast<unsigned>(serve::OperationKind::read)]);
    sums.reads += counters.reads.value();
    sums.memory_hits += counters.memory_hits.value();
    sums.disk_hits += counters.disk_hits.value();
    sums.passthrough_opens += counters.passthrough_opens.value();
    sums.passthrough_bytes += counters.passthrough_bytes.value();
    sums.origin_reads += counters.origin_reads.value();
    sums.origin_bytes += counters.origin_bytes.value();
    sums.interrupts += counters.interrupts.value();
    sums.deadlines += counters.deadlines.value();
  }
  return sums;
}

std::string volume_json(const serve::Volume& volume, const std::vector<std::unique_ptr<Core>>& cores) {
  const Sums sums = sum(cores, volume.number);
  return fmt::format(
      R"({{"name":{},"source":{},"mountpoint":{},"transport":"{}","passthrough":{},"open":{},"nodes":{},"nodes_max":{},)"
      R"("requests":{},"reads":{},"memory_hits":{},"disk_hits":{},"passthrough_opens":{},"passthrough_bytes":{},)"
      R"("origin_reads":{},"origin_bytes":{},"interrupts":{},"deadlines":{},)"
      R"("errors":{},"bytes":{},"replies":{},"read_latency_ns":{},"slow":{},"prefetch":{}}})",
      json_string(volume.config.name), json_string(volume.config.source), json_string(volume.config.mountpoint),
      volume.session.facts().uring ? "uring" : "dev", volume.session.facts().passthrough, volume.handles.open_count(),
      volume.inodes.count(), volume.inodes.nodes_max(), sums.requests, sums.reads, sums.memory_hits, sums.disk_hits,
      sums.passthrough_opens, sums.passthrough_bytes, sums.origin_reads, sums.origin_bytes, sums.interrupts,
      sums.deadlines, sums.errors, tiers_json(sums.bytes), tiers_json(sums.replies), buckets_json(sums.read_latency),
      slow_json(volume.slow_requests), prefetch_json(cores, volume.number));
}

std::string origin_json(const serve::Volume& volume) {
  const OriginCounters& counters = volume.origin->counters();
  constexpr uint64_t us_ns = 1000;
  HistogramSums latency;
  latency.add(counters.first_byte);
  return fmt::format(
      R"({{"volume":{},"requests":{},"bytes":{},"retries":{},"throttled":{},"errors":{},"hedges":{},"hedges_won":{},)"
      R"("verified":{},"corrupt":{},)"
      R"("connections":{},"first_byte_us":{{"p50":{},"p95":{},"p99":{},"buckets":{}}}}})",
      json_string(volume.config.name), counters.requests.load(), counters.bytes.load(), counters.retries.load(),
      counters.throttled.load(), counters.errors.load(), counters.hedges.load(), counters.hedges_won.load(),
      counters.verified.load(), counters.corrupt.load(), counters.connections.load(),
      latency.percentile_ns(0.5) / us_ns, latency.percentile_ns(0.95) / us_ns, latency.percentile_ns(0.99) / us_ns,
      buckets_json(latency, us_ns));
}

std::string disk_json(const DiskStats& disk) {
  return fmt::format(
      R"({{"path":{},"state":"{}","why":{},"stacked":{},"used":{},"limit":{},"pinned":{},"pinned_max":{},"evicted_bytes":{},"written_bytes":{},)"
      R"("writes_shed":{},"read_errors":{},"write_errors":{},"corrupt_blocks":{},"scrubbed_bytes":{},"scan_frozen":{}}})",
      json_string(disk.path), state_name(disk.state), json_string(disk.why), disk.stacked, disk.used_bytes,
      disk.limit_bytes, disk.pinned_bytes, disk.pinned_bytes_max, disk.evicted_bytes, disk.written_bytes,
      disk.writes_shed, disk.read_errors, disk.write_errors, disk.corrupt_blocks, disk.scrubbed_bytes,
      disk.scan_frozen);
}

// All disks together, then each.
std::string content_json(const serve::Content& content) {
  if (!content.is_open()) return "null";
  const BlobStore::Facts facts = content.facts();
  return fmt::format(R"({{"limit":{},"used":{},"reserved":{},"blobs":{},"blobs_max":{},"uploads":{},"set_aside":{}}})",
                     facts.limit_bytes, facts.used_bytes, facts.reserved_bytes, facts.blobs, facts.blobs_max,
                     facts.uploads, facts.set_aside);
}

std::string disks_json(const DiskTier* tier) {
  uint64_t used = 0;
  uint64_t limit = 0;
  uint64_t objects = 0;
  std::string disks;
  for (unsigned i = 0; tier != nullptr && i < tier->disk_count(); ++i) {
    const DiskStats stats = tier->stats(i);
    used += stats.used_bytes;
    limit += stats.limit_bytes;
    objects = stats.objects;
    disks += (disks.empty() ? "" : ",") + disk_json(stats);
  }
  return fmt::format(R"({{"used":{},"limit":{},"objects":{},"index_bytes":{},"disks":[{}]}})", used, limit, objects,
                     tier != nullptr ? tier->memory_bytes() : 0, disks);
}

// What the memory limit goes to.
std::string plan_json(const Plan& plan) {
  std::string rows;
  for (const PlanRow& row : plan_rows(plan)) {
    rows += fmt::format(R"({}{{"what":{},"bytes":{},"note":{}}})", rows.empty() ? "" : ",", json_string(row.what),
                        row.bytes, json_string(row.note));
  }
  return "[" + rows + "]";
}

}  // namespace

std::string status_json(const Config& config, const Plan& plan, const SharedState& shared,
                        const std::vector<std::unique_ptr<Core>>& cores) {
  const MemoryTierStats memory = shared.memory->stats();
  const auto uptime =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - shared.started);
  std::string volumes;
  std::string origins;
  for (const std::unique_ptr<serve::Volume>& volume : shared.volumes) {
    if (!volumes.empty()) {
      volumes += ',';
      origins += ',';
    }
    volumes += volume_json(*volume, cores);
    origins += origin_json(*volume);
  }
  return fmt::format(
      R"({{"pid":{},"node":{},"version":"{}","uptime_ms":{},"cores":{},"memory_limit":{},"memory_plan":{},"tiers":{{"memory":{{"arena":{},"used":{},)"
      R"("chunk_frames":{},"block_frames":{},"pinned_frames":{},"evicted_bytes":{}}},"disk":{}}},"content_store":{},)"
      R"("volumes":[{}],"origins":[{}]}})"
      "\n",
      getpid(), json_string(config.node.name), BLOBCACHE_VERSION, uptime.count(), plan.cores, plan.limit_bytes,
      plan_json(plan), memory.arena_bytes, memory.used_bytes, memory.chunk_frames, memory.block_frames,
      memory.pinned_frames, memory.evicted_bytes, disks_json(shared.disk.get()), content_json(shared.content), volumes,
      origins);
}

}  // namespace blobcache::node
