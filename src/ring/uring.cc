// The kernel's ring. SQE128 because FUSE commands live in the second half of the SQE; SINGLE_ISSUER | DEFER_TASKRUN
// because completions are then handled in our own enter and nothing interrupts a turn (139 K against 119 K reads/s with
// COOP_TASKRUN). SUBMIT_ALL: one bad SQE must not hold back the rest of a turn. Where DEFER_TASKRUN is missing the ring
// is made with COOP_TASKRUN and works alike.
#include "ring/uring.h"

#include <cerrno>
#include <cstring>

#include <liburing.h>

#include "base/assert.h"
#include "base/features.h"
#include "base/limits.h"
#include "ring/errno.h"

namespace blobcache {
namespace {

constexpr int64_t ns_per_s = 1'000'000'000;

class UringRing final : public Ring {
 public:
  ~UringRing() override {
    if (created_) io_uring_queue_exit(&ring_);
  }

  Result<void> create(UringOptions options) {
    if (pretended_absent(Feature::io_uring)) return fail(Code::denied, ENOSYS);
    const unsigned common = IORING_SETUP_SQE128 | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE;
    int result = -EINVAL;
    if (!pretended_absent(Feature::defer_taskrun)) {
      result = setup(options, common | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
    }
    if (result == -EINVAL) result = setup(options, common | IORING_SETUP_COOP_TASKRUN);
    if (result < 0) return std::unexpected(error_from_result(result));
    created_ = true;
    io_uring_register_ring_fd(&ring_);
    return {};
  }

  Result<void> create_tables() {
    int result = io_uring_register_files_sparse(&ring_, limits::ring_files_max);
    if (result == 0) result = io_uring_register_buffers_sparse(&ring_, limits::ring_buffers_max);
    if (result < 0) return std::unexpected(error_from_result(result));
    // What cannot be done without blocking (statx, opens, reads of file servers) goes to the ring's worker threads, 4 a CPU
    // unless told otherwise; a hung file server must not hold them all. They exist only while there is work.
    unsigned workers[2] = {limits::ring_workers_max, 0};
    io_uring_register_iowq_max_workers(&ring_, workers);
    return {};
  }

  Sqe* get_sqe() override {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe != nullptr) std::memset(static_cast<void*>(sqe), 0, 128);
    return sqe;
  }

  unsigned sqes_free() const override { return io_uring_sq_space_left(&ring_); }

  void submit() override { check(io_uring_submit(&ring_)); }

  void submit_and_wait(int64_t timeout_ns) override {
    if (timeout_ns == 0) {
      check(io_uring_submit_and_get_events(&ring_));
      return;
    }
    if (timeout_ns < 0) {
      check(io_uring_submit_and_wait(&ring_, 1));
      return;
    }
    __kernel_timespec timeout{timeout_ns / ns_per_s, timeout_ns % ns_per_s};
    io_uring_cqe* cqe = nullptr;
    check(io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &timeout, nullptr));
  }

  unsigned reap(std::span<Cqe> cqes) override {
    unsigned head = 0;
    unsigned count = 0;
    io_uring_cqe* cqe = nullptr;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      if (count == cqes.size()) break;
      cqes[count++] = Cqe{cqe->user_data, cqe->res, cqe->flags};
    }
    io_uring_cq_advance(&ring_, count);
    return count;
  }

  uint64_t now_ns() override {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * ns_per_s + static_cast<uint64_t>(now.tv_nsec);
  }

  int fd() const override { return ring_.ring_fd; }

  Result<void> register_file(unsigned index, int file_fd) override {
    BC_ASSERT(index < limits::ring_files_max);
    const int result = io_uring_register_files_update(&ring_, index, &file_fd, 1);
    if (result < 0) return std::unexpected(error_from_result(result));
    return {};
  }

  Result<void> register_buffer(unsigned index, iovec buffer) override {
    BC_ASSERT(index < limits::ring_buffers_max && buffer.iov_len <= limits::ring_buffer_bytes_max);
    if (pretended_absent(Feature::memlock)) return fail(Code::denied, ENOMEM);
    __u64 tag = 0;
    const int result = io_uring_register_buffers_update_tag(&ring_, index, &buffer, &tag, 1);
    if (result < 0) return std::unexpected(error_from_result(result));
    return {};
  }

 private:
  int setup(UringOptions options, unsigned flags) {
    io_uring_params params{};
    params.flags = flags;
    params.cq_entries = options.cqes;
    return io_uring_queue_init_params(options.sqes, &ring_, &params);
  }

  // A signal or a timeout is no failure, and neither is a full CQ (EBUSY): the turn goes on to reap. Anything else means
  // that the ring itself is broken.
  static void check(int result) {
    BC_ASSERT(result >= 0 || result == -EINTR || result == -ETIME || result == -EAGAIN || result == -EBUSY);
  }

  io_uring ring_{};
  bool created_ = false;
};

constexpr int opcodes_used[] = {
    IORING_OP_NOP,       IORING_OP_READ,         IORING_OP_READ_FIXED, IORING_OP_WRITE, IORING_OP_WRITE_FIXED,
    IORING_OP_WRITEV,    IORING_OP_READV,        IORING_OP_OPENAT2,    IORING_OP_CLOSE, IORING_OP_STATX,
    IORING_OP_MSG_RING,  IORING_OP_POLL_ADD,     IORING_OP_ACCEPT,     IORING_OP_RECV,  IORING_OP_SEND,
    IORING_OP_URING_CMD, IORING_OP_ASYNC_CANCEL,
};

}  // namespace

Result<std::unique_ptr<Ring>> create_uring(UringOptions options) {
  auto ring = std::make_unique<UringRing>();
  if (const Result<void> created = ring->create(options); !created) return std::unexpected(created.error());
  if (const Result<void> tables = ring->create_tables(); !tables) return std::unexpected(tables.error());
  return ring;
}

UringProbe probe_uring() {
  UringProbe probe;
  UringRing ring;
  if (const Result<void> created = ring.create({.sqes = 4, .cqes = 8}); !created) {
    probe.os_errno = created.error().os_errno;
    return probe;
  }
  probe.available = true;
  io_uring plain{};
  io_uring_params params{};
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  if (!pretended_absent(Feature::defer_taskrun) && io_uring_queue_init_params(4, &plain, &params) == 0) {
    probe.defer_taskrun = true;
    io_uring_queue_exit(&plain);
  }
  if (io_uring_probe* opcodes = io_uring_get_probe(); opcodes != nullptr) {
    probe.all_opcodes = true;
    for (const int opcode : opcodes_used) probe.all_opcodes &= io_uring_opcode_supported(opcodes, opcode) != 0;
    io_uring_free_probe(opcodes);
  }
  return probe;
}

}  // namespace blobcache
