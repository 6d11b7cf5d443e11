// Pool<T>: a fixed array handed out and taken back. Its size is the limit; running out is the backpressure.
//   Thread    one; each core has pools of its own
//   Lifetime  every T is constructed once, at start; acquire and release are two moves on a stack of indices
//   Limits    try_acquire returns null when all are out
//   Cost      measured in bench/: below 8 ns for the pair, no allocation
#pragma once

#include <cstdint>
#include <memory>

#include "base/assert.h"

namespace blobcache {

template <class T>
class Pool {
 public:
  explicit Pool(uint32_t count)
      : items_(std::make_unique<T[]>(count)), free_(std::make_unique<uint32_t[]>(count)), count_(count) {
    for (uint32_t i = 0; i < count; ++i) free_[i] = count - 1 - i;
    free_count_ = count;
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  T* try_acquire() { return free_count_ == 0 ? nullptr : &items_[free_[--free_count_]]; }

  void release(T& item) {
    const auto index = static_cast<uint32_t>(&item - items_.get());
    BC_ASSERT(index < count_ && free_count_ < count_);
    free_[free_count_++] = index;
  }

  uint32_t count() const { return count_; }
  uint32_t free_count() const { return free_count_; }
  T& operator[](uint32_t index) {
    BC_ASSERT(index < count_);
    return items_[index];
  }

 private:
  std::unique_ptr<T[]> items_;
  std::unique_ptr<uint32_t[]> free_;
  uint32_t count_;
  uint32_t free_count_ = 0;
};

}  // namespace blobcache
