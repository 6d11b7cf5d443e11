// TopView: what a node did between two of its statuses, as numbers.
//   Thread    main; pure functions of their arguments
//   Restarts  a counter that went back belongs to a new process: all of it is new
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace blobcache::cli {

struct TopLatency {
  std::optional<double> p50_us;  // nothing: nothing happened
  std::optional<double> p99_us;
};

struct TopTier {
  std::string name;
  uint64_t used = 0;
  uint64_t limit = 0;               // 0: it holds nothing, as the origin
  std::optional<double> hit_ratio;  // of the replies in between, 0 to 1
  double bytes_per_s = 0;
};

struct TopVolume {
  std::string mountpoint;
  std::string source;
  uint64_t open = 0;
  double reads_per_s = 0;
  double bytes_per_s = 0;
  double errors_per_s = 0;
  TopLatency latency;
};

struct TopDisk {
  std::string path;
  std::string state;
  std::string why;
  uint64_t used = 0;
  uint64_t limit = 0;
  double written_per_s = 0;
  double evicted_per_s = 0;
  uint64_t errors = 0;  // since the start
};

struct TopOrigin {
  std::string volume;
  bool remote = false;  // a server; a directory's reads have no first byte
  double requests_per_s = 0;
  double bytes_per_s = 0;
  double retries_per_s = 0;
  uint64_t errors = 0;  // since the start
  TopLatency first_byte;
};

struct TopPrefetch {
  double fetched_per_s = 0;
  double used_per_s = 0;
  uint64_t used = 0;
  uint64_t wasted = 0;
};

struct TopSlow {
  std::string file;
  std::string operation;
  uint64_t age_s = 0;
  uint64_t total_ms = 0;
  uint64_t disk_ms = 0;
  uint64_t peer_ms = 0;
  uint64_t origin_ms = 0;
};

struct TopView {
  std::string node;
  std::string version;
  int64_t pid = 0;
  double seconds = 0;
  double reads_per_s = 0;
  double bytes_per_s = 0;
  double errors_per_s = 0;
  TopLatency latency;
  uint64_t passthrough_opens = 0;
  uint64_t passthrough_bytes = 0;
  std::vector<TopTier> tiers;
  std::vector<TopVolume> volumes;
  std::vector<TopDisk> disks;
  std::vector<TopOrigin> origins;
  TopPrefetch prefetch;
  std::vector<TopSlow> slow;  // the slowest first
};

// Two answers to "status". nullopt: one of them is none.
std::optional<TopView> top_view(const nlohmann::json& before, const nlohmann::json& after, double seconds);
nlohmann::ordered_json top_json(const TopView& view);

}  // namespace blobcache::cli
