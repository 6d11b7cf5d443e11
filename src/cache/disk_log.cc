// Two buffers of records: cores append to one under a spinlock (a copy and a checksum of 64 bytes, about 20 ns), the
// flusher exchanges them and writes the other with one pwrite. So records of many cores share a write, and a core never
// waits for the disk. A checksum is seeded with the record's index in its file, so it is computed where the index is given
// out, under the lock.
//
// When the buffer overflows or a write fails, the log goes deaf: a file with a hole would say things in an order that never
// was. What the index learns from then on is lost at a restart (misses), until a snapshot with a new file follows.
#include "cache/disk_log.h"

#include <algorithm>
#include <cerrno>
#include <mutex>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"

namespace blobcache {

using disk_format::IndexFileHeader;
using disk_format::IndexFileKind;
using disk_format::IndexRecord;

Result<void> write_all(int fd, std::span<const std::byte> bytes, uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t count = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail(errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? Code::full : Code::io, errno);
    if (count == 0) return fail(Code::io);
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return {};
}

DiskLog::DiskLog(const DiskLogOptions& options)
    : index_fd_(options.index_fd), disk_(options.disk), records_max_(options.records_max) {
  BC_ASSERT(records_max_ > 0);
  for (auto& buffer : buffers_) buffer = std::make_unique<Record[]>(records_max_);
}

DiskLog::~DiskLog() {
  if (fd_ >= 0) ::close(fd_);
}

void DiskLog::append(const IndexRecord& record) {
  const std::lock_guard guard(lock_);
  if (open_ && used_ == records_max_) open_ = false;
  if (!open_) {
    lost_.store(true, std::memory_order_relaxed);
    lost_count_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  Record& slot = buffers_[current_][used_++];
  slot = record;
  seal(slot, disk_format::record_seed(disk_, IndexFileKind::log, seal_generation_, next_index_++));
  pending_.store(used_, std::memory_order_relaxed);
}

void DiskLog::lose() {
  broken_ = true;
  const std::lock_guard guard(lock_);
  open_ = false;
  lost_.store(true, std::memory_order_relaxed);
}

Result<void> DiskLog::write_waiting(uint32_t buffer, uint32_t count) {
  if (broken_) {
    if (count == 0) return {};
    lost_count_.fetch_add(count, std::memory_order_relaxed);
    return fail(Code::io);
  }
  const uint64_t offset = sizeof(IndexFileHeader) + written_ * sizeof(Record);
  const Result<void> done = write_all(fd_, std::as_bytes(std::span(buffers_[buffer].get(), count)), offset);
  if (!done) {
    lost_count_.fetch_add(count, std::memory_order_relaxed);
    lose();
    return done;
  }
  written_ += count;
  return {};
}

Result<void> DiskLog::flush() {
  uint32_t buffer = 0;
  uint32_t count = 0;
  {
    const std::lock_guard guard(lock_);
    buffer = current_;
    count = used_;
    current_ ^= 1;
    used_ = 0;
    pending_.store(0, std::memory_order_relaxed);
  }
  return write_waiting(buffer, count);
}

Result<void> DiskLog::switch_file(uint64_t generation, uint64_t records_before) {
  BC_ASSERT(generation > generation_);
  const bool first = generation_ == 0;
  uint32_t buffer = 0;
  uint32_t count = 0;
  bool gap = false;
  {
    const std::lock_guard guard(lock_);
    buffer = current_;
    count = used_;
    current_ ^= 1;
    used_ = 0;
    pending_.store(0, std::memory_order_relaxed);
    gap = !open_;
    open_ = true;
    next_index_ = 0;
    seal_generation_ = generation;
    lost_.store(false, std::memory_order_relaxed);
  }
  if (!first) {
    // From here on the buffer in use belongs to the next file, so a failure here only leaves a gap before that one.
    const uint64_t offset = sizeof(IndexFileHeader) + written_ * sizeof(Record);
    const auto waiting = std::as_bytes(std::span(buffers_[buffer].get(), count));
    if (broken_ || !write_all(fd_, waiting, offset)) {
      gap = true;
      lost_count_.fetch_add(count, std::memory_order_relaxed);
    } else {
      written_ += count;
    }
    records_before = gap ? disk_format::records_unknown : written_;
    follows_gap_ = gap;
  }
  generation_ = generation;
  const Result<void> created = create_file(records_before);
  broken_ = false;
  if (!created) lose();
  return created;
}

Result<void> DiskLog::create_file(uint64_t records_before) {
  if (fd_ >= 0) ::close(fd_);
  written_ = 0;
  const std::string name = disk_format::log_name(generation_);
  // A file of this name can only be one that an earlier start began and nobody trusts.
  fd_ = openat(index_fd_, name.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd_ < 0) return fail(errno == ENOSPC || errno == EDQUOT ? Code::full : Code::io, errno);
  IndexFileHeader header{.kind = static_cast<uint64_t>(IndexFileKind::log),
                         .version = disk_format::version,
                         .record_bytes = sizeof(Record),
                         .disk = {disk_.words[0], disk_.words[1]},
                         .generation = generation_,
                         .records = records_before};
  seal(header, disk_);
  return write_all(fd_, std::as_bytes(std::span(&header, 1)), 0);
}

DiskRecordReader::DiskRecordReader(int fd, IndexFileKind kind, const disk_format::Uuid& disk)
    : fd_(fd), kind_(kind), disk_(disk), buffer_(std::make_unique<IndexRecord[]>(buffer_records)) {}

Result<IndexFileHeader> DiskRecordReader::read_header() {
  ended_ = true;
  const ssize_t count = pread(fd_, &header_, sizeof header_, 0);
  if (count < 0) return fail(Code::io, errno);
  if (count != sizeof header_ || !check(header_, disk_, kind_)) return fail(Code::corrupt);
  ended_ = false;
  return header_;
}

bool DiskRecordReader::fill() {
  size_t bytes = 0;
  const uint64_t offset = sizeof(IndexFileHeader) + index_ * sizeof(IndexRecord);
  while (bytes < buffer_records * sizeof(IndexRecord)) {
    const ssize_t count = pread(fd_, reinterpret_cast<std::byte*>(buffer_.get()) + bytes,
                                buffer_records * sizeof(IndexRecord) - bytes, static_cast<off_t>(offset + bytes));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) failed_ = true;
    if (count <= 0) break;
    bytes += static_cast<size_t>(count);
  }
  position_ = 0;
  buffered_ = bytes / sizeof(IndexRecord);
  return buffered_ > 0;
}

const IndexRecord* DiskRecordReader::next() {
  if (ended_ || (kind_ == IndexFileKind::snapshot && index_ == header_.records) ||
      (position_ == buffered_ && !fill())) {
    ended_ = true;
    return nullptr;
  }
  const IndexRecord& record = buffer_[position_];
  if (!check(record, disk_format::record_seed(disk_, kind_, header_.generation, index_))) {
    ended_ = true;
    return nullptr;
  }
  ++position_;
  ++index_;
  return &record;
}

uint64_t DiskRecordReader::bytes_left() const {
  struct stat status;
  if (fstat(fd_, &status) != 0) return 0;
  const uint64_t accepted_bytes = sizeof(IndexFileHeader) + index_ * sizeof(IndexRecord);
  const auto size = static_cast<uint64_t>(status.st_size);
  return size > accepted_bytes ? size - accepted_bytes : 0;
}

}  // namespace blobcache
