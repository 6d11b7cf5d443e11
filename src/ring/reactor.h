// Reactor: one core's loop. Submits and waits once per turn, copies the CQEs, then runs their owners.
//   Owner     a Core (node/)
//   Thread    its own; post_from_any and fd() excepted
//   Rules     1. no code runs while reaping; 2. handlers never block and never call the ring's submit themselves;
//             3. a chain is reserved whole (reserve) before its first SQE is prepared; 4. nothing found in a shared table
//             without a pin is kept across turns (base/epoch.h)
//   Limits    CQEs owed never exceed the CQ: prepare() asserts it, the pools above are sized so that it cannot happen
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/counter.h"
#include "base/epoch.h"
#include "ring/op.h"
#include "ring/ring.h"
#include "ring/sqe.h"
#include "ring/timer.h"

namespace blobcache {

// A message from another core: an Op whose one CQE is made by MSG_RING. The sender may not touch it until it was handled.
// Two posts to one reactor may arrive in the other order.
struct Message : Op {
  using Op::Op;

  // Written by the sender before, read by the receiver after: the order that the kernel gives anyway, said in terms of
  // the language's memory model (and of TSan, which does not see into the kernel).
  std::atomic<bool> handed_over{false};
  int target_ring_fd = -1;  // for posting again
};

struct ReactorOptions {
  unsigned core = 0;
  unsigned cqes = 0;         // the CQ's size
  Epochs* epochs = nullptr;  // null: this reactor reads no shared table (tests)
};

struct ReactorCounters {
  uint64_t turns = 0;
  uint64_t sqes = 0;
  uint64_t cqes = 0;
  Counter busy_ns;                 // time not spent in the wait; read by others
  uint64_t posts_repeated = 0;     // the other ring was full for a moment
  uint64_t posts_undelivered = 0;  // the other reactor had ended
};

class Reactor {
 public:
  Reactor(std::unique_ptr<Ring> ring, ReactorOptions options);
  ~Reactor();
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  // Runs turns until stop().
  void run();
  // After run(): turns until no Op is owed a CQE, for at most patience_ns. False: something still is (a hung file server),
  // and what owns it may not be freed.
  bool drain(uint64_t patience_ns);
  void stop() { stopping_ = true; }
  // One turn. may_wait false: handles what is there. For tests and the simulator.
  void turn(bool may_wait);

  // Makes sure that the next `sqes` SQEs go out in one submission.
  void reserve(unsigned sqes);
  // The next SQE, owned by op: zeroed, user_data set, one CQE owed. Valid until the next prepare or the end of the turn.
  Sqe& prepare(Op& op);
  // The same for an SQE whose success nobody needs to hear of (IOSQE_CQE_SKIP_SUCCESS): no CQE is owed, and op's handler
  // runs only if it fails. For the head of a chain whose last CQE tells its end. If the head fails, the kernel posts its CQE
  // and none for the members behind it: the handler must forgive() each of them.
  Sqe& prepare_silent(Op& op);
  // A CQE that op was owed will never come.
  void forgive(Op& op);

  // Delivers message to another reactor; its handler runs there, with result 0. The sender gets no CQE. A message to a
  // reactor that has ended is counted and otherwise forgotten.
  void post(const Reactor& target, Message& message) { post(target.fd(), message); }
  void post(int target_ring_fd, Message& message);
  // The user_data under which a CQE made elsewhere runs message's handler.
  // To be asked for last: what is written to the message afterwards may not be seen there.
  static uint64_t message_user_data(Message& message) {
    message.handed_over.store(true, std::memory_order_release);
    return reinterpret_cast<uint64_t>(&message) | tag_message;
  }

  // relative to now_ns().
  void arm(Timer& timer, uint64_t delay_ns) { timers_.arm(timer, now_ns() + delay_ns); }
  void arm_at(Timer& timer, uint64_t deadline_ns) { timers_.arm(timer, deadline_ns); }
  void cancel(Timer& timer) { timers_.cancel(timer); }

  // The time at the start of this turn's handlers; cheap.
  uint64_t now_ns() const { return now_ns_; }
  unsigned core() const { return options_.core; }
  int fd() const { return ring_->fd(); }
  Ring& ring() { return *ring_; }
  const ReactorCounters& counters() const { return counters_; }
  uint64_t cqes_owed() const { return cqes_owed_; }

 private:
  // The low bits of user_data say whose CQE it is: an Op's own, a message from elsewhere, or a message we failed to post.
  static constexpr uint64_t tag_mask = 7;
  static constexpr uint64_t tag_message = 1;
  static constexpr uint64_t tag_post = 2;
  static constexpr uint64_t tag_silent = 3;
  static constexpr unsigned batch = 256;

  void handle(const Cqe& cqe);
  void on_post_failed(Message& message, int32_t result);
  Sqe& next_sqe();

  std::unique_ptr<Ring> ring_;
  const ReactorOptions options_;
  Timers timers_;
  uint64_t now_ns_ = 0;
  uint64_t cqes_owed_ = 0;
  bool stopping_ = false;
  ReactorCounters counters_;
  Cqe cqes_[batch];
};

}  // namespace blobcache
