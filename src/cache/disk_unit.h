// DiskUnit: all that belongs to one disk of the tier; DiskShared: what its disks share.
//   Owner     DiskTier.   Thread  as its parts say
//   Lifetime  built by DiskTier::open; freed when every thread has been joined
#pragma once

#include <atomic>
#include <cstdlib>
#include <memory>

#include "base/config.h"
#include "base/live_value.h"
#include "cache/disk_directory.h"
#include "cache/disk_files.h"
#include "cache/disk_health.h"
#include "cache/disk_index.h"
#include "cache/disk_journal.h"
#include "cache/disk_reads.h"
#include "cache/disk_space.h"

namespace blobcache {

class DiskKeeper;
class DiskVerifier;

struct DiskShared {
  CacheConfig cache;  // but for what can change, which is below and in DiskUnit
  std::atomic<uint64_t> object_ttl_ns{0};
  GuardedValue<Amount> quota;
  disk_format::Uuid boot;
  uint64_t scrub_bytes_per_s = 0;
  uint64_t scrub_delay_ns = 0;
  uint64_t scrub_pause_ns = 0;
  uint32_t segments_max = 65536;  // a disk
  DiskIndex index;
  std::unique_ptr<DiskReads> reads;

  // Entries of Eviction: those of the index, then those of the segments of each disk, by their number's remainder: the
  // keeper gives no number whose entry is in use.
  struct Free {
    void operator()(EvictionEntry* memory) const { std::free(static_cast<void*>(memory)); }
  };
  std::unique_ptr<EvictionEntry[], Free> entries;
  uint32_t segment_entry(unsigned disk, uint32_t number) const {
    return index.entries_count() + disk * segments_max + number % segments_max;
  }
};

struct DiskCounters {
  std::atomic<uint64_t> evicted_bytes{0};
  std::atomic<uint64_t> written_bytes{0};
  std::atomic<uint64_t> writes_shed{0};  // blocks
  std::atomic<uint64_t> read_errors{0};
  std::atomic<uint64_t> write_errors{0};
  std::atomic<uint64_t> corrupt_blocks{0};
  std::atomic<uint64_t> scrubbed_bytes{0};
  // Written by the keeper.
  std::atomic<uint64_t> pinned_own_bytes{0};      // whole objects
  std::atomic<uint64_t> pinned_segment_bytes{0};  // segments that something pinned lies in
  std::atomic<uint64_t> pins_awaited{0};          // objects that are pinned when they come
};

struct DiskUnit {
  DiskUnit(DiskShared& shared_by_all, unsigned disk_number, uint32_t files_max);
  ~DiskUnit();
  DiskUnit(const DiskUnit&) = delete;
  DiskUnit& operator=(const DiskUnit&) = delete;

  DiskShared& shared;
  const unsigned number;
  DiskConfig config;
  std::atomic<double> high_watermark{1};
  DiskDirectory directory;
  DiskFiles files;
  DiskCounters counters;
  std::unique_ptr<DiskSpace> space;
  std::unique_ptr<DiskHealth> health;
  std::unique_ptr<DiskJournal> journal;
  std::unique_ptr<DiskKeeper> keeper;
  std::unique_ptr<DiskVerifier> verifier;

  // A failed write, sync, creation. os_errno: 0 is taken as EIO.
  void on_write_error(int os_errno);
  void on_read_error(int os_errno);
  // Bytes that were to be written, and are not on the disk.
  void on_shed(uint64_t bytes);
  // The write budget's day outlives the process: index/budget. What cannot be read counts as nothing. keep_spent may block.
  void load_spent();
  void keep_spent();
  // What eviction counts of what the record tells of.
  uint8_t frequency_of(const disk_format::IndexRecord& record) const;
  // Any thread; the limit follows when it is measured again.
  void set_watermarks(double high, double low);
  // Measures the filesystem and sets the limit. May block. Errors: io.
  Result<void> measure();

 private:
  uint64_t part_of(const Amount& amount, uint64_t total) const;

  DiskSpace::Spent kept_spent_;
};

}  // namespace blobcache
