#include "node/status.h"

#include <fmt/format.h>
#include <unistd.h>

namespace blobcache::node {
namespace {

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (byte < 0x20 || byte >= 0x7f) {
      out += fmt::format("\\u{:04x}", byte);
    } else {
      out.push_back(c);
    }
  }
  return out + '"';
}

struct Sums {
  uint64_t requests = 0;
  uint64_t reads = 0;
  uint64_t memory_hits = 0;
  uint64_t origin_reads = 0;
  uint64_t origin_bytes = 0;
  uint64_t interrupts = 0;
  uint64_t deadlines = 0;
  uint64_t errors = 0;
  uint64_t bytes[serve::tier_count] = {};
};

Sums sum(const std::vector<std::unique_ptr<Core>>& cores, unsigned volume) {
  Sums sums;
  for (const std::unique_ptr<Core>& core : cores) {
    const serve::Counters& counters = core->counters(volume);
    for (const Counter& counter : counters.requests) sums.requests += counter.value();
    for (const Counter& counter : counters.errors) sums.errors += counter.value();
    for (unsigned tier = 0; tier < serve::tier_count; ++tier) sums.bytes[tier] += counters.bytes[tier].value();
    sums.reads += counters.reads.value();
    sums.memory_hits += counters.memory_hits.value();
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
      R"({{"name":{},"source":{},"mountpoint":{},"transport":"{}","passthrough":{},"open":{},)"
      R"("requests":{},"reads":{},"memory_hits":{},"origin_reads":{},"origin_bytes":{},"interrupts":{},"deadlines":{},)"
      R"("errors":{},"bytes":{{"memory":{},"disk":{},"peer":{},"origin":{}}}}})",
      quoted(volume.config.name), quoted(volume.config.source), quoted(volume.config.mountpoint),
      volume.session.facts().uring ? "uring" : "dev", volume.session.facts().passthrough, volume.handles.open_count(),
      sums.requests, sums.reads, sums.memory_hits, sums.origin_reads, sums.origin_bytes, sums.interrupts,
      sums.deadlines, sums.errors, sums.bytes[0], sums.bytes[1], sums.bytes[2], sums.bytes[3]);
}

}  // namespace

std::string status_json(const Config& config, const Plan& plan, const SharedState& shared,
                        const std::vector<std::unique_ptr<Core>>& cores) {
  const MemoryTierStats memory = shared.memory->stats();
  std::string volumes;
  for (const std::unique_ptr<serve::Volume>& volume : shared.volumes) {
    if (!volumes.empty()) volumes += ',';
    volumes += volume_json(*volume, cores);
  }
  return fmt::format(
      R"({{"pid":{},"node":{},"version":"{}","cores":{},"memory_limit":{},"tiers":{{"memory":{{"arena":{},"used":{},)"
      R"("chunk_frames":{},"block_frames":{},"pinned_frames":{},"evicted_bytes":{}}}}},"volumes":[{}]}})"
      "\n",
      getpid(), quoted(config.node.name), BLOBCACHE_VERSION, plan.cores, plan.limit_bytes, memory.arena_bytes,
      memory.used_bytes, memory.chunk_frames, memory.block_frames, memory.pinned_frames, memory.evicted_bytes, volumes);
}

}  // namespace blobcache::node
