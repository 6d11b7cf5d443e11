// DiskReads: which disk reads are in flight, so that the keeper punches or reuses nothing under one.
//   Thread    enter and leave: the core's own; wait: keepers
//   Protocol  core:    phase = enter(core, disk); then ask the index; read; on its CQE leave(core, disk, phase)
//             keeper:  take the blocks out of the index; wait(disk, ...); punch
//             A reader that asked before the blocks were taken out is waited for; one that asks later does not find them.
//   Cost      an atomic add on a line of the core's own
// Two phases, turned twice, as in sleepable RCU (McKenney): a reader may be late between reading the phase and counting.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/limits.h"

namespace blobcache {

class DiskReads {
 public:
  explicit DiskReads(unsigned disks) : lines_(new Line[size_t{disks} * lines_per_disk]) {}

  unsigned enter(unsigned core, unsigned disk) {
    const unsigned phase = phases_[disk].load(std::memory_order_relaxed) & 1;
    line(core, disk).in_flight[phase].fetch_add(1, std::memory_order_seq_cst);
    return phase;
  }
  void leave(unsigned core, unsigned disk, unsigned phase) {
    Line& here = line(core, disk);
    here.ended.store(here.ended.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    here.in_flight[phase].fetch_sub(1, std::memory_order_release);
  }
  // Where a wait stands; one for each.
  struct Wait {
    unsigned turns = 0;  // of the phase, that were waited for
    bool turned = false;
    unsigned old_phase = 0;
  };
  // Returns when every read that was in flight when the wait began has ended; false: not within patience_ms. Then it is
  // called again with the same `wait`: new reads are always in flight on a busy disk, and are not waited for.
  bool wait(unsigned disk, unsigned patience_ms, Wait& wait);
  uint64_t in_flight(unsigned disk) const;
  // Reads that left since start: when this stands still while some are in flight, the disk hangs.
  uint64_t ended(unsigned disk) const;

  // The line of a disk's verifier, in place of a core.
  static constexpr unsigned verifier_line = limits::cores_max;

 private:
  static constexpr unsigned lines_per_disk = limits::cores_max + 1;
  struct alignas(64) Line {
    std::atomic<uint32_t> in_flight[2] = {0, 0};
    std::atomic<uint64_t> ended{0};
  };
  Line& line(unsigned core, unsigned disk) const { return lines_[size_t{disk} * lines_per_disk + core]; }

  static constexpr unsigned disks_max = 32;
  std::unique_ptr<Line[]> lines_;
  std::atomic<uint32_t> phases_[disks_max] = {};
};

}  // namespace blobcache
