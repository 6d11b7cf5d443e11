#include "cache/disk_unit.h"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cache/disk_keeper.h"
#include "cache/disk_log.h"
#include "cache/disk_thread.h"
#include "cache/disk_verifier.h"

namespace blobcache {

DiskUnit::DiskUnit(DiskShared& shared_by_all, unsigned disk_number, uint32_t files_max)
    : shared(shared_by_all), number(disk_number), files(files_max) {}

DiskUnit::~DiskUnit() = default;

void DiskUnit::on_write_error(int os_errno) {
  counters.write_errors.fetch_add(1, std::memory_order_relaxed);
  health->on_write_error(os_errno == 0 ? EIO : os_errno, steady_now_ns());
  if (health->state() != DiskState::ok) verifier->thread().wake();  // it probes
}

void DiskUnit::on_read_error(int os_errno) {
  counters.read_errors.fetch_add(1, std::memory_order_relaxed);
  health->on_read_error(os_errno == 0 ? EIO : os_errno, steady_now_ns());
  if (health->state() != DiskState::ok) verifier->thread().wake();
}

void DiskUnit::on_shed(uint64_t bytes) {
  counters.writes_shed.fetch_add((bytes + limits::block_bytes - 1) / limits::block_bytes, std::memory_order_relaxed);
}

void DiskUnit::load_spent() {
  const int fd = openat(directory.index_fd(), disk_format::budget_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return;
  disk_format::BudgetFile file;
  const bool whole = read(fd, &file, sizeof file) == sizeof file;
  ::close(fd);
  if (!whole || !check(file, directory.disk())) return;
  kept_spent_ = {.day = file.day, .bytes = file.written_bytes};
  space->set_spent(kept_spent_);
}

// Written over in place: one that was cut short does not check, and the day begins anew.
void DiskUnit::keep_spent() {
  const DiskSpace::Spent spent = space->spent();
  if (spent == kept_spent_) return;
  disk_format::BudgetFile file{.day = spent.day, .written_bytes = spent.bytes};
  seal(file, directory.disk());
  const int fd =
      openat(directory.index_fd(), disk_format::budget_name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  const Result<void> written = fd < 0 ? fail(Code::io, errno) : write_all(fd, std::as_bytes(std::span(&file, 1)), 0);
  if (fd >= 0) ::close(fd);
  if (!written) return on_write_error(written.error().os_errno);
  kept_spent_ = spent;
}

uint8_t DiskUnit::frequency_of(const disk_format::IndexRecord& record) const {
  if (record.type == static_cast<uint8_t>(disk_format::RecordType::segment))
    return space->frequency_of(shared.segment_entry(number, record.position));
  DiskView view;
  const bool known = shared.index.find({{record.id[0], record.id[1]}}, record.position, &view);
  return known && !view.place.packed ? space->frequency_of(view.entry) : 0;
}

// This disk's part of an amount for all: bytes are divided evenly, a share is the same of each.
uint64_t DiskUnit::part_of(const Amount& amount, uint64_t total) const {
  return amount.is_share ? amount.resolve(total) : amount.bytes / shared.cache.disks.size();
}

void DiskUnit::set_watermarks(double high, double low) {
  high_watermark.store(high, std::memory_order_relaxed);
  space->set_low_share(high > 0 ? low / high : 1);
}

// Limits, of which the lowest counts: what the configuration gives the cache, less what only the content store may take;
// the quota; and what keeps the filesystem below its high watermark whatever else lies on it.
Result<void> DiskUnit::measure() {
  struct statvfs status;
  if (fstatvfs(directory.root_fd(), &status) != 0) return fail(Code::io, errno);
  const uint64_t unit = status.f_frsize;
  const uint64_t available = status.f_bavail * unit;
  const uint64_t total = (status.f_blocks - status.f_bfree) * unit + available;  // as df counts: without root's share
  const auto to_stay_free =
      static_cast<uint64_t>(static_cast<double>(total) * (1 - high_watermark.load(std::memory_order_relaxed)));
  const uint64_t taken = space->used_bytes();
  const uint64_t by_filesystem = taken + available > to_stay_free ? taken + available - to_stay_free : 0;
  const uint64_t size = config.size.resolve(total);
  uint64_t limit = std::min(size - std::min(size, part_of(shared.cache.blobs_reserved, total)), by_filesystem);
  if (const Amount quota = shared.quota.get(); quota != Amount()) limit = std::min(limit, part_of(quota, total));
  if (limit != space->limit_bytes()) space->set_limit(limit);
  return {};
}

}  // namespace blobcache
