// prep_*: fill one SQE. The only place that knows the layout of io_uring_sqe outside ring/uring.cc and the simulator.
//   Thread    the core that owns the ring
//   Source    io_uring_enter(2), include/uapi/linux/io_uring.h
// Every function expects an SQE that is zeroed but for user_data, as Reactor::prepare returns it.
#pragma once

#include <cstdint>
#include <span>

// liburing's header of Debian 12 uses a type that it does not declare.
#include <linux/time_types.h>
// after it
#include <liburing/io_uring.h>
#include <linux/ioprio.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "ring/ring.h"

namespace blobcache {

// A descriptor number, or a place in the ring's table of registered files.
struct FileRef {
  int number = -1;
  bool registered = false;

  static FileRef fd(int number) { return {number, false}; }
  static FileRef fixed(unsigned index) { return {static_cast<int>(index), true}; }
};

inline void prep_common(Sqe& sqe, uint8_t opcode, FileRef file, const void* address, uint32_t length, uint64_t offset) {
  sqe.opcode = opcode;
  sqe.fd = file.number;
  if (file.registered) sqe.flags |= IOSQE_FIXED_FILE;
  sqe.addr = reinterpret_cast<uint64_t>(address);
  sqe.len = length;
  sqe.off = offset;
}

// The next SQE starts when this one has succeeded in full; a short or failed one cancels the rest of the chain.
inline void link_next(Sqe& sqe) { sqe.flags |= IOSQE_IO_LINK; }

// Of a read or write: behind those of the default priority, where the device's scheduler knows priorities. In any case the block
// layer makes no request of neighbours that differ in it, so what is prepared without does not wait for this one's bytes.
inline void set_low_priority(Sqe& sqe) { sqe.ioprio = IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, IOPRIO_NR_LEVELS - 1); }

inline void prep_nop(Sqe& sqe) { prep_common(sqe, IORING_OP_NOP, FileRef{}, nullptr, 0, 0); }

struct ReadRange {
  uint64_t offset = 0;
  uint32_t bytes = 0;
};

inline void prep_read(Sqe& sqe, FileRef file, void* to, ReadRange range) {
  prep_common(sqe, IORING_OP_READ, file, to, range.bytes, range.offset);
}
// `to` lies within registered buffer buffer_index.
inline void prep_read_fixed(Sqe& sqe, FileRef file, void* to, ReadRange range, unsigned buffer_index) {
  prep_common(sqe, IORING_OP_READ_FIXED, file, to, range.bytes, range.offset);
  sqe.buf_index = static_cast<uint16_t>(buffer_index);
}
inline void prep_write(Sqe& sqe, FileRef file, const void* from, ReadRange range) {
  prep_common(sqe, IORING_OP_WRITE, file, from, range.bytes, range.offset);
}
inline void prep_write_fixed(Sqe& sqe, FileRef file, const void* from, ReadRange range, unsigned buffer_index) {
  prep_common(sqe, IORING_OP_WRITE_FIXED, file, from, range.bytes, range.offset);
  sqe.buf_index = static_cast<uint16_t>(buffer_index);
}
// The iovecs are copied by the kernel at submission (IORING_FEAT_SUBMIT_STABLE).
inline void prep_writev(Sqe& sqe, FileRef file, std::span<const iovec> from, uint64_t offset) {
  prep_common(sqe, IORING_OP_WRITEV, file, from.data(), static_cast<uint32_t>(from.size()), offset);
}
inline void prep_readv(Sqe& sqe, FileRef file, std::span<const iovec> to, uint64_t offset) {
  prep_common(sqe, IORING_OP_READV, file, to.data(), static_cast<uint32_t>(to.size()), offset);
}

// path and how are copied at submission. The result is a descriptor.
inline void prep_openat2(Sqe& sqe, int directory_fd, const char* path, const open_how* how) {
  prep_common(sqe, IORING_OP_OPENAT2, FileRef::fd(directory_fd), path, sizeof *how, reinterpret_cast<uint64_t>(how));
}
inline void prep_close(Sqe& sqe, int fd) { prep_common(sqe, IORING_OP_CLOSE, FileRef::fd(fd), nullptr, 0, 0); }

struct StatxArguments {
  int directory_fd = -1;
  const char* path = "";
  int flags = 0;
  unsigned mask = 0;
};
// *out must live until the CQE.
inline void prep_statx(Sqe& sqe, const StatxArguments& arguments, struct statx* out) {
  prep_common(sqe, IORING_OP_STATX, FileRef::fd(arguments.directory_fd), arguments.path, arguments.mask,
              reinterpret_cast<uint64_t>(out));
  sqe.statx_flags = static_cast<uint32_t>(arguments.flags);
}

// Cancels the submission whose user_data is target. Result: 0, -ENOENT (not found), -EALREADY (running).
inline void prep_cancel(Sqe& sqe, uint64_t target_user_data) {
  prep_common(sqe, IORING_OP_ASYNC_CANCEL, FileRef{}, reinterpret_cast<void*>(target_user_data), 0, 0);
}

// Puts a CQE {user_data, result} into the ring whose descriptor is target_ring_fd.
struct RingMessage {
  uint64_t user_data = 0;
  uint32_t result = 0;
};
inline void prep_msg_ring(Sqe& sqe, int target_ring_fd, RingMessage message) {
  prep_common(sqe, IORING_OP_MSG_RING, FileRef::fd(target_ring_fd), nullptr, message.result, message.user_data);
}

// Polls once; the result is the mask of ready events.
inline void prep_poll(Sqe& sqe, FileRef file, uint32_t events) {
  prep_common(sqe, IORING_OP_POLL_ADD, file, nullptr, 0, 0);
  sqe.poll32_events = events;
}

inline void prep_accept(Sqe& sqe, FileRef listener, uint32_t flags) {
  prep_common(sqe, IORING_OP_ACCEPT, listener, nullptr, 0, 0);
  sqe.accept_flags = flags;
}
inline void prep_recv(Sqe& sqe, FileRef socket, void* to, uint32_t bytes, uint32_t flags) {
  prep_common(sqe, IORING_OP_RECV, socket, to, bytes, 0);
  sqe.msg_flags = flags;
}
inline void prep_send(Sqe& sqe, FileRef socket, const void* from, uint32_t bytes, uint32_t flags) {
  prep_common(sqe, IORING_OP_SEND, socket, from, bytes, 0);
  sqe.msg_flags = flags;
}

// A command of the file's own driver. The command area starts at byte 48 of the SQE and is 80 bytes long (SQE128).
inline void* prep_uring_cmd(Sqe& sqe, FileRef file, uint32_t cmd_op) {
  prep_common(sqe, IORING_OP_URING_CMD, file, nullptr, 0, 0);
  sqe.cmd_op = cmd_op;
  return reinterpret_cast<char*>(&sqe) + 48;
}
inline constexpr size_t uring_cmd_bytes = 80;

}  // namespace blobcache
