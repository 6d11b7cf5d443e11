// Volume: one read-only tree: where it comes from, what the kernel knows of it, what is open.
//   Owner     Node.   Thread  built on the main thread; then shared by the cores, each member by its own rules
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>

#include "base/config.h"
#include "cache/disk_tier.h"
#include "cache/memory_tier.h"
#include "fuse/entries.h"
#include "fuse/inodes.h"
#include "fuse/session.h"
#include "origin/origin.h"
#include "serve/backing_files.h"
#include "serve/foretell.h"
#include "serve/handle.h"
#include "serve/prefetch.h"
#include "serve/slow_requests.h"

namespace blobcache::serve {

// What may change while requests are served (SIGHUP), each value for itself.
struct LiveSettings {
  void set(const FuseConfig& fuse, const OriginConfig& origin, const LogConfig& log) {
    entry_timeout_ns = fuse.entry_timeout_ns;
    attr_timeout_ns = fuse.attr_timeout_ns;
    negative_timeout_ns = fuse.negative_timeout_ns;
    deadline_ns = origin.deadline_ns;
    range_bytes = origin.range_bytes;
    slow_request_ns = log.slow_request_ns == 0 ? UINT64_MAX : log.slow_request_ns;
  }
  struct Value : std::atomic<uint64_t> {
    operator uint64_t() const { return load(std::memory_order_relaxed); }
    using std::atomic<uint64_t>::operator=;
  };
  Value entry_timeout_ns;
  Value attr_timeout_ns;
  Value negative_timeout_ns;
  Value deadline_ns;
  Value range_bytes;
  Value slow_request_ns;
};

struct Volume {
  unsigned number = 0;
  VolumeConfig config;         // as at the start
  OriginConfig origin_config;  // as at the start
  LiveSettings live;
  // What makes its objects the same on every node: the explicit id, or the canonical source.
  std::string identity;
  std::unique_ptr<Origin> origin;
  MemoryTier* memory = nullptr;
  DiskTier* disk = nullptr;                                               // null: no disks
  PrefetchNode* prefetch = nullptr;                                       // null: none, in tests
  std::unique_ptr<Foreteller> foreteller;                                 // as well
  std::atomic<uint32_t> prefetch_at_origin{0};                            // pieces, of all cores
  std::array<std::atomic<Prefetcher*>, limits::cores_max> prefetchers{};  // of each core; null: it begins nothing

  fuse::Session session;
  fuse::Entries entries;
  fuse::Inodes inodes;
  Handles handles;
  BackingFiles backing_files;
  SlowRequests slow_requests;
  std::atomic<bool> ended{false};                // its connection is gone on some core
  std::atomic<bool> passthrough_refused{false};  // the kernel took no backing file: not asked again

  // Whether files of this mount may ever be opened in passthrough mode; constant while it is served.
  bool passes_through() const { return disk != nullptr && session.facts().passthrough && !disk->verify_always(); }
  ObjectId object_id_of(std::string_view key, const FileInfo& info) const {
    return object_id(identity, info.key_in_identity ? key : std::string_view(), info.version.view());
  }
};

}  // namespace blobcache::serve
