// A range is one request: it cannot be had in portions, and it may be larger than any sensible burst. So the bucket gives
// all of it when it is not in debt, and is in debt for the rest; the next one waits until that is paid. Over any time that
// is longer than a range takes at that rate, the rate holds.
//
// All of the bucket is one number: the time until which the bytes given out are paid. In debt: it lies ahead. It lies at
// most burst_ns behind, so an origin that was not asked for an hour does not get an hour's bytes at once. One
// compare-and-swap takes; nobody who fails has changed anything.
//
// Rejected: libcurl's own limit (CURLOPT_MAX_RECV_SPEED_LARGE), which is of one transfer and looks at its clock by itself.
#include "origin/bandwidth.h"

#include <algorithm>

namespace blobcache {
namespace {

constexpr uint64_t s_ns = 1'000'000'000;
constexpr uint64_t burst_ns = s_ns / 10;

}  // namespace

Bandwidth::Bandwidth(uint64_t bytes_per_s) : bytes_per_s_(bytes_per_s) {}

void Bandwidth::set(uint64_t bytes_per_s) {
  if (bytes_per_s_.exchange(bytes_per_s, std::memory_order_relaxed) == bytes_per_s) return;
  paid_until_ns_.store(0, std::memory_order_relaxed);
}

// 2^32 bytes in nanoseconds fit into 62 bits.
uint64_t Bandwidth::time_of(uint32_t bytes) const {
  const uint64_t bytes_per_s = bytes_per_s_.load(std::memory_order_relaxed);
  return bytes_per_s == 0 ? 0 : bytes * s_ns / bytes_per_s;
}

uint64_t Bandwidth::try_take(uint32_t bytes, uint64_t now_ns) {
  if (bytes_per_s_.load(std::memory_order_relaxed) == 0) return 0;
  const uint64_t earliest_ns = now_ns - std::min(now_ns, burst_ns);
  uint64_t paid_ns = paid_until_ns_.load(std::memory_order_relaxed);
  while (paid_ns <= now_ns) {
    const uint64_t then_ns = std::max(paid_ns, earliest_ns) + time_of(bytes);
    if (paid_until_ns_.compare_exchange_weak(paid_ns, then_ns, std::memory_order_relaxed)) return 0;
  }
  return paid_ns;
}

// What was taken at another rate is given back at this one: never more than is owed at all.
void Bandwidth::give_back(uint32_t bytes) {
  const uint64_t given_ns = time_of(bytes);
  uint64_t paid_ns = paid_until_ns_.load(std::memory_order_relaxed);
  while (!paid_until_ns_.compare_exchange_weak(paid_ns, paid_ns - std::min(paid_ns, given_ns),
                                               std::memory_order_relaxed)) {
  }
}

}  // namespace blobcache
