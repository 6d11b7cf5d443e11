// A snapshot of generation G is made so:
//
//   begin   switch the log to log.G              what changes from here on is said there
//   copy    snapshot.new, a stripe at a time     may hold changes that log.G says again: applying comes to the same end
//   finish  flush log.G, write the header with the count of its records, fdatasync
//   rename  snapshot.new -> snapshot.G           the switch: before it, snapshot.F + log.F .. log.G is the state
//   clean   remove snapshot.F and log.F ..       after it, snapshot.G + log.G
//
// The header counts the records that log.G had when the copy ended. Only with these is the copy a state that existed; if a
// crash of the machine took some of them, the marks in the copy are dropped and everything is verified anew.
//
// Each start begins a new log, whose header says how many records of the log before it were believed. A torn tail is so
// left where it is; and if more of that log has become unreadable by the next start, what followed it is not believed
// either: its records speak of things this start would not know.
//
// Rejected: one log for ever with a marker of the last snapshot (space), and copying on write (memory).
#include "cache/disk_journal.h"

#include <algorithm>
#include <cerrno>

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/assert.h"

namespace blobcache {

using disk_format::IndexFileHeader;
using disk_format::IndexFileKind;
using disk_format::IndexRecord;

namespace {

constexpr const char* new_snapshot_name = "snapshot.new";
constexpr uint64_t log_files_max = 64;  // starts without a snapshot in between

struct Fd {
  int value;
  explicit Fd(int fd) : value(fd) {}
  ~Fd() {
    if (value >= 0) ::close(value);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
};

uint64_t file_bytes(uint64_t records) { return sizeof(IndexFileHeader) + records * sizeof(IndexRecord); }

}  // namespace

DiskJournal::DiskJournal(DiskIndex& index, const Options& options)
    : index_(index),
      options_(options),
      log_({.index_fd = options.index_fd, .disk = options.disk_uuid, .records_max = options.log_records_max}) {}

Result<DiskJournal::Files> DiskJournal::list_files() const {
  Files files;
  const int fd = openat(options_.index_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* folder = fd < 0 ? nullptr : fdopendir(fd);
  if (folder == nullptr) {
    const int error = errno;
    if (fd >= 0) ::close(fd);
    return fail(Code::io, error);
  }
  while (const dirent* entry = readdir(folder)) {
    if (const uint64_t log = disk_format::generation_of(entry->d_name, IndexFileKind::log)) files.logs.push_back(log);
    if (const uint64_t snapshot = disk_format::generation_of(entry->d_name, IndexFileKind::snapshot))
      files.snapshots.push_back(snapshot);
  }
  closedir(folder);
  std::ranges::sort(files.logs);
  std::ranges::sort(files.snapshots);
  return files;
}

Result<void> DiskJournal::apply_all(DiskRecordReader& reader, DiskLoadReport* report) {
  while (const IndexRecord* record = reader.next()) {
    if (!index_.apply(options_.disk, *record)) ++report->records_rejected;
  }
  report->records += reader.accepted();
  report->bytes_ignored += reader.bytes_left();
  if (reader.failed()) return fail(Code::io);
  return {};
}

// The newest one that is a snapshot at all. Its generation, or 0.
Result<uint64_t> DiskJournal::load_snapshots(const std::vector<uint64_t>& generations, DiskLoadReport* report) {
  for (auto generation = generations.rbegin(); generation != generations.rend(); ++generation) {
    const std::string name = disk_format::snapshot_name(*generation);
    const Fd fd(openat(options_.index_fd, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    DiskRecordReader reader(fd.value, IndexFileKind::snapshot, options_.disk_uuid);
    const Result<IndexFileHeader> header = reader.read_header();
    if (!header && header.error().code == Code::io) return std::unexpected(header.error());
    if (!header || header->generation != *generation) {
      ++report->files_ignored;
      continue;
    }
    const Result<void> applied = apply_all(reader, report);
    if (!applied) return std::unexpected(applied.error());
    if (reader.accepted() != header->records) needs_base_ = true;
    snapshot_bytes_ = file_bytes(reader.accepted());
    log_records_needed_ = header->log_records;
    return *generation;
  }
  return 0;
}

Result<void> DiskJournal::load_logs(const std::vector<uint64_t>& generations, uint64_t base, DiskLoadReport* report) {
  // Without a snapshot the first log that ever was is the base.
  last_log_ = base == 0 ? 0 : base - 1;
  for (const uint64_t generation : generations) {
    if (generation < base) continue;  // left by a cleaning that was cut short
    const std::string name = disk_format::log_name(generation);
    const Fd fd(openat(options_.index_fd, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    DiskRecordReader reader(fd.value, IndexFileKind::log, options_.disk_uuid);
    const Result<IndexFileHeader> header = reader.read_header();
    if (!header && header.error().code == Code::io) return std::unexpected(header.error());
    const bool follows = header && header->generation == generation && generation == last_log_ + 1 &&
                         (generation == base || header->records == last_log_records_);
    if (!follows) break;
    const Result<void> applied = apply_all(reader, report);
    if (!applied) return applied;
    last_log_ = generation;
    last_log_records_ = reader.accepted();
    old_log_bytes_ += file_bytes(reader.accepted());
    ++log_files_;
    if (generation == base && reader.accepted() < log_records_needed_) report->marks_dropped = true;
  }
  for (const uint64_t generation : generations) report->files_ignored += generation > last_log_;
  if (base != 0 && last_log_ < base && log_records_needed_ > 0) report->marks_dropped = true;
  if (report->marks_dropped) {
    index_.distrust(options_.disk);
    needs_base_ = true;
  }
  return {};
}

// The new log follows the last one believed. A base whose own log is missing gets an empty one, so that what is missing
// stays missing.
Result<void> DiskJournal::begin_first_log() {
  if (last_log_ < base_generation_) {
    const Result<void> begun = log_.switch_file(base_generation_, 0);
    if (!begun || log_records_needed_ == 0) return begun;
    last_log_ = base_generation_;
    last_log_records_ = 0;
  }
  return log_.switch_file(last_log_ + 1, last_log_records_);
}

// The newest first, so that at no time one of them can follow what is there.
Result<void> DiskJournal::remove_unbelieved(const Files& files) {
  for (auto generation = files.logs.rbegin(); generation != files.logs.rend() && *generation > last_log_;
       ++generation) {
    if (unlinkat(options_.index_fd, disk_format::log_name(*generation).c_str(), 0) != 0) return fail(Code::io, errno);
  }
  for (const uint64_t generation : files.snapshots) {
    if (generation <= base_generation_) continue;
    if (unlinkat(options_.index_fd, disk_format::snapshot_name(generation).c_str(), 0) != 0)
      return fail(Code::io, errno);
  }
  unlinkat(options_.index_fd, new_snapshot_name, 0);
  return remove_files_before(base_generation_);
}

Result<DiskLoadReport> DiskJournal::load() {
  const Result<Files> files = list_files();
  if (!files) return std::unexpected(files.error());
  DiskLoadReport report;
  const Result<uint64_t> base = load_snapshots(files->snapshots, &report);
  if (!base) return std::unexpected(base.error());
  base_generation_ = *base;
  Result<void> done = load_logs(files->logs, base_generation_, &report);
  if (done) done = remove_unbelieved(*files);
  if (done) done = begin_first_log();
  if (!done) return std::unexpected(done.error());
  index_.attach(options_.disk, &log_);
  return report;
}

bool DiskJournal::wants_snapshot() const {
  const uint64_t log_bytes = old_log_bytes_ + file_bytes(log_.records_written());
  return needs_base_ || log_.lost_records() || log_files_ >= log_files_max ||
         log_bytes > std::max(snapshot_bytes_, options_.log_bytes_min);
}

Result<void> DiskJournal::begin_snapshot() {
  snapshot_fd_ =
      openat(options_.index_fd, new_snapshot_name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (snapshot_fd_ < 0) return fail(errno == ENOSPC || errno == EDQUOT ? Code::full : Code::io, errno);
  const uint64_t before = log_.records_written();
  const Result<void> switched = log_.switch_file(log_.generation() + 1, 0);
  behind_gap_ = behind_gap_ || log_.follows_gap();
  needs_base_ = needs_base_ || behind_gap_;
  old_log_bytes_ += file_bytes(before);
  ++log_files_;
  stripe_ = 0;
  snapshot_records_ = 0;
  copied_.clear();
  index_.copy_segments(options_.disk, &copied_);
  return switched;
}

Result<void> DiskJournal::copy_next_stripe() {
  index_.copy_stripe(options_.disk, stripe_++, &copied_);
  for (IndexRecord& record : copied_) {
    if (options_.frequency_of != nullptr) record.frequency = options_.frequency_of(options_.context, record);
    seal(record,
         disk_format::record_seed(options_.disk_uuid, IndexFileKind::snapshot, log_.generation(), snapshot_records_++));
  }
  const uint64_t offset = file_bytes(snapshot_records_ - copied_.size());
  const Result<void> done = write_all(snapshot_fd_, std::as_bytes(std::span(copied_)), offset);
  copied_.clear();
  return done;
}

Result<void> DiskJournal::finish_snapshot() {
  const Result<void> flushed = log_.flush();
  if (!flushed) return flushed;
  if (log_.lost_records()) return fail(Code::full);  // the copy may hold what the log does not say
  IndexFileHeader header{.kind = static_cast<uint64_t>(IndexFileKind::snapshot),
                         .version = disk_format::version,
                         .record_bytes = sizeof(IndexRecord),
                         .disk = {options_.disk_uuid.words[0], options_.disk_uuid.words[1]},
                         .generation = log_.generation(),
                         .records = snapshot_records_,
                         .log_records = log_.records_written()};
  seal(header, options_.disk_uuid);
  const Result<void> written = write_all(snapshot_fd_, std::as_bytes(std::span(&header, 1)), 0);
  if (!written) return written;
  if (fdatasync(snapshot_fd_) != 0) return fail(Code::io, errno);
  return {};
}

Result<bool> DiskJournal::step_snapshot() {
  Result<void> done;
  switch (step_) {
    case Step::idle:
      done = begin_snapshot();
      step_ = Step::copy;
      break;
    case Step::copy:
      done = copy_next_stripe();
      if (stripe_ == DiskIndex::stripe_count) step_ = Step::finish;
      break;
    case Step::finish:
      done = finish_snapshot();
      step_ = Step::rename;
      break;
    case Step::rename: {
      const std::string name = disk_format::snapshot_name(log_.generation());
      if (renameat(options_.index_fd, new_snapshot_name, options_.index_fd, name.c_str()) != 0)
        done = fail(Code::io, errno);
      else if (fsync(options_.index_fd) != 0)
        done = fail(Code::io, errno);
      step_ = Step::clean;
      break;
    }
    case Step::clean:
      base_generation_ = log_.generation();
      snapshot_bytes_ = file_bytes(snapshot_records_);
      old_log_bytes_ = 0;
      log_files_ = 0;
      behind_gap_ = needs_base_ = false;
      done = remove_files_before(base_generation_);
      step_ = Step::idle;
      break;
  }
  if (!done || step_ == Step::idle) {
    step_ = Step::idle;
    if (snapshot_fd_ >= 0) ::close(snapshot_fd_);
    snapshot_fd_ = -1;
    if (!done) return std::unexpected(done.error());
  }
  return step_ != Step::idle;
}

// Snapshots first: a log that is older than the snapshot in force is never read.
Result<void> DiskJournal::remove_files_before(uint64_t generation) {
  const Result<Files> files = list_files();
  if (!files) return std::unexpected(files.error());
  for (const uint64_t snapshot : files->snapshots) {
    if (snapshot < generation && unlinkat(options_.index_fd, disk_format::snapshot_name(snapshot).c_str(), 0) != 0)
      return fail(Code::io, errno);
  }
  for (const uint64_t log : files->logs) {
    if (log < generation && unlinkat(options_.index_fd, disk_format::log_name(log).c_str(), 0) != 0)
      return fail(Code::io, errno);
  }
  return {};
}

Result<void> DiskJournal::stop() {
  if (snapshot_fd_ >= 0) ::close(snapshot_fd_);
  snapshot_fd_ = -1;
  step_ = Step::idle;
  index_.attach(options_.disk, nullptr);
  return log_.flush();
}

}  // namespace blobcache
