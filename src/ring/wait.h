// Event and OpWait: what a task can wait for.
//   Thread    the core's
//   OpWait    an Op that resumes the task with its result; for SQEs whose memory outlives the wait
//   Event     set once by someone else (a load's end, a helper thread's message, an interrupt, a deadline)
#pragma once

#include <coroutine>

#include "base/assert.h"
#include "ring/op.h"

namespace blobcache {

struct OpWait : Op {
  OpWait() : Op(&OpWait::on_cqe) {}

  bool await_ready() const noexcept { return cqes_owed == 0; }
  void await_suspend(std::coroutine_handle<> task) noexcept { waiter = task; }
  void await_resume() const noexcept {}

  int32_t result = 0;
  std::coroutine_handle<> waiter;

 private:
  static void on_cqe(Op& op, int32_t result_of_op, uint32_t) {
    auto& self = static_cast<OpWait&>(op);
    self.result = result_of_op;
    if (const std::coroutine_handle<> task = self.waiter; task) {
      self.waiter = nullptr;
      task.resume();
    }
  }
};

class Event {
 public:
  Event() = default;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { BC_ASSERT(!waiter_); }

  // Resumes the waiting task, now or when it comes to wait. Setting a set event does nothing.
  void set() {
    if (set_) return;
    set_ = true;
    if (const std::coroutine_handle<> task = waiter_; task) {
      waiter_ = nullptr;
      task.resume();
    }
  }
  void reset() {
    BC_ASSERT(!waiter_);
    set_ = false;
  }
  bool is_set() const { return set_; }

  bool await_ready() const noexcept { return set_; }
  void await_suspend(std::coroutine_handle<> task) noexcept {
    BC_ASSERT(!waiter_);
    waiter_ = task;
  }
  void await_resume() const noexcept {}

 private:
  bool set_ = false;
  std::coroutine_handle<> waiter_;
};

}  // namespace blobcache
