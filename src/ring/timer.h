// Timer: one call at a point in time. Embedded in its owner.
//   Thread    the reactor's
//   Limits    Timers grows its heap of pointers; insertion and removal are O(log n)
//   Invariant an armed timer is not moved or destroyed; cancel() first
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/assert.h"

namespace blobcache {

struct Timer {
  using Handler = void (*)(Timer& timer);

  Timer() = default;
  explicit Timer(Handler handler_to_call) : handler(handler_to_call) {}
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() { BC_ASSERT(!armed()); }
  bool armed() const { return heap_index != not_armed; }

  static constexpr uint32_t not_armed = ~0u;
  Handler handler = nullptr;
  uint64_t deadline_ns = 0;
  uint32_t heap_index = not_armed;
};

class Timers {
 public:
  explicit Timers(std::size_t expected) { heap_.reserve(expected); }
  ~Timers() { BC_ASSERT(heap_.empty()); }

  void arm(Timer& timer, uint64_t deadline_ns);
  void cancel(Timer& timer);
  // ~0 when none is armed.
  uint64_t next_deadline_ns() const { return heap_.empty() ? ~uint64_t{0} : heap_.front()->deadline_ns; }
  // Takes out and calls every timer that is due; what the handlers arm for now or earlier waits for the next call.
  void run_due(uint64_t now_ns);

 private:
  void place(Timer* timer, uint32_t index);
  void sift_up(uint32_t index);
  void sift_down(uint32_t index);

  std::vector<Timer*> heap_;
  uint64_t running_until_ns_ = 0;  // while run_due() runs
};

}  // namespace blobcache
