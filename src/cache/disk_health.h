// DiskHealth: whether a disk is read and written. Judgement only: others do the I/O and tell what came of it.
//   Owner     DiskUnit.   Thread  any; state() is one load
//   Rules     3 read errors within 10 s, or reads that stand still for 1 s, or file operations for 2 s: down
//             a failing write, a read-only filesystem: degraded; no space: degraded for a second
//             two good probes in a row, 2 s apart, each within 250 ms, and nothing standing still: ok again
//   Log       each change is one line with cause and remedy
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

namespace blobcache {

enum class DiskState : uint8_t {
  ok,
  degraded,  // nothing is written to it (full, read-only, failing writes); reads go on
  down,      // not read either: it failed or hangs; probed until it is back
};

class DiskHealth {
 public:
  static constexpr uint64_t second_ns = 1'000'000'000;
  // Nothing of it moved for so long. File operations wait for the filesystem's journal, too; readers wait for reads.
  static constexpr uint64_t read_stuck_after_ns = second_ns;
  static constexpr uint64_t stuck_after_ns = 2 * second_ns;
  static constexpr uint64_t probe_every_ns = 2 * second_ns;
  static constexpr uint64_t full_for_ns = second_ns;
  static constexpr uint64_t error_window_ns = 10 * second_ns;
  static constexpr unsigned read_errors_max = 3;
  static constexpr unsigned good_probes_needed = 2;
  static constexpr uint64_t probe_max_ns = second_ns / 4;  // of a write and a read of a page

  explicit DiskHealth(std::string path) : path_(std::move(path)) {}

  DiskState state() const { return state_.load(std::memory_order_relaxed); }
  std::string why() const;

  void on_read_error(int os_errno, uint64_t now_ns);
  void on_write_error(int os_errno, uint64_t now_ns);
  // what: "a read did not end within 1 s", ...
  void on_stuck(const char* what, uint64_t now_ns);
  void on_moving() { stuck_.store(false, std::memory_order_relaxed); }
  // Ends what ends by itself. Now and then.
  void tick(uint64_t now_ns);
  bool wants_probe(uint64_t now_ns) const;
  void on_probe(bool good, int os_errno, uint64_t now_ns);

 private:
  void change_locked(DiskState state, std::string why, const char* remedy);

  const std::string path_;
  std::atomic<DiskState> state_{DiskState::ok};
  std::atomic<bool> stuck_{false};
  mutable std::mutex mutex_;
  std::string why_;
  uint64_t read_errors_ns_[read_errors_max] = {};  // a ring
  unsigned next_read_error_ = 0;
  uint64_t full_until_ns_ = 0;  // 0: it is not for want of space
  uint64_t next_probe_ns_ = 0;
  unsigned good_probes_ = 0;
};

}  // namespace blobcache
