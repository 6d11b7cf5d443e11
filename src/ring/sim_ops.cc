// What the opcodes do to the world. Results are the kernel's: a count or a negative errno. An opcode or a flag that is not
// here stops the simulation rather than answer something the kernel would not.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/assert.h"
#include "ring/sim_state.h"

namespace blobcache {
namespace {

constexpr size_t sector_bytes = 512;
constexpr uint64_t resolve_known =
    RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH | RESOLVE_IN_ROOT | RESOLVE_CACHED;

size_t total_bytes(std::span<const iovec> parts) {
  size_t bytes = 0;
  for (const iovec& part : parts) bytes += part.iov_len;
  return bytes;
}

// Copies between memory and file bytes, at most `bytes` of them.
template <class Copy>
void for_each_part(std::span<const iovec> parts, size_t bytes, Copy copy) {
  size_t done = 0;
  for (const iovec& part : parts) {
    const size_t count = std::min(part.iov_len, bytes - done);
    if (count > 0) copy(static_cast<std::byte*>(part.iov_base), done, count);
    done += count;
  }
}

}  // namespace

int32_t SimState::execute(SimOp& op) {
  const io_uring_sqe& sqe = op.sqe.head;
  switch (sqe.opcode) {
    case IORING_OP_NOP: return 0;
    case IORING_OP_READ:
    case IORING_OP_READ_FIXED:
    case IORING_OP_READV: return transfer(op, true);
    case IORING_OP_WRITE:
    case IORING_OP_WRITE_FIXED:
    case IORING_OP_WRITEV: return transfer(op, false);
    case IORING_OP_OPENAT2: {
      SimNode* from = &files.root();
      if (sqe.fd != AT_FDCWD && op.path.front() != '/') {
        SimOpenFile* directory = op.path.empty() ? nullptr : find_descriptor(sqe.fd);
        if (directory == nullptr && !op.path.empty()) return -EBADF;
        if (directory != nullptr) from = directory->node;
      }
      return from == nullptr ? -ENOTDIR : open(*from, op.path, op.how);
    }
    case IORING_OP_CLOSE: return close(sqe.fd);
    case IORING_OP_STATX: return statx(op);
    case IORING_OP_ASYNC_CANCEL: return cancel(op);
    case IORING_OP_MSG_RING: return message(op);
    case IORING_OP_POLL_ADD: return poll(op);
    case IORING_OP_ACCEPT: return accept(op);
    case IORING_OP_RECV: return receive(op);
    case IORING_OP_SEND: return send(op);
    case IORING_OP_URING_CMD: return command(op);
    default: break;
  }
  assert_failed("the simulator does not know this opcode", __FILE__, __LINE__);
}

int32_t SimState::open(SimNode& from, const std::string& path, const open_how& how) {
  if ((how.resolve & ~resolve_known) != 0) return -EINVAL;
  BC_ASSERT((how.resolve & (RESOLVE_IN_ROOT | RESOLVE_CACHED)) == 0);
  const int flags = static_cast<int>(how.flags);
  const bool creates = (flags & O_CREAT) != 0;
  const bool follow = (flags & O_NOFOLLOW) == 0 && !(creates && (flags & O_EXCL) != 0);
  SimFiles::Found found = files.walk(from, path, {.resolve = how.resolve, .follow_last = follow});
  if (found.error == -ENOENT && found.parent != nullptr && creates) {
    found = {.node = &files.make(*found.parent, found.name, SimNode::Kind::file)};
    found.node->permissions = static_cast<uint32_t>(how.mode);
    found.node->changed_ns = now_ns;
  } else if (found.node != nullptr && creates && (flags & O_EXCL) != 0) {
    return -EEXIST;
  }
  if (found.node == nullptr) return found.error;
  SimNode& node = *found.node;
  const bool is_directory = node.kind == SimNode::Kind::directory;
  if ((flags & O_DIRECTORY) != 0 && !is_directory) return -ENOTDIR;
  if (node.kind == SimNode::Kind::symlink && (flags & O_PATH) == 0) return -ELOOP;
  if (is_directory && (flags & O_ACCMODE) != O_RDONLY) return -EISDIR;
  if (chance(node.faults.open_error_ppm)) return -EIO;
  if ((flags & O_TRUNC) != 0) node.bytes.clear();
  SimOpenFile* file = make_open_file();
  file->node = &node;
  file->flags = flags;
  return add_descriptor(file);
}

int32_t SimState::statx(SimOp& op) {
  const io_uring_sqe& sqe = op.sqe.head;
  const uint32_t flags = sqe.statx_flags;
  SimOpenFile* directory = sqe.fd == AT_FDCWD ? nullptr : find_descriptor(sqe.fd);
  SimNode* node = directory == nullptr ? &files.root() : directory->node;
  if (op.path.empty()) {
    if ((flags & AT_EMPTY_PATH) == 0) return -ENOENT;
    if (sqe.fd != AT_FDCWD && directory == nullptr) return -EBADF;
  } else {
    if (op.path.front() != '/' && sqe.fd != AT_FDCWD && directory == nullptr) return -EBADF;
    if (node == nullptr) return -ENOTDIR;
    const SimFiles::Found found =
        files.walk(*node, op.path, {.resolve = 0, .follow_last = (flags & AT_SYMLINK_NOFOLLOW) == 0});
    if (found.node == nullptr) return found.error;
    node = found.node;
  }
  BC_ASSERT(node != nullptr);
  SimFiles::fill_statx(*node, *reinterpret_cast<struct statx*>(sqe.off));
  return 0;
}

int32_t SimState::transfer(SimOp& op, bool to_memory) {
  const io_uring_sqe& sqe = op.sqe.head;
  if (op.file == nullptr || (op.file->flags & O_PATH) != 0) return -EBADF;
  const int refused = to_memory ? O_WRONLY : O_RDONLY;
  if (op.file->device == nullptr && (op.file->flags & O_ACCMODE) == refused) return -EBADF;
  const bool fixed = sqe.opcode == IORING_OP_READ_FIXED || sqe.opcode == IORING_OP_WRITE_FIXED;
  if (fixed && !op.ring->within_buffer(sqe.buf_index, sqe.addr, sqe.len)) return -EFAULT;
  if (op.file->device != nullptr) {
    const int32_t result = to_memory ? op.file->device->on_read(op.iovecs) : op.file->device->on_write(op.iovecs);
    return result == -EAGAIN && (op.file->flags & O_NONBLOCK) == 0 ? nothing : result;
  }
  BC_ASSERT(op.file->node != nullptr);  // sockets are read with RECV and written with SEND
  if (op.file->node->kind == SimNode::Kind::directory) return -EISDIR;
  BC_ASSERT(sqe.off != ~uint64_t{0});  // no file positions here
  return to_memory ? read_file(*op.file->node, op.iovecs, sqe.off) : write_file(*op.file->node, op.iovecs, sqe.off);
}

int32_t SimState::read_file(SimNode& node, std::span<const iovec> to, uint64_t offset) {
  if (chance(node.faults.read_error_ppm)) return -EIO;
  if (offset >= node.bytes.size()) return 0;
  size_t bytes = std::min<uint64_t>(total_bytes(to), node.bytes.size() - offset);
  if (bytes > 1 && chance(node.faults.short_read_ppm)) bytes = between(1, bytes - 1);
  if (bytes > 0 && chance(node.faults.bit_flip_ppm)) {
    node.bytes[offset + between(0, bytes - 1)] ^= std::byte{1} << static_cast<int>(between(0, 7));
  }
  for_each_part(to, bytes, [&](std::byte* memory, size_t at, size_t count) {
    std::memcpy(memory, node.bytes.data() + offset + at, count);
  });
  return static_cast<int32_t>(bytes);
}

int32_t SimState::write_file(SimNode& node, std::span<const iovec> from, uint64_t offset) {
  if (chance(node.faults.write_error_ppm)) return -EIO;
  size_t claimed = total_bytes(from);
  if (claimed > 1 && chance(node.faults.short_write_ppm)) claimed = between(1, claimed - 1);
  size_t stored = claimed;
  if (chance(node.faults.lost_write_ppm)) stored = 0;
  if (stored > sector_bytes && chance(node.faults.torn_write_ppm)) {
    stored = between(0, (stored - 1) / sector_bytes) * sector_bytes;
  }
  if (const uint64_t pages = node.bytes.size() / limits::page_bytes;
      pages > 1 && chance(node.faults.misdirected_write_ppm)) {
    const uint64_t page = offset / limits::page_bytes;
    const uint64_t other = (page + between(1, pages - 1)) % pages;
    offset = other * limits::page_bytes + offset % limits::page_bytes;
  }
  if (stored > 0 && node.bytes.size() < offset + stored) node.bytes.resize(offset + stored);
  for_each_part(from, stored, [&](const std::byte* memory, size_t at, size_t count) {
    std::memcpy(node.bytes.data() + offset + at, memory, count);
  });
  node.changed_ns = now_ns;
  return static_cast<int32_t>(claimed);
}

int32_t SimState::cancel(SimOp& op) {
  BC_ASSERT(op.sqe.head.cancel_flags == 0);
  for (const auto& [token, other] : ops) {
    const bool found =
        other->ring == op.ring && other->parked && !other->commanded && other->sqe.head.user_data == op.sqe.head.addr;
    if (!found) continue;
    finish(*other, -ECANCELED);
    return 0;
  }
  return -ENOENT;
}

int32_t SimState::message(SimOp& op) {
  const io_uring_sqe& sqe = op.sqe.head;
  const auto target = rings.find(sqe.fd);
  if (target == rings.end()) return find_descriptor(sqe.fd) == nullptr ? -EBADF : -EBADFD;
  if (chance(options.message_full_ppm)) return -EOVERFLOW;
  target->second->post({sqe.off, static_cast<int32_t>(sqe.len), 0});
  return 0;
}

int32_t SimState::poll(SimOp& op) {
  if (op.file == nullptr) return -EBADF;
  uint32_t ready = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM;
  if (const SimSocket* socket = op.file->socket; socket != nullptr) {
    const bool closed = !socket->listener && socket->peer == nullptr;
    ready = 0;
    if (!socket->incoming.empty() || !socket->backlog.empty() || closed) ready |= POLLIN | POLLRDNORM;
    if (closed) ready |= POLLHUP | POLLRDHUP;
    if (closed || (socket->peer != nullptr && socket->peer->incoming.size() < options.socket_bytes)) {
      ready |= POLLOUT | POLLWRNORM;
    }
  }
  ready &= op.sqe.head.poll32_events | POLLERR | POLLHUP;
  return ready == 0 ? nothing : static_cast<int32_t>(ready);
}

int32_t SimState::accept(SimOp& op) {
  if (op.file == nullptr) return -EBADF;
  if (op.file->socket == nullptr) return -ENOTSOCK;
  if (!op.file->socket->listener) return -EINVAL;
  if (op.file->socket->backlog.empty()) return nothing;
  SimOpenFile* file = make_open_file();
  file->socket = op.file->socket->backlog.front();
  op.file->socket->backlog.pop_front();
  return add_descriptor(file);
}

int32_t SimState::receive(SimOp& op) {
  const io_uring_sqe& sqe = op.sqe.head;
  if (op.file == nullptr) return -EBADF;
  if (op.file->socket == nullptr) return -ENOTSOCK;
  SimSocket& socket = *op.file->socket;
  auto* to = reinterpret_cast<std::byte*>(sqe.addr) + op.bytes_done;
  const size_t count = std::min<size_t>(sqe.len - op.bytes_done, socket.incoming.size());
  std::copy_n(socket.incoming.begin(), count, to);
  if (count > 0) {
    socket.incoming.erase(socket.incoming.begin(), socket.incoming.begin() + static_cast<std::ptrdiff_t>(count));
    changed = true;  // a sender may have waited for the room
  }
  op.bytes_done += count;
  const bool wants_more = (sqe.msg_flags & MSG_WAITALL) != 0 ? op.bytes_done < sqe.len : op.bytes_done == 0;
  if (!wants_more || socket.peer == nullptr || sqe.len == 0) return static_cast<int32_t>(op.bytes_done);
  if ((sqe.msg_flags & MSG_DONTWAIT) != 0) return op.bytes_done > 0 ? static_cast<int32_t>(op.bytes_done) : -EAGAIN;
  return nothing;
}

int32_t SimState::send(SimOp& op) {
  const io_uring_sqe& sqe = op.sqe.head;
  if (op.file == nullptr) return -EBADF;
  if (op.file->socket == nullptr) return -ENOTSOCK;
  SimSocket* peer = op.file->socket->peer;
  if (peer == nullptr) return op.bytes_done > 0 ? static_cast<int32_t>(op.bytes_done) : -EPIPE;
  const auto* from = reinterpret_cast<const std::byte*>(sqe.addr) + op.bytes_done;
  const size_t room = options.socket_bytes - std::min(options.socket_bytes, peer->incoming.size());
  const size_t count = std::min<size_t>(sqe.len - op.bytes_done, room);
  peer->incoming.insert(peer->incoming.end(), from, from + count);
  if (count > 0) changed = true;
  op.bytes_done += count;
  const bool wants_more = (sqe.msg_flags & MSG_WAITALL) != 0 ? op.bytes_done < sqe.len : op.bytes_done == 0;
  if (!wants_more || sqe.len == 0) return static_cast<int32_t>(op.bytes_done);
  if ((sqe.msg_flags & MSG_DONTWAIT) != 0) return op.bytes_done > 0 ? static_cast<int32_t>(op.bytes_done) : -EAGAIN;
  return nothing;
}

int32_t SimState::command(SimOp& op) {
  if (op.file == nullptr) return -EBADF;
  if (op.file->device == nullptr) return -EOPNOTSUPP;
  op.commanded = true;
  const auto* bytes = reinterpret_cast<const std::byte*>(&op.sqe);
  op.file->device->on_command({.token = op.token,
                               .cmd_op = op.sqe.head.cmd_op,
                               .address = reinterpret_cast<const void*>(op.sqe.head.addr),
                               .length = op.sqe.head.len,
                               .area = {bytes + 48, uring_cmd_bytes}});
  return nothing;
}

}  // namespace blobcache
