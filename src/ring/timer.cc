// A binary heap with the position kept in each timer, so that cancelling (the usual end of a deadline) needs no search.
#include "ring/timer.h"

namespace blobcache {

void Timers::place(Timer* timer, uint32_t index) {
  heap_[index] = timer;
  timer->heap_index = index;
}

void Timers::arm(Timer& timer, uint64_t deadline_ns) {
  BC_ASSERT(!timer.armed() && timer.handler != nullptr);
  // Armed by a handler for a time that has passed: due in the next call, or run_due would not end.
  timer.deadline_ns = deadline_ns > running_until_ns_ ? deadline_ns : running_until_ns_ + 1;
  heap_.push_back(&timer);
  timer.heap_index = static_cast<uint32_t>(heap_.size() - 1);
  sift_up(timer.heap_index);
}

void Timers::cancel(Timer& timer) {
  BC_ASSERT(timer.armed() && heap_[timer.heap_index] == &timer);
  const uint32_t index = timer.heap_index;
  Timer* last = heap_.back();
  heap_.pop_back();
  timer.heap_index = Timer::not_armed;
  if (last == &timer) return;
  place(last, index);
  sift_up(index);
  sift_down(last->heap_index);
}

void Timers::run_due(uint64_t now_ns) {
  running_until_ns_ = now_ns;
  while (next_deadline_ns() <= now_ns) {
    Timer& timer = *heap_.front();
    cancel(timer);
    timer.handler(timer);
  }
  running_until_ns_ = 0;
}

void Timers::sift_up(uint32_t index) {
  Timer* timer = heap_[index];
  while (index > 0) {
    const uint32_t parent = (index - 1) / 2;
    if (heap_[parent]->deadline_ns <= timer->deadline_ns) break;
    place(heap_[parent], index);
    index = parent;
  }
  place(timer, index);
}

void Timers::sift_down(uint32_t index) {
  Timer* timer = heap_[index];
  const auto size = static_cast<uint32_t>(heap_.size());
  while (true) {
    uint32_t child = 2 * index + 1;
    if (child >= size) break;
    if (child + 1 < size && heap_[child + 1]->deadline_ns < heap_[child]->deadline_ns) ++child;
    if (timer->deadline_ns <= heap_[child]->deadline_ns) break;
    place(heap_[child], index);
    index = child;
  }
  place(timer, index);
}

}  // namespace blobcache
