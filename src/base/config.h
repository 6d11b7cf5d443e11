// Config: every setting, typed and ready to use. Filled from one table of keys (base/config_keys.cc), in this order:
// defaults, file, environment, options; a later one wins, and each value remembers where it came from.
//   Thread    filled on the main thread before any other exists, then only read
//   Units     members end in _bytes or _ns where the key has a unit; a rate is bytes a second; a share is 0..1
//   Words     "auto" is 0 for node.cores, config_automatic for sizes; "never" is config_never_ns
//   Rule      a Config that check_config() finds no problem in is what the rest of the program is given: nothing else
//             looks at ranges again
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "base/units.h"

namespace blobcache {

inline constexpr uint64_t config_automatic = UINT64_MAX;
inline constexpr uint64_t config_never_ns = UINT64_MAX;

enum class Switch : uint8_t { automatic, on, off };
enum class EvictionPolicy : uint8_t { automatic, s3fifo };
enum class Admission : uint8_t { automatic, all };
enum class Verify : uint8_t { first, always };
enum class Transport : uint8_t { automatic, uring, dev };
enum class Profile : uint8_t { automatic, model, dataset };
enum class LocalCopy : uint8_t { automatic, always, never };
enum class Addressing : uint8_t { automatic, path, virtual_host };
enum class Membership : uint8_t { static_list, dns, etcd };
enum class Tls : uint8_t { off, on };
enum class Indexing : uint8_t { off, on };

struct NodeConfig {
  std::string name;    // the host's name unless set
  uint32_t cores = 0;  // 0: auto
};

struct MemoryConfig {
  Amount limit;  // of memory_available_bytes()
  Switch hugepages{};
};

struct DiskConfig {
  std::string path;
  Amount size;  // the most that the cache keeps on this disk
  double high_watermark = 0;
  double low_watermark = 0;
  DiskConfig();
};

struct CacheConfig {
  uint64_t chunk_bytes = 0;
  uint64_t object_ttl_ns = 0;  // 0: until evicted
  EvictionPolicy eviction{};
  Admission admission{};
  uint64_t write_budget_bytes = 0;  // a day and disk; 0: none
  Verify verify{};
  Amount blobs_reserved;
  std::vector<DiskConfig> disks;
};

struct FuseConfig {
  Transport transport{};
  Switch passthrough{};
  uint64_t queue_memory_bytes = 0;
  uint64_t max_request_bytes = 0;
  uint32_t max_background = 0;
  uint64_t read_ahead_bytes = 0;  // config_automatic
  uint64_t entry_timeout_ns = 0;
  uint64_t attr_timeout_ns = 0;
  uint64_t negative_timeout_ns = 0;
  Switch allow_other{};
};

struct PrefetchConfig {
  bool enabled = false;
  uint32_t trigger_reads = 0;
  uint64_t max_gap_bytes = 0;
  uint32_t min_window = 0;  // chunks
  uint32_t max_window = 0;
  uint32_t streams = 0;
  uint64_t idle_timeout_ns = 0;
  uint64_t bandwidth_bytes = 0;  // a second; 0: no limit
};

struct S3Config {
  std::string endpoint;
  std::string region;
  Addressing addressing{};
  std::string credentials;
  bool requester_pays = false;
  std::string ca_file;
};

struct VolumeHttpConfig {
  std::string manifest;  // below the source; empty: directories are listed
};

struct VolumeConfig {
  std::string name;
  std::string source;          // a directory, file://, http(s):// or s3://
  std::string mountpoint;      // absolute
  uint64_t revalidate_ns = 0;  // config_never_ns: immutable
  Profile profile{};
  LocalCopy local_copy{};
  std::string id;  // shared identity; empty: the canonical source
  Amount quota;    // bytes 0 and no share: none
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t file_mode = 0;
  uint32_t dir_mode = 0;
  Indexing index{};  // the names of the whole volume are kept on the first disk
  S3Config s3;
  VolumeHttpConfig http;
  VolumeConfig();
};

struct OriginConfig {
  uint32_t connections = 0;
  uint64_t range_bytes = 0;
  uint64_t attempt_timeout_ns = 0;
  uint64_t deadline_ns = 0;
  uint32_t retries = 0;
  uint64_t bandwidth_bytes = 0;  // a second; 0: no limit
};

struct PeersConfig {
  std::string listen;  // empty: no peers
  Membership membership{};
  std::vector<std::string> members;
  std::string dns_name;
  std::vector<std::string> etcd;
  std::string zone;
  uint32_t weight = 0;
  std::string interface;
  std::string secret_file;
  Tls tls{};
  uint32_t replicas = 0;
  uint64_t deadline_ns = 0;
  uint64_t bandwidth_bytes = 0;  // a second; 0: no limit
  Switch send_zc{};
  uint64_t stream_window_bytes = 0;
  uint64_t connection_window_bytes = 0;
  uint32_t streams = 0;
  uint64_t socket_buffer_bytes = 0;
};

struct HttpConfig {
  std::string listen;  // empty: no HTTP
  std::string secret_file;
};

struct LogConfig {
  log::Level level{};
  log::Format format{};
  std::string file;              // empty: stderr in the foreground, NAME.log beside the control socket otherwise
  uint64_t slow_request_ns = 0;  // 0: no line about slow requests
};

struct Config {
  NodeConfig node;
  MemoryConfig memory;
  CacheConfig cache;
  FuseConfig fuse;
  PrefetchConfig prefetch;
  std::vector<VolumeConfig> volumes;
  OriginConfig origin;
  PeersConfig peers;
  HttpConfig http;
  LogConfig log;
  // "fuse.transport", "volume[0].name" -> "option", "BLOBCACHE_FUSE_TRANSPORT" or "FILE:LINE"; absent: the default.
  std::map<std::string, std::string, std::less<>> set_by;

  Config();  // the table's defaults; no disk and no volume
};

// Each problem is one sentence that names the key, the value, the cause and the remedy; empty: all is well.
using Problems = std::vector<std::string>;

// TOML. Problems start with FILE:LINE. Of several problems all are told, as far as the text can be understood.
Problems load_config_file(Config& config, const std::string& path);
Problems load_config_text(Config& config, std::string_view text, std::string_view file_name);
// BLOBCACHE_<SECTION>_<KEY>; not in arrays. A name that is almost a key's is a problem, any other is not ours.
Problems load_config_environment(Config& config, const char* const* environment);
// KEY=VALUE. `volume.` and `cache.disk.` mean the one there is, and make it when there is none.
std::optional<std::string> set_config_option(Config& config, std::string_view assignment);
// Sets one key, said to come from `from`.
std::optional<std::string> set_config_value(Config& config, std::string_view key, std::string_view value,
                                            std::string_view from);
// Ranges that take more than one key, and paths.
Problems check_config(const Config& config);

// Every key with default, unit and meaning.
std::string config_reference();
// The effective values as TOML, each with where it came from.
std::string show_config(const Config& config);
// The same for programs; texts as a file would have them, without quotes.
struct ShownValue {
  std::string place;  // "volume[0].name"
  std::string value;
  std::string from;  // "default", "FILE:LINE", the variable's or the option's name
};
std::vector<ShownValue> shown_values(const Config& config);
// The file with every key commented that is shipped as config/blobcache.toml.
std::string config_example();

}  // namespace blobcache
