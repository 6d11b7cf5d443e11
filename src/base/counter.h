// Counter: a number that one core adds to and anyone reads.
//   Thread    add: the owning core only (no locked instruction); value: any
#pragma once

#include <atomic>
#include <cstdint>

namespace blobcache {

class Counter {
 public:
  void add(uint64_t n) { value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

}  // namespace blobcache
