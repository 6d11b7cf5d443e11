// The loop. A turn is: leave the epoch, hand over SQEs and wait, enter the epoch, copy CQEs out (their places are free
// again before any handler runs, so handlers may submit as they like), run the handlers, run the timers that are due.
//
// Messages between cores are CQEs: MSG_RING puts {user_data = the message, tagged} into the target's CQ, and the target
// runs its handler like any other. The alternative, a queue beside an eventfd, costs a system call to write and one to
// read, and a second way to wake. If the target's CQ is full the kernel keeps the CQE or says -EOVERFLOW to us; then we
// post again.
#include "ring/reactor.h"

#include <cerrno>

#include "base/assert.h"

namespace blobcache {

Reactor::Reactor(std::unique_ptr<Ring> ring, ReactorOptions options)
    : ring_(std::move(ring)), options_(options), timers_(1024), now_ns_(ring_->now_ns()) {
  BC_ASSERT(options_.cqes > 0);
}

Reactor::~Reactor() {
  if (options_.epochs != nullptr) options_.epochs->leave(options_.core);
}

void Reactor::run() {
  while (!stopping_) turn(true);
  ring_->submit();  // what the last handlers prepared: a message that says goodbye
}

bool Reactor::drain(uint64_t patience_ns) {
  Timer give_up([](Timer&) {});
  arm(give_up, patience_ns);
  while (cqes_owed_ > 0 && give_up.armed()) turn(true);
  if (give_up.armed()) cancel(give_up);
  return cqes_owed_ == 0;
}

void Reactor::turn(bool may_wait) {
  int64_t timeout_ns = 0;
  if (may_wait) {
    const uint64_t next_ns = timers_.next_deadline_ns();
    if (next_ns == ~uint64_t{0}) {
      timeout_ns = Ring::wait_forever;
    } else {
      const uint64_t now = ring_->now_ns();
      timeout_ns = next_ns > now ? static_cast<int64_t>(next_ns - now) : 0;
    }
  }
  if (options_.epochs != nullptr) options_.epochs->leave(options_.core);
  counters_.busy_ns.add(ring_->now_ns() - now_ns_);
  ring_->submit_and_wait(timeout_ns);
  now_ns_ = ring_->now_ns();
  if (options_.epochs != nullptr) options_.epochs->enter(options_.core);

  ++counters_.turns;
  const unsigned count = ring_->reap(cqes_);
  counters_.cqes += count;
  for (unsigned i = 0; i < count; ++i) handle(cqes_[i]);
  timers_.run_due(now_ns_);
}

void Reactor::handle(const Cqe& cqe) {
  const uint64_t tag = cqe.user_data & tag_mask;
  auto* op = reinterpret_cast<Op*>(cqe.user_data & ~tag_mask);
  if (tag == tag_message) {
    auto& message = static_cast<Message&>(*op);
    BC_ASSERT(message.handed_over.load(std::memory_order_acquire));
    message.handed_over.store(false, std::memory_order_relaxed);
    message.handler(message, cqe.result, cqe.flags);
    return;
  }
  if (tag == tag_silent) {
    op->handler(*op, cqe.result, cqe.flags);
    return;
  }
  if (tag == tag_post) {
    on_post_failed(static_cast<Message&>(*op), cqe.result);
    return;
  }
  if ((cqe.flags & IORING_CQE_F_MORE) == 0) {
    BC_ASSERT(op->cqes_owed > 0 && cqes_owed_ > 0);
    --op->cqes_owed;
    --cqes_owed_;
  }
  op->handler(*op, cqe.result, cqe.flags);
}

// The CQE of our own MSG_RING, which comes for failures only (CQE_SKIP_SUCCESS). Nothing was delivered, so the message is
// still ours, but its handler belongs to the other core and must not run here.
void Reactor::on_post_failed(Message& message, int32_t result) {
  BC_ASSERT(result < 0);
  if (result == -EOVERFLOW || result == -ENOMEM || result == -EAGAIN) {
    ++counters_.posts_repeated;
    post(message.target_ring_fd, message);
    return;
  }
  ++counters_.posts_undelivered;
}

void Reactor::reserve(unsigned sqes) {
  BC_ASSERT(sqes <= limits::ring_sqes);
  if (ring_->sqes_free() < sqes) ring_->submit();
  BC_ASSERT(ring_->sqes_free() >= sqes);
}

Sqe& Reactor::next_sqe() {
  Sqe* sqe = ring_->get_sqe();
  if (sqe == nullptr) {
    ring_->submit();
    sqe = ring_->get_sqe();
  }
  BC_ASSERT(sqe != nullptr);
  ++counters_.sqes;
  return *sqe;
}

Sqe& Reactor::prepare(Op& op) {
  BC_ASSERT(op.handler != nullptr && cqes_owed_ < options_.cqes);
  Sqe& sqe = next_sqe();
  sqe.user_data = reinterpret_cast<uint64_t>(&op);
  ++op.cqes_owed;
  ++cqes_owed_;
  return sqe;
}

void Reactor::forgive(Op& op) {
  BC_ASSERT(op.cqes_owed > 0 && cqes_owed_ > 0);
  --op.cqes_owed;
  --cqes_owed_;
}

Sqe& Reactor::prepare_silent(Op& op) {
  BC_ASSERT(op.handler != nullptr);
  Sqe& sqe = next_sqe();
  sqe.user_data = reinterpret_cast<uint64_t>(&op) | tag_silent;
  sqe.flags |= IOSQE_CQE_SKIP_SUCCESS;
  return sqe;
}

void Reactor::post(int target_ring_fd, Message& message) {
  BC_ASSERT(message.handler != nullptr);
  message.target_ring_fd = target_ring_fd;
  Sqe& sqe = next_sqe();
  prep_msg_ring(sqe, target_ring_fd, {.user_data = message_user_data(message), .result = 0});
  sqe.flags |= IOSQE_CQE_SKIP_SUCCESS;
  sqe.user_data = reinterpret_cast<uint64_t>(&message) | tag_post;
}

}  // namespace blobcache
