// The table of metrics: name, type, what it is, and where the number comes from. Names are a contract: dashboards rely on them.
// The first part bears the names of an older system, kept for its dashboards; what they say is true here: the ratios are over
// all READs answered in the last minute, and absent without any; its "l2" is whatever is neither memory nor disk.
#include "node/metrics.h"

#include <cmath>

#include <fmt/format.h>

#include "base/text.h"
#include "origin/origin_counters.h"

namespace blobcache::node {
namespace {

using serve::OperationKind;
using serve::Tier;

constexpr double mega = 1e6;
constexpr std::array<std::string_view, serve::tier_count> tier_names{"memory", "disk", "peer", "origin"};

class Writer {
 public:
  explicit Writer(std::string_view name) : name_(name) {}

  // labels: `a="b"`, as label() makes them; empty: none.
  void value(std::string_view labels, uint64_t number) { line("", labels, fmt::format("{}", number)); }
  void value(std::string_view labels, double number) { line("", labels, fmt::format("{}", number)); }

  // Of the bounds, 1, 2 and 5 of each power of ten are told.
  void histogram(std::string_view labels, const HistogramSums& sums, double units_a_second) {
    const std::string comma = labels.empty() ? "" : ",";
    uint64_t count = 0;
    for (unsigned i = 0; i < histogram::bounds_count; ++i) {
      count += sums.counts[i];
      if (i % (histogram::steps / 3) != 0) continue;
      const double bound = static_cast<double>(histogram::bounds_ns[i]) * 1e-9 * units_a_second;
      line("_bucket", fmt::format("{}{}le=\"{:.6g}\"", labels, comma, bound), fmt::format("{}", count));
    }
    line("_bucket", fmt::format("{}{}le=\"+Inf\"", labels, comma), fmt::format("{}", sums.count()));
    line("_sum", labels, fmt::format("{}", static_cast<double>(sums.sum_ns) * 1e-9 * units_a_second));
    line("_count", labels, fmt::format("{}", sums.count()));
  }

  std::string take() { return std::move(text_); }

 private:
  void line(std::string_view suffix, std::string_view labels, std::string_view number) {
    text_ += name_;
    text_ += suffix;
    if (!labels.empty()) text_ += fmt::format("{{{}}}", labels);
    text_ += fmt::format(" {}\n", number);
  }

  std::string_view name_;
  std::string text_;
};

// One byte that is no UTF-8 would cost the whole scrape.
std::string label(std::string_view name, std::string_view value) {
  std::string out = fmt::format("{}=\"", name);
  for (const char c : plain_text(value)) {
    if (c == '\\' || c == '"') out += '\\';
    out += c;
  }
  return out + '"';
}

std::string label(std::string_view name, const VolumeNumbers& volume) {
  return label(name, volume.volume->config.name);
}

uint64_t of(const std::array<uint64_t, serve::tier_count>& numbers, Tier tier) {
  return numbers[static_cast<unsigned>(tier)];
}
uint64_t far(const std::array<uint64_t, serve::tier_count>& numbers) {
  return of(numbers, Tier::peer) + of(numbers, Tier::origin);
}

// A part of the last minute's replies in percent; nothing when there were none.
void ratio(Writer& out, const Numbers& n, uint64_t part) {
  uint64_t all = 0;
  for (const uint64_t replies : n.minute.replies) all += replies;
  if (all > 0) out.value("", 100.0 * static_cast<double>(part) / static_cast<double>(all));
}

void share(Writer& out, uint64_t used, uint64_t limit) {
  out.value("", limit == 0 ? 0.0 : 100.0 * static_cast<double>(used) / static_cast<double>(limit));
}

uint64_t disk_used(const Numbers& n) {
  uint64_t used = 0;
  for (const DiskStats& disk : n.disks) used += disk.used_bytes;
  return used;
}
uint64_t disk_limit(const Numbers& n) {
  uint64_t limit = 0;
  for (const DiskStats& disk : n.disks) limit += disk.limit_bytes;
  return limit;
}

void latency_ms(Writer& out, const Numbers& n, OperationKind kind) {
  out.histogram("", n.all.latency[static_cast<unsigned>(kind)], 1e3);
}

void read_bytes(Writer& out, const Numbers& n) {
  for (const VolumeNumbers& volume : n.volumes) {
    for (unsigned tier = 0; tier < serve::tier_count; ++tier) {
      out.value(label("volume", volume) + "," + label("tier", tier_names[tier]), volume.bytes[tier]);
    }
  }
}

void fuse_requests(Writer& out, const Numbers& n) {
  for (unsigned kind = 0; kind < serve::operation_kinds; ++kind) {
    out.histogram(label("op", serve::operation_kind_name(static_cast<OperationKind>(kind))), n.all.latency[kind], 1);
  }
}

template <auto Member>
void each_volume(Writer& out, const Numbers& n) {
  for (const VolumeNumbers& volume : n.volumes) out.value(label("volume", volume), volume.*Member);
}

template <auto Member>
void each_disk(Writer& out, const Numbers& n) {
  for (const DiskStats& disk : n.disks) out.value(label("disk", disk.path), static_cast<uint64_t>(disk.*Member));
}

template <auto Member>
void each_origin(Writer& out, const Numbers& n) {
  for (const VolumeNumbers& volume : n.volumes) {
    out.value(label("volume", volume), (volume.volume->origin->counters().*Member).load(std::memory_order_relaxed));
  }
}

// Only what happened at least once: most of the statuses never do.
void origin_times(Writer& out, const Numbers& n) {
  for (const VolumeNumbers& volume : n.volumes) {
    const OriginTimes& times = volume.volume->origin->counters().times;
    for (unsigned verb = 0; verb < OriginTimes::verbs.size(); ++verb) {
      for (unsigned status = 0; status < OriginTimes::statuses.size(); ++status) {
        const HistogramSums sums = times.sums(verb, status);
        if (sums.count() == 0) continue;
        out.histogram(label("volume", volume) + "," + label("verb", OriginTimes::verbs[verb]) + "," +
                          label("status", OriginTimes::statuses[status]),
                      sums, 1);
      }
    }
  }
}

// A directory's reads are no requests, but bytes they are.
void origin_bytes(Writer& out, const Numbers& n) {
  for (const VolumeNumbers& volume : n.volumes) {
    const uint64_t requested = volume.volume->origin->counters().bytes.load(std::memory_order_relaxed);
    const bool remote = volume.volume->origin->keeps_connections_max();
    out.value(label("volume", volume), remote ? requested : volume.origin_bytes);
  }
}

void errors(Writer& out, const Numbers& n) {
  for (unsigned place = 0; place < serve::error_place_count; ++place) {
    for (unsigned code = 0; code < code_count; ++code) {
      const uint64_t count = n.all.errors[place][code];
      if (count == 0) continue;
      out.value(label("code", code_name(static_cast<Code>(code))) + "," +
                    label("where", serve::error_place_name(static_cast<serve::ErrorPlace>(place))),
                count);
    }
  }
}

void busy(Writer& out, const Numbers& n) {
  for (size_t core = 0; core < n.minute.busy.size(); ++core) {
    out.value(label("core", std::to_string(core)), n.minute.busy[core]);
  }
}

void memory_pools(Writer& out, const Numbers& n) {
  const Plan& plan = *n.plan;
  const auto pool = [&](std::string_view name, uint64_t bytes) { out.value(label("pool", name), bytes); };
  pool("arena", plan.arena_bytes);
  pool("descriptors", plan.descriptors_bytes);
  pool("requests", plan.entries_bytes);
  pool("inodes", plan.inodes_bytes);
  pool("origins", plan.origins_bytes);
  pool("disk_index", plan.disk_index_bytes);
  pool("disk_staging", plan.disk_staging_bytes);
  pool("disk_threads", plan.disk_threads_bytes);
  pool("content", plan.content_bytes);
  pool("http", plan.http_bytes);
  pool("program", plan.base_bytes);
  pool("kernel", plan.kernel_bytes);
}

void corrupt(Writer& out, const Numbers& n) {
  uint64_t blocks = 0;
  for (const DiskStats& disk : n.disks) blocks += disk.corrupt_blocks;
  out.value(label("tier", "disk"), blocks);
}

void blob_puts(Writer& out, const Numbers& n) {
  constexpr std::array<std::string_view, put_outcomes> names{"stored", "known", "refused", "mismatched", "failed"};
  for (unsigned i = 0; i < put_outcomes; ++i) out.value(label("outcome", names[i]), n.blobs.puts[i]);
}

struct Metric {
  std::string_view name;
  std::string_view type;
  std::string_view help;
  void (*write)(Writer& out, const Numbers& n);
};

#define SOURCE(...) +[](Writer& out, const Numbers& n) { __VA_ARGS__; }

constexpr Metric metrics[] = {
    {"blobcache_l0_hit_ratio", "gauge", "Percent of the READs of the last minute answered from memory.",
     SOURCE(ratio(out, n, of(n.minute.replies, Tier::memory)))},
    {"blobcache_l1_hit_ratio", "gauge", "Percent of the READs of the last minute answered from a local disk.",
     SOURCE(ratio(out, n, of(n.minute.replies, Tier::disk)))},
    {"blobcache_l2_miss_ratio", "gauge", "Percent of the READs of the last minute answered from peers or the origin.",
     SOURCE(ratio(out, n, far(n.minute.replies)))},
    {"blobcache_l0_hits_total", "counter", "READs answered from memory.",
     SOURCE(out.value("", of(n.all.replies, Tier::memory)))},
    {"blobcache_l1_hits_total", "counter", "READs answered from a local disk.",
     SOURCE(out.value("", of(n.all.replies, Tier::disk)))},
    {"blobcache_l2_misses_total", "counter", "READs answered from peers or the origin.",
     SOURCE(out.value("", far(n.all.replies)))},
    {"blobcache_reads_total", "counter", "READ requests of the kernel.", SOURCE(out.value("", n.all.reads))},
    {"blobcache_l0_bytes_served_total", "counter", "Bytes replied to READs from memory.",
     SOURCE(out.value("", of(n.all.bytes, Tier::memory)))},
    {"blobcache_l1_bytes_served_total", "counter", "Bytes replied to READs from a local disk.",
     SOURCE(out.value("", of(n.all.bytes, Tier::disk)))},
    {"blobcache_l2_bytes_served_total", "counter", "Bytes replied to READs from peers or the origin.",
     SOURCE(out.value("", far(n.all.bytes)))},
    {"blobcache_l2_bytes_fetched_total", "counter", "Bytes taken into the cache from peers or the origin.",
     SOURCE(out.value("", n.all.origin_bytes))},
    {"blobcache_read_throughput_mbps", "gauge", "Bytes replied to READs in the last minute, in 10^6 bytes a second.",
     SOURCE(out.value("", n.minute.seconds > 0 ? static_cast<double>(n.minute.bytes) / mega / n.minute.seconds : 0.0))},
    {"blobcache_fuse_read_latency_ms", "histogram", "Time from a READ's arrival to its reply, in milliseconds.",
     SOURCE(latency_ms(out, n, OperationKind::read))},
    {"blobcache_fuse_lookup_latency_ms", "histogram", "Time from a LOOKUP's arrival to its reply, in milliseconds.",
     SOURCE(latency_ms(out, n, OperationKind::lookup))},
    {"blobcache_fuse_getattr_latency_ms", "histogram", "Time from a GETATTR's arrival to its reply, in milliseconds.",
     SOURCE(latency_ms(out, n, OperationKind::getattr))},
    {"blobcache_disk_cache_usage_mb", "gauge", "What the cache takes of the disks, in 10^6 bytes.",
     SOURCE(out.value("", static_cast<double>(disk_used(n)) / mega))},
    {"blobcache_disk_cache_usage_pct", "gauge", "The same in percent of what it may take.",
     SOURCE(share(out, disk_used(n), disk_limit(n)))},
    {"blobcache_mem_cache_usage_mb", "gauge", "Memory frames that hold an object, in 10^6 bytes.",
     SOURCE(out.value("", static_cast<double>(n.memory.used_bytes) / mega))},
    {"blobcache_mem_cache_usage_pct", "gauge", "The same in percent of all frames.",
     SOURCE(share(out, n.memory.used_bytes, n.memory.arena_bytes))},

    {"blobcache_read_bytes_total", "counter", "Bytes replied to READs, by the tier that they came from.", read_bytes},
    {"blobcache_passthrough_opens_total", "counter", "Opens whose reads the kernel serves itself.",
     each_volume<&VolumeNumbers::passthrough_opens>},
    {"blobcache_passthrough_object_bytes_total", "counter",
     "Sizes of the objects opened so; what is read of them the kernel tells nobody.",
     each_volume<&VolumeNumbers::passthrough_bytes>},
    {"blobcache_fuse_request_seconds", "histogram", "Time from a request's arrival to its reply.", fuse_requests},
    {"blobcache_origin_requests_total", "counter", "Requests sent to the origin's server, repeated ones too.",
     each_origin<&OriginCounters::requests>},
    {"blobcache_origin_request_seconds", "histogram",
     "Time of requests to the origin's server, to the end of the body.", origin_times},
    {"blobcache_origin_hedges_total", "counter", "Ranges asked for a second time since the first answer stalled.",
     each_origin<&OriginCounters::hedges>},
    {"blobcache_origin_corrupt_answers_total", "counter", "Answers that did not match the store's checksum.",
     each_origin<&OriginCounters::corrupt>},
    {"blobcache_origin_request_bytes_total", "counter", "Bytes of bodies that came from the origin.", origin_bytes},
    {"blobcache_origin_retries_total", "counter", "Requests to the origin that were repetitions.",
     each_origin<&OriginCounters::retries>},
    {"blobcache_origin_throttled_total", "counter", "Answers 429 and 503 of the origin.",
     each_origin<&OriginCounters::throttled>},
    {"blobcache_origin_errors_total", "counter", "Requests to the origin that failed in the end.",
     each_origin<&OriginCounters::errors>},
    {"blobcache_prefetch_bytes_total", "counter", "Bytes fetched ahead of readers, by what became of them.",
     SOURCE(out.value(label("outcome", "used"), n.all.prefetch_used);
            out.value(label("outcome", "wasted"), n.all.prefetch_wasted))},
    {"blobcache_corrupt_blocks_total", "counter", "Blocks whose checksum did not match.", corrupt},
    {"blobcache_evicted_bytes_total", "counter", "Bytes that left a disk to make room.",
     each_disk<&DiskStats::evicted_bytes>},
    {"blobcache_disk_written_bytes_total", "counter", "Bytes written to a disk.", each_disk<&DiskStats::written_bytes>},
    {"blobcache_disk_used_bytes", "gauge", "What the cache takes of a disk.", each_disk<&DiskStats::used_bytes>},
    {"blobcache_disk_limit_bytes", "gauge", "What it may take.", each_disk<&DiskStats::limit_bytes>},
    {"blobcache_disk_pinned_bytes", "gauge", "What of a disk is pinned and may not leave.",
     each_disk<&DiskStats::pinned_bytes>},
    {"blobcache_disk_state", "gauge", "0: ok, 1: not written to, 2: not used.", each_disk<&DiskStats::state>},
    {"blobcache_blobs", "gauge", "Blobs of the content store.", SOURCE(out.value("", n.blobs.blobs))},
    {"blobcache_blob_bytes", "gauge", "What they take of the disks, with what was set aside.",
     SOURCE(out.value("", n.blobs.used_bytes))},
    {"blobcache_blob_limit_bytes", "gauge", "What they may take.", SOURCE(out.value("", n.blobs.limit_bytes))},
    {"blobcache_blob_puts_total", "counter",
     "Wishes to store a blob, by what became of them; refused: no room, or too many at a time.", blob_puts},
    {"blobcache_blob_gets_total", "counter", "Blobs opened to be read.", SOURCE(out.value("", n.blobs.opened))},
    {"blobcache_blobs_expired_total", "counter", "Blobs whose time was over.", SOURCE(out.value("", n.blobs.expired))},
    {"blobcache_blobs_corrupt_total", "counter", "Blobs set aside because they did not match their checksums.",
     SOURCE(out.value("", n.blobs.set_aside))},
    {"blobcache_errors_total", "counter", "Errors that were handled, by what and where.", errors},
    {"blobcache_reactor_busy_ratio", "gauge", "Part of the last minute that a core was not waiting.", busy},
    {"blobcache_memory_bytes", "gauge", "Memory by what it is for, as planned at the start.", memory_pools},
    {"blobcache_build_info", "gauge", "Always 1.",
     SOURCE((void)n; out.value(label("version", BLOBCACHE_VERSION), uint64_t{1}))},
};

}  // namespace

std::string metrics_text(const Numbers& numbers) {
  std::string text;
  for (const Metric& metric : metrics) {
    Writer out(metric.name);
    metric.write(out, numbers);
    // What has no value yet is named all the same: whoever writes a rule sees that it exists.
    text +=
        fmt::format("# HELP {} {}\n# TYPE {} {}\n{}", metric.name, metric.help, metric.name, metric.type, out.take());
  }
  return text;
}

}  // namespace blobcache::node
