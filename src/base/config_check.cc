// What one key alone cannot say: that two fit together, that a path is absolute, that an address is one.
#include <algorithm>
#include <bit>

#include <fmt/format.h>

#include "base/config.h"
#include "base/config_keys.h"
#include "base/limits.h"

namespace blobcache {
namespace {

constexpr uint64_t index_trusted_ns_min = 10'000'000'000;

bool is_absolute(std::string_view path) {
  if (path.empty() || path.front() != '/') return false;
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::string_view part = path.substr(0, path.find('/'));
    if (part == "." || part == "..") return false;
    path.remove_prefix(part.size());
  }
  return true;
}

bool is_address(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  return (bracketed || host.find(':') == std::string_view::npos) &&
         parse_count(text.substr(colon + 1), 1, 65535).has_value();
}

bool is_source(std::string_view source) {
  if (source == "blobs:") return true;
  for (const std::string_view scheme : {"file:///", "http://", "https://", "s3://"}) {
    if (source.starts_with(scheme)) return source.size() > scheme.size() || scheme == "file:///";
  }
  return source.find("://") == std::string_view::npos && is_absolute(source);
}

// HOST:PORT of this machine alone.
bool is_loopback(std::string_view address) {
  const std::string_view host = address.substr(0, address.rfind(':'));
  return host.starts_with("127.") || host == "localhost" || host == "[::1]";
}

// Both absolute; "/" is above everything else.
bool is_below(std::string_view inner, std::string_view outer) {
  if (outer.empty()) return false;
  if (outer == "/") return inner.size() > 1;
  return inner.size() > outer.size() && inner.starts_with(outer) && inner[outer.size()] == '/';
}

class Check {
 public:
  explicit Check(const Config& config) : config_(config) {}

  Problems run() {
    memory();
    cache();
    fuse();
    prefetch_and_origin();
    peers_and_http();
    volumes();
    return std::move(problems_);
  }

 private:
  // Says where the value was set, so that a person finds the line.
  void problem(const std::string& place, const std::string& value, std::string_view why) {
    const auto from = config_.set_by.find(place);
    const std::string where = from == config_.set_by.end() ? "" : fmt::format(" (set by {})", from->second);
    problems_.push_back(fmt::format("{} = \"{}\"{}: {}", place, value, where, why));
  }

  void memory() {
    const Amount& limit = config_.memory.limit;
    if (limit.is_share ? limit.share <= 0 : limit.bytes < 16 * limits::MiB) {
      problem("memory.limit", format_amount(limit), "nothing works in so little; give at least 64MiB");
    }
  }

  void cache() {
    const CacheConfig& cache = config_.cache;
    if (!std::has_single_bit(cache.chunk_bytes)) {
      problem("cache.chunk_size", format_bytes(cache.chunk_bytes),
              "it is no power of two; write 1MiB, 2MiB, 4MiB, 8MiB or 16MiB");
    }
    for (size_t i = 0; i < cache.disks.size(); ++i) {
      const DiskConfig& disk = cache.disks[i];
      const std::string place = fmt::format("cache.disk[{}]", i);
      if (!is_absolute(disk.path)) problem(place + ".path", disk.path, "it is no absolute path; start it with /");
      if (disk.low_watermark >= disk.high_watermark) {
        problem(place + ".low_watermark", format_share(disk.low_watermark),
                fmt::format("it is not below high_watermark ({}); make it 5% less", format_share(disk.high_watermark)));
      }
      for (size_t other = 0; other < i; ++other) {
        if (cache.disks[other].path == disk.path)
          problem(place + ".path", disk.path, "another disk has the same; remove one");
      }
    }
  }

  void fuse() {
    const FuseConfig& fuse = config_.fuse;
    if (fuse.max_request_bytes % limits::page_bytes != 0) {
      problem("fuse.max_request", format_bytes(fuse.max_request_bytes),
              "it is no multiple of 4KiB; write for example 1MiB");
    }
    if (fuse.read_ahead_bytes != config_automatic && fuse.read_ahead_bytes % limits::page_bytes != 0) {
      problem("fuse.read_ahead", format_bytes(fuse.read_ahead_bytes),
              "it is no multiple of 4KiB; write for example 1MiB");
    }
    if (fuse.queue_memory_bytes < fuse.max_request_bytes) {
      problem("fuse.queue_memory", format_bytes(fuse.queue_memory_bytes),
              fmt::format("it does not hold one request of fuse.max_request ({}); make it larger",
                          format_bytes(fuse.max_request_bytes)));
    }
  }

  void prefetch_and_origin() {
    if (config_.prefetch.min_window > config_.prefetch.max_window) {
      problem("prefetch.min_window", std::to_string(config_.prefetch.min_window),
              fmt::format("it is above prefetch.max_window ({}); make it smaller", config_.prefetch.max_window));
    }
    if (config_.origin.attempt_timeout_ns > config_.origin.deadline_ns) {
      problem("origin.attempt_timeout", format_duration_ns(config_.origin.attempt_timeout_ns),
              fmt::format("it is above origin.deadline ({}); make it shorter",
                          format_duration_ns(config_.origin.deadline_ns)));
    }
  }

  void address(const std::string& place, const std::string& value) {
    if (!value.empty() && !is_address(value))
      problem(place, value, "it is no HOST:PORT; write for example 127.0.0.1:9170");
  }

  void peers_and_http() {
    const PeersConfig& peers = config_.peers;
    address("http.listen", config_.http.listen);
    if (!config_.http.listen.empty() && config_.http.secret_file.empty() && !is_loopback(config_.http.listen)) {
      problem("http.listen", config_.http.listen,
              "it is reached from other machines, so http.secret_file must name a file with a token; or listen on "
              "127.0.0.1");
    }
    address("peers.listen", peers.listen);
    for (const std::string& member : peers.members) address("peers.members", member);
    if (peers.stream_window_bytes > peers.connection_window_bytes) {
      problem("peers.stream_window", format_bytes(peers.stream_window_bytes),
              fmt::format("it is above peers.connection_window ({}); make it smaller",
                          format_bytes(peers.connection_window_bytes)));
    }
    if (peers.listen.empty()) return;
    if (peers.secret_file.empty())
      problem("peers.secret_file", "", "peers need it; name a file with the cluster's secret");
    if (peers.membership == Membership::dns && peers.dns_name.empty()) {
      problem("peers.dns_name", "", "peers.membership = \"dns\" needs it; write for example blobcache.local:9171");
    }
    if (peers.membership == Membership::etcd && peers.etcd.empty()) {
      problem("peers.etcd", "", "peers.membership = \"etcd\" needs it; write for example [\"http://etcd:2379\"]");
    }
  }

  void volumes() {
    for (size_t i = 0; i < config_.volumes.size(); ++i) {
      const VolumeConfig& volume = config_.volumes[i];
      const std::string place = fmt::format("volume[{}]", i);
      if (!is_source(volume.source)) {
        const Key& key = *find_key("volume.source");
        problem(place + ".source", value_text_shown(key, &volume),
                "it is neither an absolute directory nor a file://, http(s):// or s3:// URL");
      }
      if (!is_absolute(volume.mountpoint)) {
        problem(place + ".mountpoint", volume.mountpoint, "it is no absolute path; start it with /");
      }
      if (volume.quota != Amount() && config_.volumes.size() > 1) {
        problem(place + ".quota", format_amount(volume.quota),
                "only a single volume may have one for now; give it a node of its own, or leave it out");
      }
      if (volume.index == Indexing::on && volume.revalidate_ns < index_trusted_ns_min) {
        problem(place + ".revalidate", format_duration_ns(volume.revalidate_ns),
                "with volume.index = on all of the bucket would be listed as often; make it at least 10s");
      }
      for (size_t other = 0; other < i; ++other) {
        if (config_.volumes[other].mountpoint == volume.mountpoint) {
          problem(place + ".mountpoint", volume.mountpoint, "another volume has the same; give each its own");
        }
        nested(place, volume, config_.volumes[other]);
        nested(fmt::format("volume[{}]", other), config_.volumes[other], volume);
        if (!volume.name.empty() && config_.volumes[other].name == volume.name) {
          problem(place + ".name", volume.name, "another volume has the same; give each its own");
        }
      }
    }
  }

  // To mount, or to look at the source, would ask a volume that is not served yet.
  void nested(const std::string& place, const VolumeConfig& volume, const VolumeConfig& other) {
    if (is_below(volume.mountpoint, other.mountpoint)) {
      problem(
          place + ".mountpoint", volume.mountpoint,
          fmt::format("it lies inside the mount point {} of another volume; put them side by side", other.mountpoint));
    }
    if (is_below(volume.source, other.mountpoint) || (!volume.source.empty() && volume.source == other.mountpoint)) {
      problem(place + ".source", volume.source,
              fmt::format("it lies inside the mount point {} of another volume; give it the other's source",
                          other.mountpoint));
    }
  }

  const Config& config_;
  Problems problems_;
};

}  // namespace

Problems check_config(const Config& config) { return Check(config).run(); }

}  // namespace blobcache
