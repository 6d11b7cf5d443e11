// Handle: one open file or directory; what `fh` in the protocol stands for.
//   Owner     Handles, one table a volume
//   Thread    get() from any core without a lock; take and release under a lock
//   Lifetime  from OPEN to the last reference (RELEASE, and loads still in flight); the kernel sends no READ after RELEASE
//   Limits    handles_max; beyond it take() returns null (ENFILE)
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/file_info.h"
#include "base/object_id.h"
#include "base/spinlock.h"
#include "cache/disk_jobs.h"
#include "cache/neighbours.h"
#include "fuse/inodes.h"
#include "origin/origin.h"
#include "serve/kept_files.h"

namespace blobcache::serve {

class VolumeServer;
struct FilePrefetch;

// How the kernel reads what was opened; `untold`: the mount has one way only, so nobody counts.
enum class OpenMode : uint8_t { untold, cached, passthrough };

struct Handle {
  std::atomic<uint32_t> generation{0};  // odd: live
  std::atomic<uint32_t> references{0};
  uint32_t index = 0;
  uint32_t next_free = 0;

  // Written before the handle is published, constant afterwards. What stands in for an open (foretell.h) has no node before
  // that, while a core reads on its behalf.
  std::atomic<fuse::NodeId> node = 0;
  std::string key;
  FileVersion version;
  ObjectId object;
  uint64_t object_bytes = 0;
  bool buffered = true;   // reads go through the kernel's page cache
  bool cacheable = true;  // false: a young version, whose bytes may change without a trace
  OpenMode mode = OpenMode::untold;

  // The origin's file. -1: it needs none, or all bytes were here when it was opened and no load has needed it since.
  std::atomic<int> origin_fd{-1};

  // Where a sequential reader would go on. Any core writes it; it is a guess, so races do no harm.
  std::atomic<uint64_t> expected_offset{0};
  // The chunk of the index that was visited last; the same kind of guess.
  static constexpr uint64_t no_position = ~uint64_t{0};
  std::atomic<uint64_t> visited_position{no_position};

  // Where the object lies on disk; by whichever core first found it open.
  KeptFiles disk_files;
  // What its readers do; made at its first miss, ends with the handle.
  std::atomic<FilePrefetch*> prefetch{nullptr};
  // For the end of the last passthrough open: here, so that there is always one.
  struct Disarm : DiskDisarmJob {
    VolumeServer* server = nullptr;
    Handle* handle = nullptr;  // referenced until the job is done
  } disarm;

  // Directories: the part of the listing that was fetched but not yet told. Used by one READDIR at a time.
  bool listing = false;
  std::vector<DirectoryEntry> entries;
  std::unique_ptr<DirectoryNames> names;  // of files, as far as it was listed from its start in one go
  uint64_t names_until = 0;               // the cookie behind the last of them
  uint64_t names_accounted_bytes = 0;
  size_t entries_told = 0;
  uint64_t entries_from = 0;  // the cookie that entries[entries_told] follows
  bool entries_have_info = false;

  uint64_t id() const { return uint64_t{generation.load(std::memory_order_relaxed)} << 32 | index; }
};

class Handles {
 public:
  static constexpr uint32_t handles_max = 1u << 20;

  Handles();
  ~Handles();
  // One reference, not yet to be found: fill it, then publish(). Null: too many are open.
  Handle* take();
  void publish(Handle& handle);
  // Null: no such handle.
  Handle* get(uint64_t id);
  void reference(Handle& handle) { handle.references.fetch_add(1, std::memory_order_relaxed); }
  // True: that was the last reference; close what it holds, then put_back().
  bool release(Handle& handle) { return handle.references.fetch_sub(1, std::memory_order_acq_rel) == 1; }
  void put_back(Handle& handle);
  uint32_t open_count() const { return open_.load(std::memory_order_relaxed); }

 private:
  static constexpr uint32_t segment_size = 1024;
  static constexpr uint32_t none = ~0u;

  Spinlock lock_;
  std::atomic<Handle*> segments_[handles_max / segment_size] = {};
  uint32_t segment_count_ = 0;
  uint32_t free_ = none;
  std::atomic<uint32_t> open_{0};
};

}  // namespace blobcache::serve
