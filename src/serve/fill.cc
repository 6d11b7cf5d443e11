// Loads: blocks on their way from the origin into frames. A load belongs to nobody: the request that began it may be gone
// when it ends. It pins its handle (the origin's descriptor) and the tier keeps its frame.
//
// At most loads_running_max_ are at the origin at a time, so that a slow origin fills a queue here and not the kernel's
// worker threads. A request that finds no load or no frame free waits in room_waiters_ for whatever ends next. A timer
// wakes it too: in the next turn at first, because frames evicted in this turn are free in the next, then less and less
// often, for room that another core makes.
#include <algorithm>
#include <bit>
#include <cerrno>

#include "base/log.h"
#include "serve/volume_server.h"

namespace blobcache::serve {
namespace {

constexpr uint64_t room_retry_ns_max = 1'000'000;

}  // namespace

void VolumeServer::begin_loads(Request& request, Handle& handle) {
  for (unsigned i = 0; i < request.plan.span_count; ++i) {
    Plan::Span& span = request.plan.spans[i];
    if (span.blocks_to_load == 0) continue;
    Load* load = loads_.try_acquire();
    BC_ASSERT(load != nullptr);  // loads_available() was asked in this turn
    load->server = this;
    load->call.load = load;
    load->handle = &handle;
    load->frame = span.frame;
    load->frame_offset = span.offset;
    load->blocks_left = span.blocks_to_load;
    load->blocks_in_run = 0;
    load->call.on_done = &VolumeServer::on_load_done;
    load->call.key = handle.key;
    load->call.version = handle.version;
    load->call.fd = handle.origin_fd;
    volume().handles.reference(handle);
    start_or_queue(*load);
  }
}

void VolumeServer::start_or_queue(Load& load) {
  if (loads_running_ >= loads_running_max_) {
    loads_queued_.push_back(load);
    return;
  }
  ++loads_running_;
  start_run(load);
}

void VolumeServer::start_run(Load& load) {
  const auto first = static_cast<unsigned>(std::countr_zero(load.blocks_left));
  const auto count = static_cast<unsigned>(std::countr_one(load.blocks_left >> first));
  load.blocks_in_run = (count == 64 ? ~uint64_t{0} : ((uint64_t{1} << count) - 1)) << first;
  const uint64_t offset = load.frame_offset + first * limits::block_bytes;
  const uint64_t bytes = std::min<uint64_t>(count * limits::block_bytes, load.handle->object_bytes - offset);
  load.call.failed = false;
  load.call.offset = offset;
  load.call.bytes = static_cast<uint32_t>(bytes);
  load.call.to = volume().memory->frame_bytes(*load.frame) + first * limits::block_bytes;
  load.call.buffer_index =
      options_.registered_buffers ? static_cast<int>(volume().memory->buffer_index(*load.frame)) : -1;
  volume().origin->begin_read(reactor(), load.call);
}

void VolumeServer::on_load_done(OriginCall& call) {
  auto& read_call = static_cast<Load::LoadCall&>(call);
  Load& load = *read_call.load;
  VolumeServer& self = *load.server;
  LoadOutcome outcome{.ok = !call.failed, .keep = load.handle->cacheable && !read_call.young, .error = call.error};
  uint64_t ended = load.blocks_in_run;
  if (call.failed) {
    self.counters_.errors[static_cast<unsigned>(ErrorPlace::load)].add(1);
    ended = load.blocks_left;  // what was not tried fails with what was
  } else {
    self.counters_.origin_reads.add(1);
    self.counters_.origin_bytes.add(read_call.bytes);
  }
  load.blocks_left &= ~ended;
  self.volume().memory->finish_load(self.reactor(), *load.frame, ended, outcome);
  if (load.blocks_left != 0) {
    self.start_run(load);
    return;
  }
  self.end_load(load);
}

void VolumeServer::end_load(Load& load) {
  release_handle(*load.handle);
  load.handle = nullptr;
  load.frame = nullptr;
  loads_.release(load);
  --loads_running_;
  if (Load* next = loads_queued_.pop_front(); next != nullptr) {
    ++loads_running_;
    start_run(*next);
  }
  wake_for_room();
}

void VolumeServer::release_handle(Handle& handle) {
  if (!volume().handles.release(handle)) return;
  if (handle.origin_fd >= 0) volume().origin->close(reactor(), handle.origin_fd);
  volume().handles.put_back(handle);
}

void VolumeServer::cancel_room(Request& request) {
  if (request.linked()) request.unlink();
  request.event.set();
}

void VolumeServer::wait_for_room(Request& request) {
  room_waiters_.push_back(request);
  request.cancel_wait = &VolumeServer::cancel_room;
  if (room_timer_.armed()) return;
  reactor().arm(room_timer_, room_retry_ns_);
  room_retry_ns_ = std::min(room_retry_ns_ * 8, room_retry_ns_max);
}

void VolumeServer::wake_for_room() {
  // Those that find no room again come back to the list: take only who is in it now.
  List<Request> waking;
  while (Request* request = room_waiters_.pop_front()) waking.push_back(*request);
  while (Request* request = waking.pop_front()) request->event.set();
}

}  // namespace blobcache::serve
