#include "cache/disk_unit.h"

#include <algorithm>
#include <cerrno>

#include <sys/statvfs.h>

#include "cache/disk_keeper.h"
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

// Two limits, the lower one counts: what the configuration gives the cache, and what keeps the filesystem below its high
// watermark whatever else lies on it.
Result<void> DiskUnit::measure() {
  struct statvfs status;
  if (fstatvfs(directory.root_fd(), &status) != 0) return fail(Code::io, errno);
  const uint64_t unit = status.f_frsize;
  const uint64_t available = status.f_bavail * unit;
  const uint64_t total = (status.f_blocks - status.f_bfree) * unit + available;  // as df counts: without root's share
  const auto to_stay_free = static_cast<uint64_t>(static_cast<double>(total) * (1 - config.high_watermark));
  const uint64_t taken = space->used_bytes();
  const uint64_t by_filesystem = taken + available > to_stay_free ? taken + available - to_stay_free : 0;
  const uint64_t limit = std::min(config.size.resolve(total), by_filesystem);
  if (limit != space->limit_bytes()) space->set_limit(limit);
  return {};
}

}  // namespace blobcache
