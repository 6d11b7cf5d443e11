// A flag and no more: who works looks at it between two steps. The handler is gone with the first signal, so that a command that
// waits for somebody who does not answer can still be ended.
#include "cli/interrupt.h"

#include <atomic>

namespace blobcache::cli {
namespace {

std::atomic<bool> noted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

}  // namespace

Interrupt::Interrupt() {
  noted.store(false, std::memory_order_relaxed);
  struct sigaction action{};
  action.sa_handler = [](int) { noted.store(true, std::memory_order_relaxed); };
  action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);
  for (size_t i = 0; i < numbers.size(); ++i) {
    sigaction(numbers[i], nullptr, &before_[i]);
    if (before_[i].sa_handler != SIG_IGN) sigaction(numbers[i], &action, nullptr);
  }
}

Interrupt::~Interrupt() {
  for (size_t i = 0; i < numbers.size(); ++i) sigaction(numbers[i], &before_[i], nullptr);
}

bool Interrupt::interrupted() { return noted.load(std::memory_order_relaxed); }

}  // namespace blobcache::cli
