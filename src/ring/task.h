// Task: the one coroutine type, for requests that cannot be answered in the turn they arrived in.
//   Owner     a request slot, whose TaskStack holds the frames
//   Thread    the slot's core; only its reactor resumes
//   Form      Task name(TaskStack& stack, ...): a named function, first parameter the stack that its frame lives in.
//             Parameters are references and plain values that outlive the task. `co_await x;` is a whole statement, x a
//             named object or the call that makes the task; never a conditional operator, which g++ 12 gets wrong
//             (tests/unit/ring/task_test.cc has the table).
//             No exceptions (they end the process), no result: what a task finds out goes where its parameters point.
//   Lifetime  begin() runs it to its first wait. A suspended frame is never destroyed: whoever wants it gone wakes it with
//             an error and lets it finish.
//   Limits    limits::task_stack_bytes a slot, checked
#pragma once

#include <coroutine>
#include <cstddef>
#include <exception>

#include "base/assert.h"
#include "base/limits.h"

namespace blobcache {

// Frames are allocated and freed in the order of a call stack, so a bump pointer is enough.
class TaskStack {
 public:
  TaskStack() = default;
  TaskStack(const TaskStack&) = delete;
  TaskStack& operator=(const TaskStack&) = delete;
  ~TaskStack() { BC_ASSERT(used_ == 0); }

  void* push(size_t bytes) {
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    BC_ASSERT(used_ + rounded <= sizeof storage_);
    void* frame = storage_ + used_;
    used_ += rounded;
    if (used_ > used_max_) used_max_ = used_;
    return frame;
  }
  // Frames go in reverse; freeing one below another would hand its neighbour's memory out again.
  void pop(void* frame, size_t bytes) {
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    const auto offset = static_cast<size_t>(static_cast<std::byte*>(frame) - storage_);
    BC_ASSERT(offset + rounded == used_);
    used_ = offset;
  }
  bool empty() const { return used_ == 0; }
  size_t used_max() const { return used_max_; }

 private:
  static constexpr size_t alignment = 16;
  size_t used_ = 0;
  size_t used_max_ = 0;
  alignas(alignment) std::byte storage_[limits::task_stack_bytes];
};

class [[nodiscard]] Task {
 public:
  struct promise_type;
  using Handle = std::coroutine_handle<promise_type>;

  // On finish: the task that awaits us. Nothing when it is still in await_suspend below (we never waited) and sees by
  // itself that we are done, nor for a root task, whose frame frees itself.
  struct FinalAwaiter {
    bool await_ready() const noexcept { return false; }
    std::coroutine_handle<> await_suspend(Handle finished) noexcept;
    void await_resume() const noexcept {}
  };

  struct promise_type {
    std::coroutine_handle<> continuation;
    bool detached = false;

    template <class... Rest>
    static void* operator new(size_t bytes, TaskStack& stack, Rest&&...) {
      auto** header = static_cast<TaskStack**>(stack.push(bytes + header_bytes));
      *header = &stack;
      return reinterpret_cast<std::byte*>(header) + header_bytes;
    }
    static void operator delete(void* frame, size_t bytes) {
      auto** header = reinterpret_cast<TaskStack**>(static_cast<std::byte*>(frame) - header_bytes);
      (*header)->pop(header, bytes + header_bytes);
    }

    Task get_return_object() { return Task(Handle::from_promise(*this)); }
    std::suspend_always initial_suspend() noexcept { return {}; }
    FinalAwaiter final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }

   private:
    static constexpr size_t header_bytes = 16;
  };

  Task(Task&& other) noexcept : handle_(other.handle_) { other.handle_ = nullptr; }
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (handle_ == nullptr) return;
    BC_ASSERT(handle_.done());
    handle_.destroy();
  }

  // Starts a root task and lets go of it: it frees its frame when it ends.
  void begin() && {
    const Handle handle = handle_;
    handle_ = nullptr;
    handle.promise().detached = true;
    handle.resume();
  }

  // Awaiting a task runs it; the awaiter goes on when it has finished, at once when it had nothing to wait for.
  // Not by symmetric transfer: g++ makes that a tail call only from -O2 and never under sanitizers, and a loop over tasks
  // that do not wait would then take a machine frame for each.
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> awaiter) noexcept {
    handle_.resume();
    if (handle_.done()) return false;
    handle_.promise().continuation = awaiter;
    return true;
  }
  void await_resume() const noexcept {}

 private:
  explicit Task(Handle handle) : handle_(handle) {}
  Handle handle_;
};

inline std::coroutine_handle<> Task::FinalAwaiter::await_suspend(Handle finished) noexcept {
  promise_type& promise = finished.promise();
  if (promise.continuation) return promise.continuation;
  if (promise.detached) finished.destroy();
  return std::noop_coroutine();
}

}  // namespace blobcache
