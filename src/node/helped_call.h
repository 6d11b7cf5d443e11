// HelpedCall: something that may hang with a disk, done on a thread of its own, so that the main thread can go on.
//   Owner     whoever answers a command.   Thread  the main thread
//   Limits    one at a time; while one hangs the next ones are refused
//   Lifetime  what the call uses outlives it, so it belongs to the owner; join() before the end
#pragma once

#include <chrono>
#include <functional>
#include <semaphore>
#include <thread>

#include "base/assert.h"

namespace blobcache::node {

class HelpedCall {
 public:
  HelpedCall() = default;
  ~HelpedCall() { BC_ASSERT(!thread_.joinable()); }
  HelpedCall(const HelpedCall&) = delete;
  HelpedCall& operator=(const HelpedCall&) = delete;

  // False: it did not end in time, and goes on by itself; or the one before has not ended yet.
  bool run(std::function<void()> call, std::chrono::milliseconds patience) {
    if (!join(std::chrono::milliseconds(0))) return false;
    thread_ = std::thread([this, call = std::move(call)] {
      call();
      ended_.release();
    });
    return join(patience);
  }
  // False: it still hangs.
  bool join(std::chrono::milliseconds patience) {
    if (!thread_.joinable()) return true;
    if (!ended_.try_acquire_for(patience)) return false;
    thread_.join();
    return true;
  }

 private:
  std::thread thread_;
  std::binary_semaphore ended_{0};
};

}  // namespace blobcache::node
