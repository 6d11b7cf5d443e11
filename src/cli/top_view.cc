// A status tells sums since the start, of bytes as of latencies (their histograms); what lies between two of them is the
// difference. So the node keeps nothing for who watches it, and two who watch do not disturb each other.
#include "cli/top_view.h"

#include <algorithm>
#include <map>

#include "base/histogram.h"

namespace blobcache::cli {
namespace {

using Json = nlohmann::json;
constexpr size_t tier_count = 4;
constexpr const char* tier_names[tier_count] = {"memory", "disk", "peer", "origin"};

const Json& member(const Json& json, const char* key) {
  static const Json nothing;
  const auto found = json.is_object() ? json.find(key) : json.end();
  return json.is_object() && found != json.end() ? *found : nothing;
}

uint64_t number(const Json& json, const char* key) {
  const Json& value = member(json, key);
  return value.is_number_unsigned() ? value.get<uint64_t>() : 0;
}

std::string text(const Json& json, const char* key) {
  const Json& value = member(json, key);
  return value.is_string() ? value.get<std::string>() : "";
}

uint64_t grown(uint64_t before, uint64_t after) { return after >= before ? after - before : after; }

uint64_t grown(const Json& before, const Json& after, const char* key) {
  return grown(number(before, key), number(after, key));
}

// A histogram as pairs of an upper bound and a count. What is longer than all bounds is told as the last of them.
using Buckets = std::map<double, uint64_t>;

void add_buckets(Buckets& sums, const Json& pairs) {
  if (!pairs.is_array()) return;
  for (const Json& pair : pairs) {
    if (!pair.is_array() || pair.size() != 2 || !pair[1].is_number_unsigned()) continue;
    const double bound = pair[0].is_number() ? pair[0].get<double>() : static_cast<double>(histogram::bounds_ns.back());
    sums[bound] += pair[1].get<uint64_t>();
  }
}

struct Histograms {
  Buckets before;
  Buckets after;

  void add(const Json& pairs_before, const Json& pairs_after) {
    add_buckets(before, pairs_before);
    add_buckets(after, pairs_after);
  }
  TopLatency latency(double us_a_unit) const {
    Buckets between;
    uint64_t total = 0;
    for (const auto& [bound, count] : after) {
      const auto old = before.find(bound);
      const uint64_t more = grown(old == before.end() ? 0 : old->second, count);
      if (more > 0) between[bound] = more;
      total += more;
    }
    const auto percentile = [&](double share) -> std::optional<double> {
      const double wanted = share * static_cast<double>(total);
      uint64_t seen = 0;
      for (const auto& [bound, count] : between) {
        seen += count;
        if (static_cast<double>(seen) >= wanted) return bound * us_a_unit;
      }
      return std::nullopt;
    };
    return {percentile(0.5), percentile(0.99)};
  }
};

// The element of an array that says the same under `key`; null where there is none.
const Json& same(const Json& list, const Json& element, const char* key) {
  static const Json nothing;
  if (!list.is_array()) return nothing;
  for (const Json& each : list) {
    if (member(each, key) == member(element, key)) return each;
  }
  return nothing;
}

// All that is summed up over volumes.
struct Sums {
  uint64_t bytes[tier_count] = {};
  uint64_t replies[tier_count] = {};
  Histograms latency;
};

void add_volume(const Json& before, const Json& after, TopView& view, Sums& sums) {
  constexpr double us_a_ns = 0.001;
  TopVolume& volume = view.volumes.emplace_back(TopVolume{
      .mountpoint = text(after, "mountpoint"), .source = text(after, "source"), .open = number(after, "open")});
  uint64_t bytes = 0;
  for (size_t tier = 0; tier < tier_count; ++tier) {
    const uint64_t more = grown(member(before, "bytes"), member(after, "bytes"), tier_names[tier]);
    bytes += more;
    sums.bytes[tier] += more;
    sums.replies[tier] += grown(member(before, "replies"), member(after, "replies"), tier_names[tier]);
  }
  Histograms latency;
  latency.add(member(before, "read_latency_ns"), member(after, "read_latency_ns"));
  sums.latency.add(member(before, "read_latency_ns"), member(after, "read_latency_ns"));
  volume.latency = latency.latency(us_a_ns);
  volume.bytes_per_s = static_cast<double>(bytes) / view.seconds;
  volume.reads_per_s = static_cast<double>(grown(before, after, "reads")) / view.seconds;
  volume.errors_per_s = static_cast<double>(grown(before, after, "errors")) / view.seconds;
  view.reads_per_s += volume.reads_per_s;
  view.bytes_per_s += volume.bytes_per_s;
  view.errors_per_s += volume.errors_per_s;
  view.passthrough_opens += number(after, "passthrough_opens");
  view.passthrough_bytes += number(after, "passthrough_bytes");

  const Json& ahead_before = member(before, "prefetch");
  const Json& ahead = member(after, "prefetch");
  const uint64_t fetched = grown(ahead_before, ahead, "disk") + grown(ahead_before, ahead, "origin");
  view.prefetch.fetched_per_s += static_cast<double>(fetched) / view.seconds;
  view.prefetch.used_per_s += static_cast<double>(grown(ahead_before, ahead, "used")) / view.seconds;
  view.prefetch.used += number(ahead, "used");
  view.prefetch.wasted += number(ahead, "wasted");

  for (const Json& slow : member(after, "slow")) {
    view.slow.push_back({.file = text(slow, "file"),
                         .operation = text(slow, "operation"),
                         .age_s = number(slow, "age_s"),
                         .total_ms = number(slow, "total_ms"),
                         .disk_ms = number(slow, "disk_ms"),
                         .peer_ms = number(slow, "peer_ms"),
                         .origin_ms = number(slow, "origin_ms")});
  }
}

void add_tiers(const Json& after, const Sums& sums, TopView& view) {
  const Json& tiers = member(after, "tiers");
  const Json& memory = member(tiers, "memory");
  const Json& disk = member(tiers, "disk");
  uint64_t replies = 0;
  for (const uint64_t each : sums.replies) replies += each;
  for (size_t i = 0; i < tier_count; ++i) {
    TopTier tier{.name = tier_names[i], .bytes_per_s = static_cast<double>(sums.bytes[i]) / view.seconds};
    if (i == 0) tier.used = number(memory, "used"), tier.limit = number(memory, "arena");
    if (i == 1) tier.used = number(disk, "used"), tier.limit = number(disk, "limit");
    if (replies > 0) tier.hit_ratio = static_cast<double>(sums.replies[i]) / static_cast<double>(replies);
    view.tiers.push_back(tier);
  }
}

void add_disk(const Json& before, const Json& after, TopView& view) {
  view.disks.push_back(
      {.path = text(after, "path"),
       .state = text(after, "state"),
       .why = text(after, "why"),
       .used = number(after, "used"),
       .limit = number(after, "limit"),
       .written_per_s = static_cast<double>(grown(before, after, "written_bytes")) / view.seconds,
       .evicted_per_s = static_cast<double>(grown(before, after, "evicted_bytes")) / view.seconds,
       .errors = number(after, "read_errors") + number(after, "write_errors") + number(after, "corrupt_blocks")});
}

// A directory's reads are no requests to a server; they are counted with its volume.
void add_origin(const Json& before, const Json& after, const Json& volume_before, const Json& volume_after,
                TopView& view) {
  Histograms first_byte;
  first_byte.add(member(member(before, "first_byte_us"), "buckets"), member(member(after, "first_byte_us"), "buckets"));
  const bool remote = number(after, "requests") > 0;
  const uint64_t requests =
      remote ? grown(before, after, "requests") : grown(volume_before, volume_after, "origin_reads");
  const uint64_t bytes = remote ? grown(before, after, "bytes") : grown(volume_before, volume_after, "origin_bytes");
  view.origins.push_back({.volume = text(after, "volume"),
                          .remote = remote,
                          .requests_per_s = static_cast<double>(requests) / view.seconds,
                          .bytes_per_s = static_cast<double>(bytes) / view.seconds,
                          .retries_per_s = static_cast<double>(grown(before, after, "retries")) / view.seconds,
                          .errors = number(after, "errors"),
                          .first_byte = first_byte.latency(1)});
}

nlohmann::ordered_json optional_json(const std::optional<double>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
}

nlohmann::ordered_json latency_json(const TopLatency& latency) {
  return {{"p50", optional_json(latency.p50_us)}, {"p99", optional_json(latency.p99_us)}};
}

template <class T, class Make>
nlohmann::ordered_json list_json(const std::vector<T>& list, Make&& make) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const T& each : list) json.push_back(make(each));
  return json;
}

}  // namespace

std::optional<TopView> top_view(const Json& before, const Json& after, double seconds) {
  if (!member(before, "tiers").is_object() || !member(after, "tiers").is_object()) return std::nullopt;
  TopView view{.node = text(after, "node"),
               .version = text(after, "version"),
               .pid = static_cast<int64_t>(number(after, "pid")),
               .seconds = std::max(seconds, 1e-3)};
  Sums sums;
  const Json& volumes_before = member(before, "volumes");
  const Json& volumes = member(after, "volumes");
  for (const Json& each : volumes) add_volume(same(volumes_before, each, "mountpoint"), each, view, sums);
  view.latency = sums.latency.latency(0.001);
  add_tiers(after, sums, view);
  const Json& disks_before = member(member(member(before, "tiers"), "disk"), "disks");
  for (const Json& each : member(member(member(after, "tiers"), "disk"), "disks")) {
    add_disk(same(disks_before, each, "path"), each, view);
  }
  // One for each volume, in their order; a volume may have no name of its own.
  const Json& origins = member(after, "origins");
  const Json& origins_before = member(before, "origins");
  if (!origins.is_array() || !volumes.is_array()) return std::nullopt;
  for (size_t i = 0; i < origins.size() && i < volumes.size(); ++i) {
    const bool known = origins_before.is_array() && origins_before.size() == origins.size();
    const Json& old = known ? origins_before[i] : member(Json(), "");
    add_origin(old, origins[i], same(volumes_before, volumes[i], "mountpoint"), volumes[i], view);
    if (view.origins.back().volume.empty()) view.origins.back().volume = view.volumes[i].mountpoint;
  }
  // Not stable_sort: libstdc++ 12's uses what clang calls deprecated.
  std::sort(view.slow.begin(), view.slow.end(), [](const TopSlow& a, const TopSlow& b) {
    return std::pair(b.total_ms, a.age_s) < std::pair(a.total_ms, b.age_s);
  });
  return view;
}

nlohmann::ordered_json top_json(const TopView& view) {
  nlohmann::ordered_json json{{"node", view.node},
                              {"version", view.version},
                              {"pid", view.pid},
                              {"seconds", view.seconds},
                              {"reads_per_s", view.reads_per_s},
                              {"bytes_per_s", view.bytes_per_s},
                              {"errors_per_s", view.errors_per_s},
                              {"read_latency_us", latency_json(view.latency)},
                              {"passthrough", {{"opens", view.passthrough_opens}, {"bytes", view.passthrough_bytes}}}};
  json["tiers"] = list_json(view.tiers, [](const TopTier& tier) {
    return nlohmann::ordered_json{{"name", tier.name},
                                  {"used", tier.used},
                                  {"limit", tier.limit},
                                  {"hit_ratio", optional_json(tier.hit_ratio)},
                                  {"bytes_per_s", tier.bytes_per_s}};
  });
  json["volumes"] = list_json(view.volumes, [](const TopVolume& volume) {
    return nlohmann::ordered_json{
        {"mountpoint", volume.mountpoint},
        {"source", volume.source},
        {"open", volume.open},
        {"reads_per_s", volume.reads_per_s},
        {"bytes_per_s", volume.bytes_per_s},
        {"read_latency_us", latency_json(volume.latency)},
        {"errors_per_s", volume.errors_per_s},
    };
  });
  json["disks"] = list_json(view.disks, [](const TopDisk& disk) {
    return nlohmann::ordered_json{{"path", disk.path},
                                  {"state", disk.state},
                                  {"why", disk.why},
                                  {"used", disk.used},
                                  {"limit", disk.limit},
                                  {"written_per_s", disk.written_per_s},
                                  {"evicted_per_s", disk.evicted_per_s},
                                  {"errors", disk.errors}};
  });
  json["origins"] = list_json(view.origins, [](const TopOrigin& origin) {
    return nlohmann::ordered_json{
        {"volume", origin.volume},           {"requests_per_s", origin.requests_per_s},
        {"bytes_per_s", origin.bytes_per_s}, {"retries_per_s", origin.retries_per_s},
        {"errors", origin.errors},           {"first_byte_us", latency_json(origin.first_byte)}};
  });
  json["prefetch"] = {{"fetched_per_s", view.prefetch.fetched_per_s},
                      {"used_per_s", view.prefetch.used_per_s},
                      {"used", view.prefetch.used},
                      {"wasted", view.prefetch.wasted}};
  json["slow"] = list_json(view.slow, [](const TopSlow& slow) {
    return nlohmann::ordered_json{{"operation", slow.operation}, {"file", slow.file},       {"age_s", slow.age_s},
                                  {"total_ms", slow.total_ms},   {"disk_ms", slow.disk_ms}, {"peer_ms", slow.peer_ms},
                                  {"origin_ms", slow.origin_ms}};
  });
  return json;
}

}  // namespace blobcache::cli
