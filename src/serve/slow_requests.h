// SlowRequests: the last requests of a volume that took longer than log.slow_request, for who looks at the node from outside.
//   Thread    any; a lock, held for a copy, that only a slow request and who asks for it take
//   Limits    the newest kept_max
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace blobcache::serve {

struct SlowRequest {
  std::string file;  // its key; of a lookup its folder's
  std::string_view operation;
  uint64_t ended_ns = 0;  // monotonic
  uint64_t total_ms = 0;
  uint64_t disk_ms = 0;
  uint64_t peer_ms = 0;
  uint64_t origin_ms = 0;
};

class SlowRequests {
 public:
  static constexpr size_t kept_max = 16;

  void add(SlowRequest request) {
    const std::lock_guard hold(mutex_);
    if (kept_.size() == kept_max) kept_.pop_front();
    kept_.push_back(std::move(request));
  }
  std::vector<SlowRequest> all() const {
    const std::lock_guard hold(mutex_);
    return {kept_.begin(), kept_.end()};
  }

 private:
  mutable std::mutex mutex_;
  std::deque<SlowRequest> kept_;
};

}  // namespace blobcache::serve
