// DiskThread: a thread of the disk tier that sleeps until it is woken or a time has come, can be told to stop, and can be
// seen to stand still.
//   Thread    start, begin_stop, join_until: the owner's; wake, busy_since_ns: any; the rest: its own
//   Rule      a thread that hangs in the kernel is never joined: join_until says so, and nothing it uses may be freed
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

namespace blobcache {

inline uint64_t steady_now_ns() {
  return static_cast<uint64_t>(std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
}

// Days since 1970, UTC, by the wall clock.
inline uint64_t day_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::days>(now).count());
}

class DiskThread {
 public:
  template <class Body>
  void start(Body&& body) {
    running_ = true;
    thread_ = std::thread([this, body] {
      body();
      const std::lock_guard guard(mutex_);
      running_ = false;
      ended_.notify_all();
    });
  }
  void begin_stop() {
    stopping_.store(true, std::memory_order_release);
    wake();
  }
  // False: it still runs.
  bool join_until(uint64_t deadline_ns) {
    if (abandoned_) return false;
    if (!thread_.joinable()) return true;
    {
      std::unique_lock guard(mutex_);
      if (!ended_.wait_until(guard, at(deadline_ns), [this] { return !running_; })) return false;
    }
    thread_.join();
    return true;
  }
  // Gives up on a thread that hangs.
  void abandon() {
    if (!thread_.joinable()) return;
    thread_.detach();
    abandoned_ = true;
  }

  // What was made for it to see before this call is seen when it wakes.
  void wake() {
    if (woken_.exchange(true, std::memory_order_acq_rel)) return;
    {
      const std::lock_guard guard(mutex_);
    }
    wakeup_.notify_one();
  }
  void wait_until(uint64_t deadline_ns) {
    std::unique_lock guard(mutex_);
    wakeup_.wait_until(guard, at(deadline_ns), [this] { return woken_.load(std::memory_order_acquire); });
    woken_.exchange(false, std::memory_order_acq_rel);
  }
  bool stopping() const { return stopping_.load(std::memory_order_acquire); }

  // Around each piece of work that the disk may let hang.
  void begin_work() { busy_since_ns_.store(steady_now_ns(), std::memory_order_relaxed); }
  void end_work() { busy_since_ns_.store(0, std::memory_order_relaxed); }
  uint64_t busy_since_ns() const { return busy_since_ns_.load(std::memory_order_relaxed); }  // 0: idle

 private:
  static std::chrono::steady_clock::time_point at(uint64_t ns) {
    return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(ns));
  }

  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable wakeup_;
  std::condition_variable ended_;
  bool running_ = false;
  bool abandoned_ = false;  // the owner's
  std::atomic<bool> woken_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> busy_since_ns_{0};
};

}  // namespace blobcache
