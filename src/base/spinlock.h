// Spinlock: for critical sections of a few dozen instructions on shared tables.
//   Rule      never held across a turn, a system call, or another lock of the same class
// Not std::mutex: a futex would be a system call on a core, and the sections are shorter than a wake-up.
#pragma once

#include <atomic>

namespace blobcache {

class Spinlock {
 public:
  void lock() {
    while (held_.exchange(true, std::memory_order_acquire)) {
      while (held_.load(std::memory_order_relaxed)) relax_cpu();
    }
  }
  bool try_lock() { return !held_.exchange(true, std::memory_order_acquire); }
  void unlock() { held_.store(false, std::memory_order_release); }

  // A moment, for the other thread of a processor.
  static void relax_cpu() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

 private:
  std::atomic<bool> held_{false};
};

}  // namespace blobcache
