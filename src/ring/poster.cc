#include "ring/poster.h"

#include <cerrno>
#include <thread>

#include <liburing.h>

#include "base/assert.h"

namespace blobcache {

struct Poster::Impl {
  io_uring ring{};
};

Poster::Poster() : impl_(std::make_unique<Impl>()) { BC_ASSERT(io_uring_queue_init(4, &impl_->ring, 0) == 0); }

Poster::~Poster() { io_uring_queue_exit(&impl_->ring); }

void Poster::post(const Reactor& target, Message& message) {
  io_uring& ring = impl_->ring;
  const int target_fd = target.fd();
  const uint64_t user_data = Reactor::message_user_data(message);
  while (true) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring);
    BC_ASSERT(sqe != nullptr);
    *sqe = io_uring_sqe{};
    prep_msg_ring(*sqe, target_fd, {.user_data = user_data, .result = 0});
    io_uring_cqe* cqe = nullptr;
    int result = io_uring_submit(&ring);
    BC_ASSERT(result >= 0);
    do {
      result = io_uring_wait_cqe(&ring, &cqe);
    } while (result == -EINTR);
    BC_ASSERT(result == 0);
    const int posted = cqe->res;
    io_uring_cqe_seen(&ring, cqe);
    // A full CQ is so for a moment; any other refusal means that the target has gone and nobody waits for us.
    if (posted != -EOVERFLOW && posted != -EAGAIN && posted != -ENOMEM) return;
    std::this_thread::yield();
  }
}

}  // namespace blobcache
