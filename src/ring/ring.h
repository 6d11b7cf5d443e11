// Ring: fills with SQEs, empties of CQEs, tells the time. The kernel (ring/uring) or the simulator (ring/sim) behind it.
//   Owner     a Reactor
//   Thread    created and used on one thread (IORING_SETUP_SINGLE_ISSUER). fd() may be read by any.
//   Limits    limits::ring_sqes a submission; the reactor counts CQEs owed and never lets the CQ overflow
//   Links     do not cross a submission: whoever prepares a chain asks sqes_free() for all of it first
#pragma once

#include <cstdint>
#include <span>

#include <sys/uio.h>

#include "base/result.h"

struct io_uring_sqe;

namespace blobcache {

using Sqe = io_uring_sqe;  // 128 bytes apart; ring/sqe.h fills them

struct Cqe {
  uint64_t user_data;
  int32_t result;
  uint32_t flags;
};

class Ring {
 public:
  static constexpr int64_t wait_forever = -1;

  virtual ~Ring() = default;

  // Null when the submission queue is full: submit() and ask again. The SQE is zeroed, all 128 bytes of it.
  virtual Sqe* get_sqe() = 0;
  virtual unsigned sqes_free() const = 0;
  // Hands over what was prepared without waiting.
  virtual void submit() = 0;
  // Hands over what was prepared and waits until a CQE is there or timeout_ns has passed (0: does not wait).
  virtual void submit_and_wait(int64_t timeout_ns) = 0;
  // Copies out at most cqes.size() CQEs and frees their places; the count.
  virtual unsigned reap(std::span<Cqe> cqes) = 0;

  // CLOCK_MONOTONIC, or the simulator's time.
  virtual uint64_t now_ns() = 0;
  // For MSG_RING from other rings.
  virtual int fd() const = 0;

  // The table of registered files, limits::ring_files_max places. index < ring_files_max; fd -1 empties the place.
  virtual Result<void> register_file(unsigned index, int file_fd) = 0;
  // The table of registered buffers, limits::ring_buffers_max places; base is page-aligned.
  virtual Result<void> register_buffer(unsigned index, iovec buffer) = 0;
};

}  // namespace blobcache
