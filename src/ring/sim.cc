// Time, descriptors, and the life of an operation: submitted -> (waits behind its link) -> started -> due -> executed ->
// finished, or parked until something changes. All state lies in ordered containers keyed by numbers given out in order,
// never by addresses, so that a seed reproduces a run on any machine.
#include "ring/sim.h"

#include <cerrno>

#include <fcntl.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "ring/sim_state.h"

namespace blobcache {
namespace {

constexpr uint64_t ppm = 1'000'000;
constexpr uint64_t quick_ns_min = 500;
constexpr uint64_t quick_ns_max = 2'000;

uint64_t wanted_bytes(const SimOp& op) {
  const uint8_t opcode = op.sqe.head.opcode;
  if (opcode != IORING_OP_READV && opcode != IORING_OP_WRITEV) return op.sqe.head.len;
  uint64_t bytes = 0;
  for (const iovec& part : op.iovecs) bytes += part.iov_len;
  return bytes;
}

bool transfers_file(uint8_t opcode) {
  return opcode == IORING_OP_READ || opcode == IORING_OP_READ_FIXED || opcode == IORING_OP_READV ||
         opcode == IORING_OP_WRITE || opcode == IORING_OP_WRITE_FIXED || opcode == IORING_OP_WRITEV;
}

bool has_failed(const SimOp& op, int32_t result) {
  if (result < 0) return true;
  const uint8_t opcode = op.sqe.head.opcode;
  const bool whole = transfers_file(opcode) || ((opcode == IORING_OP_RECV || opcode == IORING_OP_SEND) &&
                                                (op.sqe.head.msg_flags & MSG_WAITALL) != 0);
  return whole && static_cast<uint64_t>(result) != wanted_bytes(op);
}

bool skips_success(const SimOp& op) { return (op.sqe.head.flags & IOSQE_CQE_SKIP_SUCCESS) != 0; }

}  // namespace

bool SimState::chance(uint32_t chance_ppm) {
  if (chance_ppm == 0 || random() % ppm >= chance_ppm) return false;
  ++counters.faults;
  return true;
}

SimOp* SimState::find_op(uint64_t token) {
  const auto found = ops.find(token);
  return found == ops.end() ? nullptr : found->second.get();
}

void SimState::start(SimOp& op) {
  const io_uring_sqe& sqe = op.sqe.head;
  op.file = op.ring->find_file(sqe);
  if (op.file != nullptr) ++op.file->references;
  uint64_t latency_ns = between(quick_ns_min, quick_ns_max);
  const bool on_file = op.file != nullptr && op.file->node != nullptr;
  if ((on_file && transfers_file(sqe.opcode)) || sqe.opcode == IORING_OP_OPENAT2 || sqe.opcode == IORING_OP_STATX) {
    latency_ns = between(options.latency_ns_min, options.latency_ns_max);
    if (chance(on_file ? op.file->node->faults.slow_ppm : options.faults.slow_ppm)) latency_ns *= options.slow_factor;
  }
  due.push({now_ns + latency_ns, ++last_sequence, op.token, false, 0});
}

// The kernel's rules (io_uring/io_uring.c, io_fail_links): where the failing member asked for no CQE on success, the
// members behind it get none either; otherwise every one of them gets -ECANCELED, also those that asked for none.
void SimState::finish(SimOp& op, int32_t result) {
  const bool failed = has_failed(op, result);
  const bool silent = skips_success(op);
  if (failed || !silent) op.ring->post({op.sqe.head.user_data, result, 0});
  ++counters.ops;
  SimOp* next = find_op(op.next_token);
  drop(op);
  if (next == nullptr) return;
  if (!failed) {
    start(*next);
    return;
  }
  while (next != nullptr) {
    if (!silent) next->ring->post({next->sqe.head.user_data, -ECANCELED, 0});
    SimOp* following = find_op(next->next_token);
    drop(*next);
    next = following;
  }
}

void SimState::drop(SimOp& op) {
  SimOpenFile* file = op.file;
  ops.erase(op.token);
  if (file != nullptr) release(file);
}

void SimState::run_due(const Due& event) {
  SimOp* op = find_op(event.token);
  if (op == nullptr) return;  // canceled, or its ring has gone
  const int32_t result = event.commanded ? event.result : execute(*op);
  if (result == nothing) {
    op->parked = true;
  } else {
    finish(*op, result);
  }
  retry_parked();
}

void SimState::retry_parked() {
  while (changed) {
    changed = false;
    std::vector<uint64_t> parked;
    for (const auto& [token, op] : ops) {
      if (op->parked && !op->commanded) parked.push_back(token);
    }
    for (const uint64_t token : parked) {
      SimOp* op = find_op(token);
      if (op == nullptr) continue;
      if (const int32_t result = execute(*op); result != nothing) finish(*op, result);
    }
  }
}

bool SimState::run_next() {
  if (due.empty()) return false;
  const Due event = due.top();
  due.pop();
  BC_ASSERT(event.at_ns >= now_ns);
  now_ns = event.at_ns;
  run_due(event);
  return true;
}

// Descriptors.

SimOpenFile* SimState::make_open_file() {
  open_files.push_back(std::make_unique<SimOpenFile>());
  return open_files.back().get();
}

SimSocket* SimState::make_socket() {
  sockets.push_back(std::make_unique<SimSocket>());
  return sockets.back().get();
}

int SimState::add_descriptor(SimOpenFile* file) {
  ++file->references;
  descriptors[++last_fd] = file;
  return last_fd;
}

SimOpenFile* SimState::find_descriptor(int fd) {
  const auto found = descriptors.find(fd);
  return found == descriptors.end() ? nullptr : found->second;
}

void SimState::release(SimOpenFile* file) {
  BC_ASSERT(file->references > 0);
  if (--file->references > 0) return;
  if (file->socket != nullptr && file->socket->peer != nullptr) {
    file->socket->peer->peer = nullptr;
    file->socket->peer = nullptr;
    changed = true;
  }
}

int SimState::close(int fd) {
  SimOpenFile* file = find_descriptor(fd);
  if (file == nullptr) return -EBADF;
  descriptors.erase(fd);
  release(file);
  return 0;
}

// The world, as a test sees it.

SimWorld::SimWorld(const SimOptions& options) : state_(std::make_unique<SimState>(options)) {}

SimWorld::~SimWorld() { BC_ASSERT(state_->rings.empty()); }

std::unique_ptr<Ring> SimWorld::create_ring(unsigned sqes, unsigned cqes) {
  BC_ASSERT(sqes > 0 && cqes >= sqes);
  const int fd = ++state_->last_fd;
  auto ring = std::make_unique<SimRing>(*state_, fd, sqes, cqes);
  state_->rings[fd] = ring.get();
  return ring;
}

SimFiles& SimWorld::files() { return state_->files; }

int SimWorld::open(std::string_view path, int flags) {
  const open_how how{.flags = static_cast<uint64_t>(flags), .mode = 0, .resolve = 0};
  return state_->open(state_->files.root(), std::string(path), how);
}

void SimWorld::socket_pair(int (&ends)[2]) {
  SimSocket* left = state_->make_socket();
  SimSocket* right = state_->make_socket();
  left->peer = right;
  right->peer = left;
  for (int i = 0; i < 2; ++i) {
    SimOpenFile* file = state_->make_open_file();
    file->socket = i == 0 ? left : right;
    ends[i] = state_->add_descriptor(file);
  }
}

int SimWorld::listen() {
  SimOpenFile* file = state_->make_open_file();
  file->socket = state_->make_socket();
  file->socket->listener = true;
  return state_->add_descriptor(file);
}

int SimWorld::connect(int listener) {
  SimOpenFile* listening = state_->find_descriptor(listener);
  BC_ASSERT(listening != nullptr && listening->socket != nullptr && listening->socket->listener);
  SimSocket* near = state_->make_socket();
  SimSocket* far = state_->make_socket();
  near->peer = far;
  far->peer = near;
  listening->socket->backlog.push_back(far);
  SimOpenFile* file = state_->make_open_file();
  file->socket = near;
  state_->changed = true;
  state_->retry_parked();
  return state_->add_descriptor(file);
}

int SimWorld::open_device(SimDevice& device, int flags) {
  SimOpenFile* file = state_->make_open_file();
  file->device = &device;
  file->flags = flags;
  return state_->add_descriptor(file);
}

void SimWorld::close(int fd) {
  BC_ASSERT(state_->close(fd) == 0);
  state_->retry_parked();
}

void SimWorld::send(int fd, std::span<const std::byte> bytes) {
  SimOpenFile* file = state_->find_descriptor(fd);
  BC_ASSERT(file != nullptr && file->socket != nullptr && file->socket->peer != nullptr);
  std::deque<std::byte>& incoming = file->socket->peer->incoming;
  incoming.insert(incoming.end(), bytes.begin(), bytes.end());
  device_ready();
}

void SimWorld::complete_command(uint64_t token, int32_t result) {
  SimOp* op = state_->find_op(token);
  BC_ASSERT(op != nullptr && op->commanded);
  const uint64_t at_ns = state_->now_ns + state_->between(quick_ns_min, quick_ns_max);
  state_->due.push({at_ns, ++state_->last_sequence, token, true, result});
}

void SimWorld::device_ready() {
  state_->changed = true;
  state_->retry_parked();
}

uint64_t SimWorld::now_ns() const { return state_->now_ns; }
bool SimWorld::run_next() { return state_->run_next(); }
const SimCounters& SimWorld::counters() const { return state_->counters; }

}  // namespace blobcache
