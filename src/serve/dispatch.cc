// FUSE opcode -> handler. Requests that need nothing but memory are answered here and now by plain functions; the rest
// become tasks. What writes gets EROFS (the mount is read-only, so the kernel rarely asks), what we do not know ENOSYS,
// which the kernel remembers and does not ask again.
#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "base/trace.h"
#include "fuse/reply.h"
#include "serve/caller.h"
#include "serve/operation.h"
#include "serve/volume_server.h"

namespace blobcache::serve {
namespace {

constexpr uint64_t watch_ns = 1'000'000'000;

// Blocks found wrong come rarely; beyond these the next reader finds them wrong again.
constexpr unsigned drop_jobs_max = 16;
// Opens that wait for a backing file; beyond these an open is page-cached.
constexpr unsigned armings_max = 64;

// Reads in flight at the origin on each core; the rest queue. A hung file server may hold as many io_uring workers. Where the
// origin keeps the limit itself, one busy core may have all of it.
unsigned running_max(const VolumeServer::Options& options) {
  if (options.volume->origin->keeps_connections_max()) return options.volume->origin_config.connections;
  const unsigned share = options.volume->origin_config.connections / options.cores;
  return share < 4 ? 4 : share;
}

Prefetcher::Limits prefetch_limits(const VolumeServer::Options& options) {
  const Volume& volume = *options.volume;
  if (volume.prefetch == nullptr) return {};
  return Prefetcher::limits_of(*volume.prefetch, volume.origin_config.connections, options.cores);
}

uint32_t calls_max(uint32_t slots) { return slots + 64; }

}  // namespace

VolumeServer::VolumeServer(const Options& options)
    : options_(options),
      prefetch_limits_(prefetch_limits(options)),
      requests_(std::make_unique<Request[]>(options.slots)),
      room_timer_(&VolumeServer::on_room_timer),
      loads_(options.slots * 2 + 2 * Plan::spans_max + Prefetcher::loads_max(prefetch_limits_)),
      checksum_pages_(options.volume->disk == nullptr ? 0 : disk_loads_max + Prefetcher::loads_max(prefetch_limits_)),
      drop_jobs_(options.volume->disk == nullptr ? 0 : drop_jobs_max),
      armings_(options.volume->passes_through() ? armings_max : 0),
      lookups_(calls_max(options.slots)),
      opens_(calls_max(options.slots)),
      lists_(calls_max(options.slots)),
      readlinks_(calls_max(options.slots)),
      statfss_(calls_max(options.slots)),
      transports_open_(options.transports) {
  room_timer_.server = this;
  origin_lane_.running_max = running_max(options);
  disk_lane_.running_max = disk_loads_max;
  prefetch_lane_.running_max = Prefetcher::loads_max(prefetch_limits_);
  if (volume().prefetch != nullptr) {
    prefetcher_ = std::make_unique<Prefetcher>(*this, *volume().prefetch, prefetch_limits_);
  }
  for (uint32_t i = 0; i < options_.slots; ++i) {
    requests_[i].server = this;
    requests_[i].watch.request = &requests_[i];
    requests_[i].disk_read.request = &requests_[i];
    requests_[i].disk_read.handler = &VolumeServer::on_disk_read;
  }
  for (uint32_t i = 0; i < loads_.count(); ++i) {
    Load& load = loads_[i];
    load.data.load = load.sums.load = load.call.load = &load;
    load.open_job.load = load.remove_job.load = &load;
    load.data.handler = load.sums.handler = &VolumeServer::on_disk_load_read;
    load.open_job.on_done = &VolumeServer::on_file_open;
    load.remove_job.on_done = &VolumeServer::on_removed;
  }
}

VolumeServer::~VolumeServer() { BC_ASSERT(tasks_running_ == 0); }

void VolumeServer::on_request(fuse::Slot& slot) {
  const uint32_t opcode = slot.in().opcode;
  counters_.requests[opcode < Counters::opcodes ? opcode : 0].add(1);
  BC_TRACE(request_begin, slot.unique, opcode, slot.in().nodeid);
  Request& request = requests_[slot.number];
  BC_ASSERT(request.disk_read.cqes_owed == 0);
  request.slot = &slot;
  request.arrived_ns = now_ns();
  request.kind = operation_kind(opcode);
  if (opcode == FUSE_READ) [[likely]] {
    read(request);
    return;
  }
  dispatch(request, opcode);
}

void VolumeServer::dispatch(Request& request, uint32_t opcode) {
  switch (opcode) {
    case FUSE_FORGET: return on_forget(*request.slot);
    case FUSE_BATCH_FORGET: return on_batch_forget(*request.slot);
    case FUSE_INTERRUPT: return on_interrupt(*request.slot);
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR: return release(request);
    case FUSE_LSEEK: return seek(request);
    case FUSE_GETXATTR: return get_xattr(request);
    case FUSE_LISTXATTR: return list_xattr(request);
    case FUSE_DESTROY: return reply(request, 0);
    case FUSE_SETATTR:
    case FUSE_SYMLINK:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_LINK:
    case FUSE_WRITE:
    case FUSE_SETXATTR:
    case FUSE_REMOVEXATTR:
    case FUSE_CREATE:
    case FUSE_FALLOCATE:
    case FUSE_COPY_FILE_RANGE: return reply_error(request, EROFS);
    default: return dispatch_meta(request, opcode);
  }
}

void VolumeServer::dispatch_meta(Request& request, uint32_t opcode) {
  switch (opcode) {
    case FUSE_LOOKUP: return begin(request, lookup(request.stack, request));
    case FUSE_GETATTR:
    case abi::op_statx: return begin(request, get_attributes(request.stack, request));
    case FUSE_OPEN:
    case FUSE_OPENDIR: return begin(request, open(request.stack, request));
    case FUSE_READLINK: return begin(request, read_link(request.stack, request));
    case FUSE_STATFS: return begin(request, statfs(request.stack, request));
    case FUSE_READDIR: return begin(request, read_directory(request.stack, request, false));
    case FUSE_READDIRPLUS: return begin(request, read_directory(request.stack, request, true));
    default: return reply_error(request, ENOSYS);
  }
}

void send_reply(fuse::Slot& slot, uint32_t bytes) {
  BC_TRACE(reply, slot.unique, bytes, 0);
  BC_TRACE(request_end, slot.unique);
  slot.transport->reply(slot, bytes);
}

void send_error(fuse::Slot& slot, int os_errno) {
  BC_TRACE(reply, slot.unique, 0, os_errno);
  BC_TRACE(request_end, slot.unique);
  slot.transport->reply_error(slot, os_errno);
}

void send_nothing(fuse::Slot& slot) {
  BC_TRACE(request_end, slot.unique);
  slot.transport->no_reply(slot);
}

void VolumeServer::begin(Request& request, Task task) {
  ++tasks_running_;
  request.interrupted = false;
  request.timed_out = false;
  request.event.reset();
  begin_trail(request);
  request.deadline_ns = now_ns() + volume().live.deadline_ns;
  reactor().arm_at(request.watch, std::min(request.deadline_ns, now_ns() + watch_ns));
  std::move(task).begin();
}

void Request::on_watch(Timer& timer) {
  Request& self = *static_cast<Watch&>(timer).request;
  Reactor& reactor = self.server->reactor();
  if (self.cancel_wait != nullptr && caller_is_killed(self.slot->in().pid)) return self.interrupt();
  if (reactor.now_ns() < self.deadline_ns) {
    reactor.arm_at(self.watch, std::min(self.deadline_ns, reactor.now_ns() + watch_ns));
    return;
  }
  self.timed_out = true;
  if (self.cancel_wait != nullptr) self.cancel_wait(self);
}

// Every task calls this last, after its reply.
void VolumeServer::finish(Request& request) {
  BC_ASSERT(request.cancel_wait == nullptr && tasks_running_ > 0);
  if (request.watch.armed()) reactor().cancel(request.watch);
  end_trail(request);
  --tasks_running_;
  become_idle_if_done();
}

void VolumeServer::reply_failure(Request& request, ErrorPlace place, const Error& error, std::string_view key) {
  counters_.add_error(place, error.code);
  const int os_errno = fuse::errno_of(error);
  if (os_errno == EIO) {
    BC_LOG_REQUEST(warn, request.trail.id, "{}: {} of '{}' failed: {} (errno {})", volume().config.name,
                   operation_name(request.trail.opcode), key, code_name(error.code), error.os_errno);
  }
  reply_error(request, os_errno);
}

void VolumeServer::reply_given_up(Request& request, ErrorPlace place, std::string_view key) {
  counters_.add_error(place, request.interrupted ? Code::canceled : Code::timeout);
  if (request.interrupted) {
    counters_.interrupts.add(1);
    reply_error(request, EINTR);
    return;
  }
  counters_.deadlines.add(1);
  BC_LOG_REQUEST(warn, request.trail.id,
                 "{}: the origin did not answer for '{}' within the deadline (origin.deadline); the reader gets EIO",
                 volume().config.name, key);
  reply_error(request, EIO);
}

void VolumeServer::on_forget(fuse::Slot& slot) {
  volume().inodes.forget(slot.in().nodeid, slot.argument<fuse_forget_in>().nlookup);
  send_nothing(slot);
}

void VolumeServer::on_batch_forget(fuse::Slot& slot) {
  const uint32_t fitting = slot.body_bytes / static_cast<uint32_t>(sizeof(fuse_forget_one));
  const uint32_t count = slot.argument<fuse_batch_forget_in>().count;
  const auto* ones = reinterpret_cast<const fuse_forget_one*>(slot.body);
  for (uint32_t i = 0; i < count && i < fitting; ++i) volume().inodes.forget(ones[i].nodeid, ones[i].nlookup);
  send_nothing(slot);
}

void VolumeServer::on_interrupt(fuse::Slot& slot) {
  const uint64_t unique = slot.argument<fuse_interrupt_in>().unique;
  send_nothing(slot);
  options_.interrupts->broadcast_interrupt(unique);
}

bool VolumeServer::interrupt(uint64_t unique, fuse::Transport& transport) {
  fuse::Slot* slot = transport.find_serving(unique);
  if (slot == nullptr) return false;
  requests_[slot->number].interrupt();
  return true;
}

void VolumeServer::on_closed() {
  BC_ASSERT(transports_open_ > 0);
  --transports_open_;
  if (transports_open_ > 0) return;
  // Nobody waits for the answers any more; let the tasks that wait for a slow origin end now.
  for (uint32_t i = 0; i < options_.slots; ++i) {
    if (requests_[i].cancel_wait != nullptr) requests_[i].interrupt();
  }
  if (prefetcher_ != nullptr) prefetcher_->close();
  become_idle_if_done();
}

void VolumeServer::become_idle_if_done() {
  if (transports_open_ > 0 || tasks_running_ > 0 || disk_jobs_ > 0 || idle_told_) return;
  if (options_.on_idle == nullptr || (prefetcher_ != nullptr && !prefetcher_->idle())) return;
  idle_told_ = true;
  if (room_timer_.armed()) reactor().cancel(room_timer_);
  options_.on_idle(*this, options_.on_idle_context);
}

}  // namespace blobcache::serve
