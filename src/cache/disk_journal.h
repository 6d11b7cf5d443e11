// DiskJournal: the index files of one disk: loads them at start, then keeps them behind the index.
//   Owner     Node; one per disk.   Thread  load: the main thread, before the cores start. flush, step_snapshot, stop: the
//             flusher, a helper thread that may block; one at a time
//   Cadence   flush() every 100 ms, or when pending(); step_snapshot() while wants_snapshot() or in a snapshot
//   Files     index/snapshot.G and index/log.G, log.G+1 ...: the state is the snapshot and then the logs in order
//   Invariant at every instant the files in index/ load to a state that the index had
#pragma once

#include <vector>

#include "cache/disk_directory.h"
#include "cache/disk_index.h"
#include "cache/disk_log.h"

namespace blobcache {

struct DiskLoadReport {
  uint64_t records = 0;           // read and believed by their checksums
  uint64_t records_rejected = 0;  // of these, those that could not be
  uint64_t bytes_ignored = 0;     // behind a torn or damaged place
  uint64_t files_ignored = 0;     // logs that followed such a place, and what is damaged as a whole
  bool marks_dropped = false;     // the log of a snapshot was shorter than when it was written
};

class DiskJournal {
 public:
  struct Options {
    int index_fd = -1;
    disk_format::Uuid disk_uuid;
    unsigned disk = 0;
    uint32_t log_records_max = 32768;  // see DiskLogOptions
    // A new snapshot when the logs are larger than the last one, and than this.
    uint64_t log_bytes_min = 4 * limits::MiB;
    // The frequency of what a record of a snapshot tells of; null: 0.
    uint8_t (*frequency_of)(void* context, const disk_format::IndexRecord& record) = nullptr;
    void* context = nullptr;
  };
  DiskJournal(DiskIndex& index, const Options& options);

  // Reads what is there, attaches itself to the index and begins a new log. What cannot be trusted is left out, and said
  // in the report; it is not an error. Errors: io, full (no log can be written: the cache would not survive).
  Result<DiskLoadReport> load();
  bool pending() const { return log_.pending(); }
  // Errors: io, full: what was learned is lost at a restart until a snapshot succeeds; wants_snapshot() says so.
  Result<void> flush() { return log_.flush(); }
  // What the index has learned, as far as it was flushed, is there after a restart. False after a loss, until a snapshot has
  // succeeded: flush() has nothing to write then, and tells of no error.
  bool durable() const { return !behind_gap_ && !log_.lost_records(); }

  bool wants_snapshot() const;
  bool in_snapshot() const { return step_ != Step::idle; }
  // Does the next piece of a snapshot: a few ms of work or one file operation. True: there is more to do. Errors: io,
  // full; the snapshot is then given up, and the old files stay.
  Result<bool> step_snapshot();
  // Writes what is pending and detaches from the index. No snapshot: the next start reads a little more.
  Result<void> stop();

  uint64_t lost_records_count() const { return log_.lost_records_count(); }

 private:
  enum class Step : uint8_t { idle, copy, finish, rename, clean };
  struct Files {
    std::vector<uint64_t> snapshots;  // generations, ascending
    std::vector<uint64_t> logs;
  };

  Result<Files> list_files() const;
  Result<uint64_t> load_snapshots(const std::vector<uint64_t>& generations, DiskLoadReport* report);
  Result<void> load_logs(const std::vector<uint64_t>& generations, uint64_t base, DiskLoadReport* report);
  Result<void> begin_first_log();
  Result<void> remove_unbelieved(const Files& files);
  Result<void> apply_all(DiskRecordReader& reader, DiskLoadReport* report);
  Result<void> begin_snapshot();
  Result<void> copy_next_stripe();
  Result<void> finish_snapshot();
  Result<void> remove_files_before(uint64_t generation);

  DiskIndex& index_;
  Options options_;
  DiskLog log_;

  uint64_t base_generation_ = 0;  // of the snapshot in force; 0: none
  uint64_t snapshot_bytes_ = 0;   // of the same
  uint64_t old_log_bytes_ = 0;    // of the logs since, without the one being written
  uint64_t log_files_ = 0;        // and their number
  bool behind_gap_ = false;       // what is logged now is not read at all without a new snapshot
  bool needs_base_ = false;       // what is logged now is read in full only with a new snapshot
  uint64_t last_log_ = 0;
  uint64_t last_log_records_ = 0;
  uint64_t log_records_needed_ = 0;

  Step step_ = Step::idle;
  unsigned stripe_ = 0;
  int snapshot_fd_ = -1;
  uint64_t snapshot_records_ = 0;
  std::vector<disk_format::IndexRecord> copied_;
};

}  // namespace blobcache
