//            write error                    3 read errors, or stuck
//     ok ------------------> degraded ---------------------------> down
//      ^  (no space: a second)  |                                   |
//      +------------------------+------------ two good probes ------+
#include "cache/disk_health.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"

namespace blobcache {

using Guard = std::lock_guard<std::mutex>;

std::string DiskHealth::why() const {
  const Guard guard(mutex_);
  return why_;
}

void DiskHealth::change_locked(DiskState state, std::string why, const char* remedy) {
  const DiskState before = state_.load(std::memory_order_relaxed);
  why_ = std::move(why);
  good_probes_ = 0;
  if (before == state) return;
  state_.store(state, std::memory_order_relaxed);
  if (state == DiskState::ok) {
    BC_LOG(info, "cache disk {}: used again", path_);
  } else {
    BC_LOG(warn, "cache disk {}: {} ({}); {}", path_, state == DiskState::down ? "not used" : "not written to", why_,
           remedy);
  }
}

// The page behind the object's end is zeroed by ftruncate in the page cache. A read past the page cache writes that page out
// first, and so fails with EROFS once the filesystem has become read-only, although its disk reads.
void DiskHealth::on_read_error(int os_errno, uint64_t now_ns) {
  if (os_errno == EROFS) return on_write_error(os_errno, now_ns);
  const Guard guard(mutex_);
  read_errors_ns_[next_read_error_] = now_ns;
  next_read_error_ = (next_read_error_ + 1) % read_errors_max;
  const uint64_t oldest = *std::min_element(std::begin(read_errors_ns_), std::end(read_errors_ns_));
  if (oldest == 0 || now_ns - oldest > error_window_ns || state() == DiskState::down) return;
  full_until_ns_ = 0;
  next_probe_ns_ = now_ns + probe_every_ns;
  change_locked(DiskState::down, std::string("reads fail: ") + std::strerror(os_errno),
                "look at the kernel's log and replace the disk; it is tried again every 2 s");
}

void DiskHealth::on_write_error(int os_errno, uint64_t now_ns) {
  const Guard guard(mutex_);
  if (state() == DiskState::down) return;
  if (os_errno == ENOSPC || os_errno == EDQUOT) {
    if (state() == DiskState::degraded && full_until_ns_ == 0) return;
    full_until_ns_ = now_ns + full_for_ns;
    change_locked(DiskState::degraded, "no space", "others fill its filesystem: give it room or lower cache.disk.size");
    return;
  }
  full_until_ns_ = 0;
  next_probe_ns_ = now_ns + probe_every_ns;
  change_locked(DiskState::degraded, std::string("writes fail: ") + std::strerror(os_errno),
                os_errno == EROFS ? "remount its filesystem read-write"
                                  : "look at the kernel's log; it is tried again every 2 s");
}

void DiskHealth::on_stuck(const char* what, uint64_t now_ns) {
  stuck_.store(true, std::memory_order_relaxed);
  const Guard guard(mutex_);
  if (state() == DiskState::down) return;
  full_until_ns_ = 0;
  next_probe_ns_ = now_ns + probe_every_ns;
  change_locked(DiskState::down, what,
                "look at the kernel's log and at the disk's connection; it is tried again when it moves");
}

void DiskHealth::tick(uint64_t now_ns) {
  if (state() != DiskState::degraded) return;
  const Guard guard(mutex_);
  if (full_until_ns_ == 0 || now_ns < full_until_ns_ || state() != DiskState::degraded) return;
  full_until_ns_ = 0;
  change_locked(DiskState::ok, "", "");
}

bool DiskHealth::wants_probe(uint64_t now_ns) const {
  if (state() == DiskState::ok) return false;
  const Guard guard(mutex_);
  return full_until_ns_ == 0 && now_ns >= next_probe_ns_;
}

void DiskHealth::on_probe(bool good, int os_errno, uint64_t now_ns) {
  const Guard guard(mutex_);
  next_probe_ns_ = now_ns + probe_every_ns;
  if (state() == DiskState::ok || full_until_ns_ != 0) return;
  if (!good || stuck_.load(std::memory_order_relaxed)) {
    good_probes_ = 0;
    if (os_errno != 0) why_ = std::string("a test file failed: ") + std::strerror(os_errno);
    return;
  }
  if (++good_probes_ < good_probes_needed) return;
  std::fill(std::begin(read_errors_ns_), std::end(read_errors_ns_), uint64_t{0});
  change_locked(DiskState::ok, "", "");
}

}  // namespace blobcache
