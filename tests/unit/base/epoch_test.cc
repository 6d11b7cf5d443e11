#include "base/epoch.h"

#include <atomic>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

namespace blobcache {
namespace {

TEST_CASE("a stamp is passed when every core that was awake has ended its turn") {
  Epochs epochs;
  const uint64_t nobody = epochs.retire();
  CHECK(epochs.all_passed(nobody));
  epochs.enter(0);
  epochs.enter(5);
  const uint64_t stamp = epochs.retire();
  CHECK(!epochs.all_passed(stamp));
  epochs.leave(0);
  CHECK(!epochs.all_passed(stamp));
  epochs.enter(0);  // a turn that began after the unlink holds nobody up
  CHECK(!epochs.all_passed(stamp));
  epochs.leave(5);
  CHECK(epochs.all_passed(stamp));
  CHECK(!epochs.all_passed(epochs.retire()));
  epochs.leave(0);
}

// Plain memory that is poisoned and rewritten as soon as the epochs allow it: a reader that still looks at it reads a torn
// pair, and TSan sees the race.
struct Frame {
  uint64_t value = 0;
  uint64_t negated = ~uint64_t{0};
};

TEST_CASE("readers never see memory that is used again") {
  constexpr unsigned readers = 3;
  constexpr uint64_t rounds = 20'000;
  Epochs epochs;
  Frame frames[2];
  std::atomic<Frame*> current{&frames[0]};
  std::atomic<bool> ended{false};
  std::atomic<uint64_t> torn{0};
  std::atomic<uint64_t> reads{0};
  std::vector<std::thread> threads;
  for (unsigned core = 0; core < readers; ++core) {
    threads.emplace_back([&, core] {
      while (!ended.load(std::memory_order_relaxed)) {
        epochs.enter(core);
        for (int i = 0; i < 4; ++i) {
          const Frame* frame = current.load(std::memory_order_seq_cst);
          const uint64_t value = frame->value;
          if (frame->negated != ~value) torn.fetch_add(1);
        }
        epochs.leave(core);
        reads.fetch_add(4, std::memory_order_relaxed);
      }
    });
  }
  while (reads.load() == 0) std::this_thread::yield();
  for (uint64_t round = 1; round <= rounds; ++round) {
    Frame* spare = &frames[round % 2];
    spare->value = round;
    spare->negated = ~round;
    current.store(spare, std::memory_order_seq_cst);
    const uint64_t stamp = epochs.retire();
    while (!epochs.all_passed(stamp)) std::this_thread::yield();
    Frame* old = &frames[(round + 1) % 2];
    old->value = 1;  // poison
    old->negated = 1;
  }
  ended.store(true);
  for (std::thread& thread : threads) thread.join();
  CHECK(torn.load() == 0);
  CHECK(reads.load() > 0);
}

}  // namespace
}  // namespace blobcache
