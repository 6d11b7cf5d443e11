// The read path.
//
//   READ --all valid in L0--> copy, commit                                  same turn, plain function, no allocation
//     |--else, all verified on disk--> read into the reply (disk_read.cc)   plain functions, no allocation
//     '--else--> read_miss: plan (pin frames, claim blocks nobody loads) --> loads --> wait --> copy, commit
//
// A reader waits for its own blocks only. Whoever comes second for a block waits for the first one's load. An interrupt or
// the deadline ends the wait, never the load: what is under way is worth having, and its memory is the frame's, not ours.
#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "base/trace.h"
#include "serve/volume_server.h"

namespace blobcache::serve {
namespace {

// The tier that a reader waited for: the farthest of those that his bytes came from.
Tier slowest_tier(uint8_t sources) {
  for (const Tier tier : {Tier::origin, Tier::peer, Tier::disk}) {
    if ((sources >> static_cast<unsigned>(tier) & 1) != 0) return tier;
  }
  return Tier::memory;
}

}  // namespace

void VolumeServer::read(Request& request) {
  fuse::Slot& slot = *request.slot;
  const auto& in = slot.argument<fuse_read_in>();
  Handle* handle = volume().handles.get(in.fh);
  if (handle == nullptr) [[unlikely]] {
    return reply_error(request, EBADF);
  }
  counters_.reads.add(1);
  if (in.offset >= handle->object_bytes) return reply(request, 0);
  const uint64_t rest = handle->object_bytes - in.offset;
  const ReadRange range{.offset = in.offset, .bytes = static_cast<uint32_t>(std::min<uint64_t>(rest, in.size))};
  if (range.bytes == 0) return reply(request, 0);
  // A short answer would be taken for the end of the file, and the rest for zeros.
  if (range.bytes > slot.payload_bytes) return reply_error(request, EIO);
  if (volume().memory->try_copy(handle->object, range.offset, range.bytes, slot.payload, now_s())) [[likely]] {
    counters_.memory_hits.add(1);
    if (prefetcher_ != nullptr) prefetcher_->on_hit(*handle, range);
    reply_read(request, *handle, range, Tier::memory);
  } else if (volume().disk == nullptr || !disk_hit(request, *handle, range)) {
    volume().handles.reference(*handle);
    begin_trail(request, range);
    begin(request, read_miss(request.stack, request, *handle, range));
  }
  if (prefetcher_ != nullptr) prefetcher_->pump();
}

void VolumeServer::reply_read(Request& request, Handle& handle, ReadRange range, Tier tier) {
  counters_.add_reply(tier, range.bytes);
  BC_TRACE(tier, request.slot->unique, static_cast<unsigned>(tier), range.bytes, range.offset);
  const uint64_t end = range.offset + range.bytes;
  handle.expected_offset.store(end, std::memory_order_relaxed);
  // The kernel keeps what a buffered scan has read: ours may go first when room is needed.
  if (handle.buffered && range.offset / limits::chunk_frame_bytes != end / limits::chunk_frame_bytes) {
    volume().memory->demote(handle.object, range.offset);
  }
  reply(request, range.bytes);
}

// Small files and random reads take 64 KiB frames, scans whole chunks.
FrameKind VolumeServer::kind_for(Handle& handle, ReadRange range) const {
  if (handle.object_bytes <= limits::chunk_frame_bytes / 4) return FrameKind::block;
  const bool sequential = handle.expected_offset.load(std::memory_order_relaxed) == range.offset && range.offset > 0;
  return sequential ? FrameKind::chunk : FrameKind::block;
}

namespace {

// Whether some of it is on its way by loads that are not this plan's.
bool waits_for_others(const Plan& plan) {
  return std::any_of(plan.spans, plan.spans + plan.span_count, [](const Plan::Span& span) {
    return span.waiter.pending && (span.waiter.blocks & ~span.blocks_to_load) != 0;
  });
}

}  // namespace

void VolumeServer::on_plan_done(Plan& plan) { static_cast<Request::RequestPlan&>(plan).request->event.set(); }

void VolumeServer::cancel_plan(Request& request) {
  request.server->volume().memory->cancel_waits(request.plan);
  if (request.plan.waiters_pending == 0) request.event.set();
}

Task VolumeServer::read_miss(TaskStack&, Request& request, Handle& handle, ReadRange range) {
  VolumeServer& server = *request.server;
  MemoryTier& memory = *server.volume().memory;
  const PlanRequest wanted{.object = handle.object,
                           .object_bytes = handle.object_bytes,
                           .offset = range.offset,
                           .bytes = range.bytes,
                           .kind = server.kind_for(handle, range)};
  request.plan.on_done = &VolumeServer::on_plan_done;
  if (server.volume().disk != nullptr) server.note_miss(handle, range);
  bool planned = false;
  bool asked_again = false;
  bool past_disk = false;
  bool is_index = false;
  while (!request.given_up()) {
    if (server.loads_available()) {
      const Result<void> plan = memory.plan(server.reactor(), wanted, server.now_s(), request.plan);
      planned = plan.has_value();
      BC_ASSERT(planned || plan.error().code == Code::again);
    }
    if (!planned) {
      server.wait_for_room(request);
      co_await request.event;
      request.trail.room_ns = server.now_ns() - request.trail.begun_ns;
      request.cancel_wait = nullptr;
      request.event.reset();
      continue;
    }
    server.room_retry_ns_ = 1;
    if (server.prefetcher_ != nullptr) server.prefetcher_->on_miss(handle, range, request.plan);
    const bool joined = waits_for_others(request.plan);
    server.begin_loads(request, handle, past_disk);
    if (request.plan.waiters_pending > 0) {
      request.cancel_wait = &VolumeServer::cancel_plan;
      co_await request.event;
      request.cancel_wait = nullptr;
    }
    if (!request.plan.failed || request.given_up()) break;
    // The disk hangs; or it was another's load, perhaps one whose time was over when this reader came: once more, with one
    // of his own.
    if (request.plan.abandoned) {
      past_disk = true;
    } else if (joined && !asked_again) {
      asked_again = true;
    } else {
      break;
    }
    planned = false;
    memory.release(request.plan);
    server.wake_for_room();
    request.event.reset();
  }
  if (planned && request.plan.failed) {
    server.reply_failure(request, ErrorPlace::read, request.plan.error, handle.key);
  } else if (!planned || request.given_up()) {
    server.reply_given_up(request, ErrorPlace::read, handle.key);
  } else {
    memory.copy(request.plan, range.offset, range.bytes, request.slot->payload);
    is_index = server.prefetcher_ != nullptr && Prefetcher::may_be_index(handle, range, request.slot->payload);
    server.reply_read(request, handle, range, slowest_tier(request.plan.sources));
  }
  if (planned) {
    memory.release(request.plan);
    server.wake_for_room();
  }
  if (is_index) server.prefetcher_->on_index(handle);
  if (server.prefetcher_ != nullptr) server.prefetcher_->pump();
  server.release_handle(handle);
  server.finish(request);
}

}  // namespace blobcache::serve
