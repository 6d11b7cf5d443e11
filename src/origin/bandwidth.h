// Bandwidth: how many bytes a second one origin may be asked for, over all cores: a bucket of tokens, kept as a time.
//   Owner     an origin
//   Thread    any
//   Times     of one monotonic clock, in nanoseconds
#pragma once

#include <atomic>
#include <cstdint>

namespace blobcache {

class Bandwidth {
 public:
  // 0: no limit.
  explicit Bandwidth(uint64_t bytes_per_s);
  // From now on; what was owed is forgotten.
  void set(uint64_t bytes_per_s);
  bool has_limit() const { return bytes_per_s_.load(std::memory_order_relaxed) != 0; }

  // 0: the bytes are taken. Else nothing is, and the time says when asking again may help.
  uint64_t try_take(uint32_t bytes, uint64_t now_ns);
  // Of what was taken: these were not sent to us.
  void give_back(uint32_t bytes);

 private:
  uint64_t time_of(uint32_t bytes) const;

  std::atomic<uint64_t> bytes_per_s_;
  std::atomic<uint64_t> paid_until_ns_{0};
};

}  // namespace blobcache
