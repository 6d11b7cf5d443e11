// The table itself. Defaults are text and go through the same parser as a user's value, so a default cannot be impossible
// (a test reads each of them).
#include "base/config_keys.h"

#include <array>
#include <limits>
#include <tuple>
#include <type_traits>

#include "base/limits.h"

namespace blobcache {
namespace {

template <class M>
struct MemberOf;
template <class C, class T>
struct MemberOf<T C::*> {
  using Class = C;
  using Type = T;
};

// The address of base->*Outer (.*Inner).
template <auto Outer, auto... Inner>
void* at(void* base) {
  auto& object = *static_cast<typename MemberOf<decltype(Outer)>::Class*>(base);
  if constexpr (sizeof...(Inner) == 0) {
    return &(object.*Outer);
  } else {
    return &(((object.*Outer).*Inner), ...);
  }
}

template <auto... Path>
using TypeAt = typename MemberOf<std::tuple_element_t<sizeof...(Path) - 1, std::tuple<decltype(Path)...>>>::Type;

// What follows the default in a line of the table.
struct Limits {
  uint64_t min = 0;
  uint64_t max = std::numeric_limits<uint32_t>::max();
  std::string_view word{};
  uint64_t word_value = 0;
};
struct Marks {
  bool reloadable = false;
  bool secret = false;
};
constexpr Marks reloads{.reloadable = true};
constexpr Marks secret{.secret = true};

constexpr Key with(Key key, Limits limits, Marks marks) {
  key.min = limits.min;
  key.max = limits.max;
  key.word = limits.word;
  key.word_value = limits.word_value;
  key.reloadable = marks.reloadable;
  key.secret = marks.secret;
  return key;
}

using Text = std::string_view;

template <auto... Path>
constexpr Key text(Text name, Text def, Text values, Text meaning, Marks marks = {}) {
  static_assert(std::is_same_v<TypeAt<Path...>, std::string>);
  return with({name, KeyType::text, def, values, meaning, at<Path...>}, {}, marks);
}
template <auto... Path>
constexpr Key list(Text name, Text values, Text meaning, Marks marks = {}) {
  static_assert(std::is_same_v<TypeAt<Path...>, std::vector<std::string>>);
  return with({name, KeyType::list, "", values, meaning, at<Path...>}, {}, marks);
}
template <auto... Path>
constexpr Key flag(Text name, Text def, Text meaning, Marks marks = {}) {
  static_assert(std::is_same_v<TypeAt<Path...>, bool>);
  return with({name, KeyType::flag, def, "true | false", meaning, at<Path...>}, {}, marks);
}
template <auto... Path>
constexpr Key count(Text name, Text def, Text values, Text meaning, Limits limits, Marks marks = {}) {
  static_assert(std::is_same_v<TypeAt<Path...>, uint32_t>);
  return with({name, KeyType::count, def, values, meaning, at<Path...>}, limits, marks);
}
template <auto... Path>
constexpr Key bytes(Text name, Text def, Text values, Text meaning, Limits limits, Marks marks = {}) {
  static_assert(std::is_same_v<TypeAt<Path...>, uint64_t>);
  return with({name, KeyType::bytes, def, values, meaning, at<Path...>}, limits, marks);
}
template <auto... Path>
constexpr Key duration(Text name, Text def, Text values, Text meaning, Limits limits, Marks marks = {}) {
  static_assert(std::is_same_v<TypeAt<Path...>, uint64_t>);
  return with({name, KeyType::duration, def, values, meaning, at<Path...>}, limits, marks);
}
template <auto... Path>
constexpr Key amount(Text name, Text def, Text meaning, Marks marks = {}) {
  static_assert(std::is_same_v<TypeAt<Path...>, Amount>);
  return with({name, KeyType::amount, def, "size or share", meaning, at<Path...>}, {}, marks);
}
template <auto... Path>
constexpr Key share(Text name, Text def, Text meaning, Marks marks = {}) {
  static_assert(std::is_same_v<TypeAt<Path...>, double>);
  return with({name, KeyType::share, def, "share", meaning, at<Path...>}, {}, marks);
}
template <auto... Path>
constexpr Key mode(Text name, Text def, Text meaning) {
  static_assert(std::is_same_v<TypeAt<Path...>, uint32_t>);
  return with({name, KeyType::mode, def, "octal mode", meaning, at<Path...>}, {}, {});
}
// The words of `values` are the enumerators in their order.
template <auto... Path>
constexpr Key choice(Text name, Text def, Text values, Text meaning, Marks marks = {}) {
  static_assert(std::is_same_v<std::underlying_type_t<TypeAt<Path...>>, uint8_t>);
  return with({name, KeyType::choice, def, values, meaning, at<Path...>}, {}, marks);
}

using C = Config;
using V = VolumeConfig;
constexpr uint64_t any = std::numeric_limits<int64_t>::max();
constexpr uint64_t second = 1'000'000'000;
constexpr uint64_t day = 86'400 * second;
constexpr Limits any_size{.max = any};
constexpr Limits timeout{.max = 365 * day};
constexpr Limits deadline{.min = 1'000'000, .max = day};
constexpr Limits id{.max = std::numeric_limits<uint32_t>::max() - 1};

constexpr std::array keys{
    text<&C::node, &NodeConfig::name>("node.name", "hostname", "name", "name of this node; \"hostname\": the host's"),
    count<&C::node, &NodeConfig::cores>(
        "node.cores", "auto", "auto or 1-64",
        "reactor threads; auto: every CPU up to 8, beyond that an eighth of them but at least 8",
        {.min = 1, .max = limits::cores_max, .word = "auto", .word_value = 0}),

    amount<&C::memory, &MemoryConfig::limit>(
        "memory.limit", "25%",
        "everything the process uses; a share is of the control group's memory or the machine's"),
    choice<&C::memory, &MemoryConfig::hugepages>("memory.hugepages", "auto", "auto | on | off",
                                                 "2 MiB pages for the cache; on: refuse to start without them"),

    bytes<&C::cache, &CacheConfig::chunk_bytes>(
        "cache.chunk_size", "4MiB", "size",
        "unit of prefetch, placement and eviction; a power of two from 1MiB to 16MiB",
        {.min = limits::chunk_bytes_min, .max = limits::chunk_bytes_max}),
    duration<&C::cache, &CacheConfig::object_ttl_ns>("cache.object_ttl", "0s", "duration",
                                                     "how long an object is kept; 0s: until evicted", timeout, reloads),
    choice<&C::cache, &CacheConfig::eviction>("cache.eviction", "auto", "auto | s3fifo",
                                              "what leaves a full cache; auto: scan-resistant"),
    choice<&C::cache, &CacheConfig::admission>(
        "cache.admission", "auto", "auto | all",
        "what enters a full cache; auto: stops when a scan larger than the cache is seen"),
    bytes<&C::cache, &CacheConfig::write_budget_bytes>(
        "cache.write_budget", "0", "size", "most bytes written to each disk in a day, to spare it; 0: no limit",
        any_size, reloads),
    choice<&C::cache, &CacheConfig::verify>(
        "cache.verify", "first", "first | always",
        "when checksums are compared: at the first use since start, or at every read (gives up passthrough)"),
    amount<&C::cache, &CacheConfig::blobs_reserved>("cache.blobs_reserved", "0",
                                                    "part of the disks that only the content store may use"),

    text<&DiskConfig::path>("cache.disk.path", "/var/cache/blobcache", "directory",
                            "where this disk's part of the cache lies"),
    amount<&DiskConfig::size>("cache.disk.size", "100%", "the most that the cache keeps on this disk"),
    share<&DiskConfig::high_watermark>("cache.disk.high_watermark", "90%",
                                       "eviction starts when the disk is fuller than this", reloads),
    share<&DiskConfig::low_watermark>("cache.disk.low_watermark", "85%", "eviction stops below this", reloads),

    choice<&C::fuse, &FuseConfig::transport>(
        "fuse.transport", "auto", "auto | uring | dev",
        "how requests come from the kernel; auto: io_uring where the fuse module has it switched on"),
    choice<&C::fuse, &FuseConfig::passthrough>(
        "fuse.passthrough", "auto", "auto | on | off",
        "the kernel reads whole cached files itself; on: refuse to start without it"),
    bytes<&C::fuse, &FuseConfig::queue_memory_bytes>("fuse.queue_memory", "256MiB", "size",
                                                     "memory for requests in flight; sets how many there can be",
                                                     {.min = limits::MiB, .max = any}),
    bytes<&C::fuse, &FuseConfig::max_request_bytes>(
        "fuse.max_request", "1MiB", "size",
        "largest read request; a multiple of 4KiB up to 16MiB, and at most fs.fuse.max_pages_limit pages",
        {.min = limits::request_bytes_min, .max = limits::request_bytes_max}),
    count<&C::fuse, &FuseConfig::max_background>("fuse.max_background", "512", "1-65535",
                                                 "readahead and asynchronous requests in flight at once",
                                                 {.min = 1, .max = 65535}),
    bytes<&C::fuse, &FuseConfig::read_ahead_bytes>(
        "fuse.read_ahead", "auto", "auto or size", "window of the kernel's readahead; auto: by the volume's profile",
        {.max = limits::GiB, .word = "auto", .word_value = config_automatic}),
    duration<&C::fuse, &FuseConfig::entry_timeout_ns>("fuse.entry_timeout", "5s", "duration",
                                                      "how long the kernel trusts a name", timeout, reloads),
    duration<&C::fuse, &FuseConfig::attr_timeout_ns>("fuse.attr_timeout", "5s", "duration",
                                                     "how long the kernel trusts attributes", timeout, reloads),
    duration<&C::fuse, &FuseConfig::negative_timeout_ns>("fuse.negative_timeout", "2s", "duration",
                                                         "how long the kernel trusts that a name does not exist",
                                                         timeout, reloads),
    choice<&C::fuse, &FuseConfig::allow_other>(
        "fuse.allow_other", "auto", "auto | on | off",
        "other users may use the mount; auto: as root yes, otherwise with user_allow_other in /etc/fuse.conf"),

    flag<&C::prefetch, &PrefetchConfig::enabled>("prefetch.enabled", "true", "fetch ahead of sequential readers",
                                                 reloads),
    count<&C::prefetch, &PrefetchConfig::trigger_reads>("prefetch.trigger_reads", "2", "1-1000",
                                                        "adjacent reads that make a reader sequential",
                                                        {.min = 1, .max = 1000}, reloads),
    bytes<&C::prefetch, &PrefetchConfig::max_gap_bytes>("prefetch.max_gap", "2MiB", "size",
                                                        "a gap up to this still counts as adjacent", any_size, reloads),
    count<&C::prefetch, &PrefetchConfig::min_window>("prefetch.min_window", "16", "1-4096 chunks",
                                                     "chunks fetched ahead at first", {.min = 1, .max = 4096}, reloads),
    count<&C::prefetch, &PrefetchConfig::max_window>("prefetch.max_window", "64", "1-4096 chunks",
                                                     "chunks fetched ahead at most", {.min = 1, .max = 4096}, reloads),
    count<&C::prefetch, &PrefetchConfig::streams>("prefetch.streams", "4", "1-64",
                                                  "disk reads that one prefetch keeps in flight", {.min = 1, .max = 64},
                                                  reloads),
    duration<&C::prefetch, &PrefetchConfig::idle_timeout_ns>("prefetch.idle_timeout", "30s", "duration",
                                                             "an idle reader's pattern is forgotten after this",
                                                             timeout, reloads),
    bytes<&C::prefetch, &PrefetchConfig::bandwidth_bytes>("prefetch.bandwidth", "0", "size per second",
                                                          "limit of all prefetch; 0: none", any_size, reloads),

    text<&V::name>("volume.name", "", "name", "name in metrics and logs; empty: made from the mount point"),
    text<&V::source>("volume.source", "", "directory or URL",
                     "what is shown: a directory, file://, http(s):// or s3://; blobs: is the content store"),
    text<&V::mountpoint>("volume.mountpoint", "", "absolute path", "where it is shown"),
    duration<&V::revalidate_ns>("volume.revalidate", "60s", "duration or never",
                                "how long an object's version is trusted; never: objects do not change",
                                {.max = 365 * day, .word = "never", .word_value = config_never_ns}, reloads),
    choice<&V::profile>("volume.profile", "auto", "auto | model | dataset",
                        "few large files or many small ones: readahead, page cache, local copies"),
    choice<&V::local_copy>("volume.local_copy", "auto", "auto | always | never",
                           "keep on the local disk what came from a peer"),
    text<&V::id>("volume.id", "", "name", "identity shared in the cluster; empty: the canonical source"),
    amount<&V::quota>("volume.quota", "0", "most of the disks that this volume takes; 0: no limit", reloads),
    count<&V::uid>("volume.uid", "0", "user id", "owner where the source has none (S3, HTTP)", id),
    count<&V::gid>("volume.gid", "0", "group id", "group where the source has none", id),
    mode<&V::file_mode>("volume.file_mode", "0444", "permissions of files where the source has none"),
    mode<&V::dir_mode>("volume.dir_mode", "0555", "permissions of directories where the source has none"),
    choice<&V::index>(
        "volume.index", "off", "off | on",
        "keep the names of the whole bucket on the cache's first disk: listings and look-ups ask nobody (S3)"),
    text<&V::s3, &S3Config::endpoint>("volume.s3.endpoint", "", "URL", "S3 server; empty: the region's of AWS"),
    text<&V::s3, &S3Config::region>("volume.s3.region", "us-east-1", "name", "region that requests are signed for"),
    choice<&V::s3, &S3Config::addressing>("volume.s3.addressing", "auto", "auto | path | virtual",
                                          "bucket in the path or in the host name"),
    text<&V::s3, &S3Config::credentials>(
        "volume.s3.credentials", "auto", "auto or file",
        "auto: environment, then ~/.aws, then the instance's role; otherwise a file in the form of ~/.aws/credentials",
        secret),
    flag<&V::s3, &S3Config::requester_pays>("volume.s3.requester_pays", "false",
                                            "agree to pay for requests to a bucket whose owner asks for it"),
    text<&V::s3, &S3Config::ca_file>("volume.s3.ca_file", "", "file", "certificates to trust; empty: the system's"),
    text<&V::http, &VolumeHttpConfig::manifest>(
        "volume.http.manifest", "", "path below the source",
        "file that names the tree's files, in place of listings (docs/S3.md); empty: directories are listed"),

    count<&C::origin, &OriginConfig::connections>("origin.connections", "16", "1-1024",
                                                  "requests in flight to one origin", {.min = 1, .max = 1024}),
    bytes<&C::origin, &OriginConfig::range_bytes>("origin.range_size", "8MiB", "size",
                                                  "bytes of one range request at most",
                                                  {.min = limits::block_bytes, .max = limits::GiB}, reloads),
    duration<&C::origin, &OriginConfig::attempt_timeout_ns>("origin.attempt_timeout", "10s", "duration",
                                                            "a request without progress is repeated after this",
                                                            deadline, reloads),
    duration<&C::origin, &OriginConfig::deadline_ns>("origin.deadline", "60s", "duration",
                                                     "a read fails when the origin has not answered it by then",
                                                     deadline, reloads),
    count<&C::origin, &OriginConfig::retries>("origin.retries", "5", "0-100", "repeated requests before the read fails",
                                              {.max = 100}, reloads),
    bytes<&C::origin, &OriginConfig::bandwidth_bytes>("origin.bandwidth", "0", "size per second",
                                                      "of one volume, from its source; 0: no limit", any_size, reloads),

    text<&C::peers, &PeersConfig::listen>("peers.listen", "", "HOST:PORT",
                                          "where other nodes reach this one; empty: no peers"),
    choice<&C::peers, &PeersConfig::membership>("peers.membership", "static", "static | dns | etcd",
                                                "how the other nodes are found"),
    list<&C::peers, &PeersConfig::members>("peers.members", "list of HOST:PORT", "the nodes, with static", reloads),
    text<&C::peers, &PeersConfig::dns_name>("peers.dns_name", "", "HOST:PORT",
                                            "the name that lists the nodes, with dns"),
    list<&C::peers, &PeersConfig::etcd>("peers.etcd", "list of URLs", "the servers, with etcd"),
    text<&C::peers, &PeersConfig::zone>("peers.zone", "", "name", "nodes of the same zone are asked first"),
    count<&C::peers, &PeersConfig::weight>("peers.weight", "1", "0-1000", "this node's part of the placement",
                                           {.max = 1000}),
    text<&C::peers, &PeersConfig::interface>("peers.interface", "", "name",
                                             "network interface to use; keep it off those that belong to NCCL"),
    text<&C::peers, &PeersConfig::secret_file>("peers.secret_file", "", "file", "the cluster's shared secret"),
    choice<&C::peers, &PeersConfig::tls>("peers.tls", "off", "off | on", "encrypt what goes between nodes"),
    count<&C::peers, &PeersConfig::replicas>("peers.replicas", "1", "1-16", "owners of each chunk",
                                             {.min = 1, .max = 16}),
    duration<&C::peers, &PeersConfig::deadline_ns>(
        "peers.deadline", "2s", "duration", "a peer that has not answered by then is passed over", deadline, reloads),
    bytes<&C::peers, &PeersConfig::bandwidth_bytes>("peers.bandwidth", "0", "size per second",
                                                    "limit of what is sent to peers; 0: none", any_size, reloads),
    choice<&C::peers, &PeersConfig::send_zc>("peers.send_zc", "auto", "auto | on | off", "send without copying"),
    bytes<&C::peers, &PeersConfig::stream_window_bytes>("peers.stream_window", "4MiB", "size",
                                                        "bytes in flight for one request",
                                                        {.min = limits::block_bytes, .max = limits::GiB}),
    bytes<&C::peers, &PeersConfig::connection_window_bytes>("peers.connection_window", "32MiB", "size",
                                                            "bytes in flight on one connection",
                                                            {.min = limits::block_bytes, .max = limits::GiB}),
    count<&C::peers, &PeersConfig::streams>("peers.streams", "1024", "1-65535", "requests in flight on one connection",
                                            {.min = 1, .max = 65535}),
    bytes<&C::peers, &PeersConfig::socket_buffer_bytes>("peers.socket_buffer", "256KiB", "size",
                                                        "kernel buffer of each socket",
                                                        {.min = limits::page_bytes, .max = limits::GiB}),

    text<&C::http, &HttpConfig::listen>(
        "http.listen", "127.0.0.1:9170", "HOST:PORT",
        "metrics, health, a page to look at and the content store; empty: no HTTP (`blobcache mount` "
        "opens a port only when this is given)"),
    text<&C::http, &HttpConfig::secret_file>("http.secret_file", "", "file",
                                             "bearer token that is asked for; needed to listen beyond loopback"),

    choice<&C::log, &LogConfig::level>("log.level", "info", "debug | info | warn | error",
                                       "least important line written", reloads),
    choice<&C::log, &LogConfig::format>("log.format", "auto", "auto | text | json",
                                        "auto: text on a terminal, JSON otherwise", reloads),
    text<&C::log, &LogConfig::file>(
        "log.file", "", "file",
        "where a daemon writes its log; empty: NAME.log beside the control socket (in the foreground: stderr)"),
    duration<&C::log, &LogConfig::slow_request_ns>(
        "log.slow_request", "1s", "duration",
        "a request that takes longer is a line in the log with the time spent in each tier; 0s: no such lines", timeout,
        reloads),
};

}  // namespace

std::span<const Key> config_keys() { return keys; }

}  // namespace blobcache
