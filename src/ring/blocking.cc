// A queue under a mutex: a blocking call costs tens of microseconds, so a futex is not what makes it slow. Each helper
// owns a ring of four entries for the sole purpose of MSG_RING, so that there is one way to wake a core.
// Helpers are detached and share ownership of the queue: one that hangs in a dead file server may outlive us.
#include "ring/blocking.h"

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <liburing.h>
#include <pthread.h>
#include <signal.h>

#include "base/assert.h"

namespace blobcache {

struct BlockingCalls::Shared {
  std::mutex mutex;
  std::condition_variable work;
  std::condition_variable ended;
  List<BlockingCall> waiting;
  bool stopping = false;
  unsigned running = 0;
};

namespace {

void deliver(io_uring& ring, BlockingCall& call) {
  const int target = call.home->fd();
  const uint64_t user_data = Reactor::message_user_data(call);
  while (true) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring);
    BC_ASSERT(sqe != nullptr);
    *sqe = io_uring_sqe{};
    prep_msg_ring(*sqe, target, {.user_data = user_data, .result = 0});
    int result = 0;
    do {
      result = io_uring_submit_and_wait(&ring, 1);
    } while (result == -EINTR);
    BC_ASSERT(result >= 0);
    io_uring_cqe* cqe = nullptr;
    BC_ASSERT(io_uring_peek_cqe(&ring, &cqe) == 0);
    const int posted = cqe->res;
    io_uring_cqe_seen(&ring, cqe);
    if (posted >= 0) return;
    // The core's CQ is full for a moment, or the core has gone: in the second case nobody waits for us.
    if (posted != -EOVERFLOW && posted != -EAGAIN) return;
    std::this_thread::yield();
  }
}

}  // namespace

void BlockingCalls::run_helper(std::shared_ptr<Shared> shared) {
  pthread_setname_np(pthread_self(), "bc-blocking");
  io_uring ring{};
  BC_ASSERT(io_uring_queue_init(4, &ring, 0) == 0);
  std::unique_lock lock(shared->mutex);
  while (true) {
    shared->work.wait(lock, [&] { return shared->stopping || !shared->waiting.empty(); });
    BlockingCall* call = shared->waiting.pop_front();
    if (call == nullptr) break;
    lock.unlock();
    call->run(*call);
    deliver(ring, *call);
    lock.lock();
  }
  --shared->running;
  shared->ended.notify_all();
  lock.unlock();
  io_uring_queue_exit(&ring);
}

BlockingCalls::BlockingCalls(unsigned threads) : shared_(std::make_shared<Shared>()), threads_(threads) {
  // Signals belong to the main thread.
  sigset_t all{};
  sigset_t before{};
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  shared_->running = threads_;
  for (unsigned i = 0; i < threads_; ++i) std::thread(&BlockingCalls::run_helper, shared_).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

BlockingCalls::~BlockingCalls() { stop(); }

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
