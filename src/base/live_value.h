// LiveValue: a number of the configuration that may change while it is used. GuardedValue: what is more than a number.
//   Thread  any reads, any sets; it is right for itself, not beside others
#pragma once

#include <atomic>
#include <mutex>

#include "base/spinlock.h"

namespace blobcache {

template <class T>
class LiveValue {
 public:
  LiveValue(T value) : value_(value) {}  // NOLINT: stands where a T stood
  LiveValue(const LiveValue& other) : value_(other.get()) {}
  LiveValue& operator=(const LiveValue& other) {
    set(other.get());
    return *this;
  }
  T get() const { return value_.load(std::memory_order_relaxed); }
  void set(T value) { value_.store(value, std::memory_order_relaxed); }
  operator T() const { return get(); }

 private:
  std::atomic<T> value_;
};

// Not for the paths of requests: it locks.
template <class T>
class GuardedValue {
 public:
  T get() const {
    const std::lock_guard held(lock_);
    return value_;
  }
  void set(const T& value) {
    const std::lock_guard held(lock_);
    value_ = value;
  }

 private:
  mutable Spinlock lock_;
  T value_{};
};

}  // namespace blobcache
