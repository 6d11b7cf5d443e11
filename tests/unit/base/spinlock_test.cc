#include "base/spinlock.h"

#include <mutex>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

namespace blobcache {
namespace {

TEST_CASE("one holder at a time, and what it wrote is seen by the next") {
  Spinlock lock;
  uint64_t count = 0;  // plain: TSan would see a race
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 20'000; ++round) {
        const std::lock_guard guard(lock);
        ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(count == 80'000);
  REQUIRE(lock.try_lock());
  CHECK(!lock.try_lock());
  lock.unlock();
  CHECK(lock.try_lock());
  lock.unlock();
}

}  // namespace
}  // namespace blobcache
