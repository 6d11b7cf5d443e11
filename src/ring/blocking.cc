// A queue under a mutex: a blocking call costs tens of microseconds, so a futex is not what makes it slow. Each helper
// wakes the core with a Poster, so that there is one way to do that.
// Helpers are detached and own the queue together with us: one that hangs in a dead file server may outlive us, and whoever
// lets go last frees it.
#include "ring/blocking.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <pthread.h>
#include <signal.h>

#include "base/assert.h"
#include "ring/poster.h"

namespace blobcache {

struct BlockingCalls::Shared {
  std::mutex mutex;
  std::condition_variable work;
  std::condition_variable ended;
  List<BlockingCall> waiting;
  bool stopping = false;
  unsigned running = 0;
  std::atomic<unsigned> owners{0};

  void let_go() {
    if (owners.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
};

void BlockingCalls::run_helper(Shared* shared) {
  pthread_setname_np(pthread_self(), "bc-blocking");
  Poster poster;
  std::unique_lock lock(shared->mutex);
  while (true) {
    shared->work.wait(lock, [&] { return shared->stopping || !shared->waiting.empty(); });
    BlockingCall* call = shared->waiting.pop_front();
    if (call == nullptr) break;
    lock.unlock();
    call->run(*call);
    poster.post(*call->home, *call);
    lock.lock();
  }
  --shared->running;
  shared->ended.notify_all();
  lock.unlock();
  shared->let_go();
}

BlockingCalls::BlockingCalls(unsigned threads) : shared_(new Shared), threads_(threads) {
  // Signals belong to the main thread.
  sigset_t all{};
  sigset_t before{};
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  shared_->running = threads_;
  shared_->owners.store(threads_ + 1, std::memory_order_relaxed);
  for (unsigned i = 0; i < threads_; ++i) std::thread(&BlockingCalls::run_helper, shared_).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

BlockingCalls::~BlockingCalls() {
  stop();
  shared_->let_go();
}

Result<void> BlockingCalls::begin(Reactor& home, BlockingCall& call) {
  BC_ASSERT(call.run != nullptr && call.handler != nullptr);
  call.home = &home;
  if (threads_ == 0) {
    call.run(call);
    home.post(home, call);
    return {};
  }
  {
    const std::lock_guard lock(shared_->mutex);
    if (shared_->stopping) return fail(Code::stopping);
    shared_->waiting.push_back(call);
  }
  shared_->work.notify_one();
  return {};
}

void BlockingCalls::stop() {
  const std::lock_guard lock(shared_->mutex);
  shared_->stopping = true;
  shared_->work.notify_all();
}

bool BlockingCalls::join(unsigned patience_ms) {
  std::unique_lock lock(shared_->mutex);
  return shared_->ended.wait_for(lock, std::chrono::milliseconds(patience_ms), [&] { return shared_->running == 0; });
}

}  // namespace blobcache
