// The ring's own side of the simulator: SQEs are copied at submission with what the kernel copies (paths, open_how, iovecs),
// chained by IOSQE_IO_LINK within one submission, and started. A CQ that is full loses nothing: what does not fit waits,
// as with IORING_FEAT_NODROP, and is counted.
#include <cerrno>
#include <cstring>

#include "base/assert.h"
#include "ring/sim_state.h"

namespace blobcache {
namespace {

constexpr uint8_t flags_known = IOSQE_FIXED_FILE | IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS | IOSQE_ASYNC;

void copy_stable(SimOp& op) {
  const io_uring_sqe& sqe = op.sqe.head;
  switch (sqe.opcode) {
    case IORING_OP_OPENAT2:
      op.path = reinterpret_cast<const char*>(sqe.addr);
      BC_ASSERT(sqe.len == sizeof op.how);
      std::memcpy(&op.how, reinterpret_cast<const void*>(sqe.off), sizeof op.how);
      break;
    case IORING_OP_STATX: op.path = reinterpret_cast<const char*>(sqe.addr); break;
    case IORING_OP_READV:
    case IORING_OP_WRITEV: {
      const auto* first = reinterpret_cast<const iovec*>(sqe.addr);
      op.iovecs.assign(first, first + sqe.len);
      break;
    }
    case IORING_OP_READ:
    case IORING_OP_READ_FIXED:
    case IORING_OP_WRITE:
    case IORING_OP_WRITE_FIXED: op.iovecs.assign(1, {reinterpret_cast<void*>(sqe.addr), sqe.len}); break;
    default: break;
  }
}

}  // namespace

SimRing::~SimRing() {
  state_.rings.erase(fd_);
  std::vector<SimOp*> mine;
  for (const auto& [token, op] : state_.ops) {
    if (op->ring == this) mine.push_back(op.get());
  }
  for (SimOp* op : mine) state_.drop(*op);
  for (SimOpenFile* file : files_) {
    if (file != nullptr) state_.release(file);
  }
  state_.retry_parked();
}

Sqe* SimRing::get_sqe() {
  if (prepared_count_ == sqes_max_) return nullptr;
  SimSqe& sqe = prepared_[prepared_count_++];
  std::memset(static_cast<void*>(&sqe), 0, sizeof sqe);
  return &sqe.head;
}

void SimRing::submit() {
  SimOp* before = nullptr;  // the member that the next one is linked behind
  for (unsigned i = 0; i < prepared_count_; ++i) {
    auto made = std::make_unique<SimOp>();
    SimOp& op = *made;
    op.ring = this;
    op.token = ++state_.last_token;
    op.sqe = prepared_[i];
    BC_ASSERT((op.sqe.head.flags & ~flags_known) == 0);
    copy_stable(op);
    state_.ops[op.token] = std::move(made);
    if (before != nullptr) {
      before->next_token = op.token;
    } else {
      state_.start(op);
    }
    before = (op.sqe.head.flags & IOSQE_IO_LINK) != 0 ? &op : nullptr;
  }
  prepared_count_ = 0;
}

void SimRing::submit_and_wait(int64_t timeout_ns) {
  submit();
  const uint64_t deadline_ns = timeout_ns < 0 ? ~uint64_t{0} : state_.now_ns + static_cast<uint64_t>(timeout_ns);
  while (completed_.empty()) {
    if (state_.due.empty() || state_.due.top().at_ns > deadline_ns) {
      // Waiting without a limit for what nobody will do: the caller has lost a wake-up.
      BC_ASSERT(timeout_ns >= 0);
      state_.now_ns = deadline_ns;
      return;
    }
    state_.run_next();
  }
}

unsigned SimRing::reap(std::span<Cqe> cqes) {
  unsigned count = 0;
  while (count < cqes.size() && !completed_.empty()) {
    cqes[count++] = completed_.front();
    completed_.pop_front();
  }
  return count;
}

void SimRing::post(const Cqe& cqe) {
  if (completed_.size() >= cqes_max_) ++state_.counters.cqes_overflowed;
  completed_.push_back(cqe);
}

Result<void> SimRing::register_file(unsigned index, int file_fd) {
  BC_ASSERT(index < limits::ring_files_max);
  SimOpenFile* file = nullptr;
  if (file_fd >= 0) {
    file = state_.find_descriptor(file_fd);
    if (file == nullptr) return fail(Code::io, EBADF);
    ++file->references;
  }
  SimOpenFile* replaced = files_[index];
  files_[index] = file;
  if (replaced != nullptr) state_.release(replaced);
  state_.retry_parked();
  return {};
}

Result<void> SimRing::register_buffer(unsigned index, iovec buffer) {
  BC_ASSERT(index < limits::ring_buffers_max && buffer.iov_len <= limits::ring_buffer_bytes_max);
  buffers_[index] = buffer;
  return {};
}

// Null where the opcode takes no file, or there is none.
SimOpenFile* SimRing::find_file(const io_uring_sqe& sqe) {
  switch (sqe.opcode) {
    case IORING_OP_NOP:
    case IORING_OP_ASYNC_CANCEL:
    case IORING_OP_MSG_RING:
    case IORING_OP_OPENAT2:
    case IORING_OP_STATX:
    case IORING_OP_CLOSE: return nullptr;
    default: break;
  }
  if ((sqe.flags & IOSQE_FIXED_FILE) == 0) return state_.find_descriptor(sqe.fd);
  const auto index = static_cast<uint32_t>(sqe.fd);
  return index < limits::ring_files_max ? files_[index] : nullptr;
}

bool SimRing::within_buffer(unsigned index, uint64_t address, uint64_t bytes) const {
  if (index >= limits::ring_buffers_max || buffers_[index].iov_base == nullptr) return false;
  const auto base = reinterpret_cast<uint64_t>(buffers_[index].iov_base);
  return address >= base && bytes <= buffers_[index].iov_len && address - base <= buffers_[index].iov_len - bytes;
}

}  // namespace blobcache
