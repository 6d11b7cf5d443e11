// DiskLog: the append-only log of one disk's index.
//   Owner     DiskJournal.   Thread  append: any, also a core (no allocation, no system call). The rest: the flusher's,
//             one thread at a time, which may block
//   Limits    records_max records wait for the flusher; what comes beyond is lost, and with it everything after it
//   Invariant the file holds a prefix of what was appended since its generation began: a record is never written when one
//             before it was not
//   No fsync  a record is safe from the death of the process once flush() has returned, from that of the machine whenever
//             the kernel writes it. What is lost is a miss.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/spinlock.h"
#include "cache/disk_format.h"

namespace blobcache {

struct DiskLogOptions {
  int index_fd = -1;  // the folder
  disk_format::Uuid disk;
  uint32_t records_max = 32768;  // 2 MiB, twice: a flusher that wakes every 100 ms sees 300,000 records/s
};

class DiskLog {
 public:
  explicit DiskLog(const DiskLogOptions& options);
  ~DiskLog();
  DiskLog(const DiskLog&) = delete;
  DiskLog& operator=(const DiskLog&) = delete;

  // record.checksum is set here.
  void append(const disk_format::IndexRecord& record);
  // Something waits for the flusher; a hint.
  bool pending() const { return pending_.load(std::memory_order_relaxed) != 0; }
  // Records were lost (a full buffer, a failed write): only a new snapshot makes this log useful again.
  bool lost_records() const { return lost_.load(std::memory_order_relaxed); }
  uint64_t lost_records_count() const { return lost_count_.load(std::memory_order_relaxed); }

  // Writes what was appended before the call. Errors: io, full (no space). The log takes nothing more after one.
  Result<void> flush();
  // Ends the file in use and begins the next one; what is appended from now on goes there. The first call opens the first
  // file. generation: larger than before. records_before: what the first file follows, see IndexFileHeader::records.
  // Errors: io, full; appended records are then lost until a later switch succeeds.
  Result<void> switch_file(uint64_t generation, uint64_t records_before);

  uint64_t generation() const { return generation_; }
  uint64_t records_written() const { return written_; }
  // Records between the file before and this one were lost, so this one counts only on a snapshot of its generation.
  bool follows_gap() const { return follows_gap_; }

 private:
  using Record = disk_format::IndexRecord;
  Result<void> write_waiting(uint32_t buffer, uint32_t count);
  Result<void> create_file(uint64_t records_before);
  void lose();

  int index_fd_;
  disk_format::Uuid disk_;
  uint32_t records_max_;

  // Under lock_:
  Spinlock lock_;
  std::unique_ptr<Record[]> buffers_[2];
  uint32_t current_ = 0;
  uint32_t used_ = 0;
  uint64_t next_index_ = 0;
  uint64_t seal_generation_ = 0;
  bool open_ = false;  // false: drop what is appended

  std::atomic<uint32_t> pending_{0};
  std::atomic<bool> lost_{false};
  std::atomic<uint64_t> lost_count_{0};

  // The flusher's:
  int fd_ = -1;
  uint64_t generation_ = 0;
  uint64_t written_ = 0;
  bool follows_gap_ = false;
  bool broken_ = true;  // what waits must not be written: something before it was not
};

// Reads a log or a snapshot, record by record, up to the first byte that is not as it was written.
//   Thread    one; blocks.   Memory  64 KiB, whatever the file says
class DiskRecordReader {
 public:
  DiskRecordReader(int fd, disk_format::IndexFileKind kind, const disk_format::Uuid& disk);

  // Errors: corrupt (not such a file of this disk), io.
  Result<disk_format::IndexFileHeader> read_header();
  // After read_header. Null: the end of what can be trusted. Valid until the next call.
  const disk_format::IndexRecord* next();
  uint64_t accepted() const { return index_; }
  // Bytes that follow the last accepted record: 0, or a torn or damaged tail.
  uint64_t bytes_left() const;
  // A read failed: the end is not the file's.
  bool failed() const { return failed_; }

 private:
  bool fill();

  static constexpr size_t buffer_records = 1024;
  int fd_;
  disk_format::IndexFileKind kind_;
  disk_format::Uuid disk_;
  disk_format::IndexFileHeader header_;
  std::unique_ptr<disk_format::IndexRecord[]> buffer_;
  size_t buffered_ = 0;
  size_t position_ = 0;
  uint64_t index_ = 0;
  bool ended_ = false;
  bool failed_ = false;
};

// All of bytes at offset, over interruptions and short writes. Errors: full, io.
Result<void> write_all(int fd, std::span<const std::byte> bytes, uint64_t offset);

}  // namespace blobcache
