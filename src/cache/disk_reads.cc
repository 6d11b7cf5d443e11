// A reader reads the phase, then counts itself in it; between the two the keeper may turn the phase, so that the reader
// counts itself in the old one after that was seen empty. Such a reader has not asked the index yet... or it has: the order
// "count, then ask" means that one who counts late also asks late, and finds the blocks gone. Turning twice waits for both
// phases, so whoever counted before the blocks were taken out is waited for, whichever phase it read.
//
// No fence: the index's locks order the two sides. A reader that found the blocks held the lock before the keeper did, and
// counted itself before that.
//
// The counts are polled, 50 us apart: reads take that long, nobody is woken by a reader, and readers pay one add.
#include "cache/disk_reads.h"

#include <chrono>
#include <thread>

namespace blobcache {

uint64_t DiskReads::in_flight(unsigned disk) const {
  uint64_t count = 0;
  for (unsigned core = 0; core < lines_per_disk; ++core) {
    const Line& here = line(core, disk);
    count += here.in_flight[0].load(std::memory_order_acquire) + here.in_flight[1].load(std::memory_order_acquire);
  }
  return count;
}

uint64_t DiskReads::ended(unsigned disk) const {
  uint64_t count = 0;
  for (unsigned core = 0; core < lines_per_disk; ++core)
    count += line(core, disk).ended.load(std::memory_order_relaxed);
  return count;
}

bool DiskReads::wait(unsigned disk, unsigned patience_ms, Wait& wait) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(patience_ms);
  for (; wait.turns < 2; ++wait.turns, wait.turned = false) {
    if (!wait.turned) wait.old_phase = phases_[disk].fetch_add(1, std::memory_order_seq_cst) & 1;
    wait.turned = true;
    for (unsigned core = 0; core < lines_per_disk; ++core) {
      while (line(core, disk).in_flight[wait.old_phase].load(std::memory_order_seq_cst) != 0) {
        if (std::chrono::steady_clock::now() >= deadline) return false;
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    }
  }
  return true;
}

}  // namespace blobcache
