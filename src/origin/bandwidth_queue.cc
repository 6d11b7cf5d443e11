// Readers go before what nobody waits for; but one of four is the background's: a reader may wait by now for what it fetches,
// and without a deadline that runs it would wait for ever.
//
// on_turn may call take(): while turns are being given a newcomer only lines up, and the loop sees it.
#include "origin/bandwidth_queue.h"

#include <algorithm>

#include "base/assert.h"

namespace blobcache {
namespace {

constexpr unsigned background_one_of = 4;
constexpr uint64_t look_again_ns = 200'000'000;  // the limit may have been changed meanwhile

}  // namespace

BandwidthQueue::BandwidthQueue(const Options& options) : options_(options) {
  timer_.queue = this;
  timer_.handler = &BandwidthQueue::on_timer;
}

bool BandwidthQueue::take(BandwidthWaiter& waiter, uint32_t bytes, bool background) {
  BC_ASSERT(bytes > 0);
  const uint64_t now_ns = options_.home.ring().now_ns();
  waiter.bandwidth_bytes_wanted = bytes;
  const bool first = !giving_ && readers_.empty() && (!background || background_.empty());
  if (first) {
    const uint64_t again_ns = options_.bandwidth.try_take(bytes, now_ns);
    if (again_ns == 0) return true;
    arm(again_ns);
  }
  BC_ASSERT(giving_ || timer_.armed());
  waiter.waits_since_ns = now_ns;
  (background ? background_ : readers_).push_back(waiter);
  return false;
}

void BandwidthQueue::arm(uint64_t again_ns) {
  if (timer_.armed()) return;
  options_.home.arm_at(timer_, std::min(again_ns, options_.home.ring().now_ns() + look_again_ns));
}

void BandwidthQueue::on_timer(Timer& timer) {
  BandwidthQueue& self = *static_cast<TurnTimer&>(timer).queue;
  self.giving_ = true;
  self.give_turns();
  self.giving_ = false;
}

void BandwidthQueue::give_turns() {
  const uint64_t now_ns = options_.home.ring().now_ns();
  while (!readers_.empty() || !background_.empty()) {
    const bool turn = !background_.empty() && readers_in_a_row_ + 1 >= background_one_of;
    const bool background = readers_.empty() || turn;
    BandwidthWaiter& waiter = *(background ? background_ : readers_).front();
    if (const uint64_t again_ns = options_.bandwidth.try_take(waiter.bandwidth_bytes_wanted, now_ns); again_ns != 0) {
      return arm(again_ns);
    }
    readers_in_a_row_ = background ? 0 : readers_in_a_row_ + 1;
    waiter.unlink();
    options_.on_turn(waiter, options_.context);
  }
}

void BandwidthQueue::leave(BandwidthWaiter& waiter) {
  waiter.unlink();
  if (readers_.empty() && background_.empty()) stop();
}

void BandwidthQueue::stop() {
  if (timer_.armed()) options_.home.cancel(timer_);
}

BandwidthWaiter* BandwidthQueue::pop_front() {
  BandwidthWaiter* reader = readers_.pop_front();
  return reader != nullptr ? reader : background_.pop_front();
}

}  // namespace blobcache
