// Disk hits: a READ whose blocks are all verified on disk is read by the device straight into the reply.
//
//   uring     READ_FIXED (payload) --linked--> COMMIT_AND_FETCH    the reply leaves without us
//   dev, and  READ_FIXED (payload) --CQE--> reply
//   the last bytes of an own file, which read short by nature
//
// The reply leaves before we see the bytes, so only blocks that were verified in this boot may take this way. The index is
// asked between DiskReads::enter and leave: what it says then stays on the disk until the CQE (cache/disk_reads.h).
//
// A read that fails or comes back short falls through to read_miss, which reads from the disk once more, checks, drops what
// is wrong and asks the origin. Of a linked pair two CQEs come then, the read's and the commit's -ECANCELED, in either
// order; the request is served again when both are there.
//
// No reference to the handle is taken: until the request is answered the kernel keeps the file open, and afterwards (the CQE
// of a linked read may be handled later than the RELEASE) nothing of the handle is looked at. The file may be closed then;
// the ring holds it for its own reads. A disk read cannot be let go by an interrupt or a deadline: its target is the reply's
// memory, and io_uring cancels no read that a device has (IORING_OP_ASYNC_CANCEL answers -ENOENT; the kernel's io_try_cancel
// looks at workers, polls and timeouts only). Disks answer, if only with an error. One that takes a second for it is left
// alone by those who come later (cache/disk_health.h), and loads are taken from it (disk_patience.cc).
#include <algorithm>

#include "base/trace.h"
#include "cache/disk_check.h"
#include "serve/volume_server.h"

namespace blobcache::serve {

bool VolumeServer::disk_hit(Request& request, Handle& handle, ReadRange range) {
  if (!handle.cacheable || disk().verify_always()) return false;
  if (prefetcher_ != nullptr && prefetcher_->fetches(handle, range)) return false;
  const IndexSpans spans = index_spans(range);
  if (spans.count == 0) return false;
  const DiskFile* file = disk_file_of(handle, spans.spans[0].position);
  if (file == nullptr) return false;
  const uint32_t alignment = disk().direct_alignment(file->disk);
  if (range.offset % alignment != 0) return false;

  const unsigned phase = disk().reads().enter(reactor().core(), file->disk);
  DiskView view;
  if (!find_verified(handle, *file, spans, &view)) {
    disk().reads().leave(reactor().core(), file->disk, phase);
    return false;
  }
  const DirectRead direct = direct_read(view.place, handle.object_bytes, range, alignment);
  if (direct.at.bytes > request.slot->payload_bytes) {
    disk().reads().leave(reactor().core(), file->disk, phase);
    return false;
  }
  note_visit(handle, spans.spans[spans.count - 1], &view);
  handle.expected_offset.store(range.offset + range.bytes, std::memory_order_relaxed);
  if (prefetcher_ != nullptr) prefetcher_->on_disk_hit(handle, range);
  request.disk_read.handle = &handle;
  request.disk_read.range = range;
  request.disk_read.phase = static_cast<uint8_t>(phase);
  begin_disk_read(request, *file, direct);
  return true;
}

// The handle's file; asked for when it has none yet, or the one that it had is gone (the object was evicted, or damaged, and
// may have been cached again). Null: nothing of the object is on disk, or its file is not open.
DiskFile* VolumeServer::disk_file_of(Handle& handle, uint64_t position) {
  DiskFile* file = handle.disk_files.current();
  if (file != nullptr && !file->gone.load(std::memory_order_acquire)) return file;
  DiskView view;
  if (!disk().find(handle.object, position, &view)) return nullptr;
  file = disk().try_file(handle.object, view);
  if (file == nullptr) return nullptr;
  remember_disk_file(handle, *file);
  disk().release(*file);
  return handle.disk_files.current();
}

void VolumeServer::remember_disk_file(Handle& handle, DiskFile& file) {
  if (handle.disk_files.current() == &file || file.gone.load(std::memory_order_acquire)) return;
  disk().reference(file);
  if (!handle.disk_files.keep(file)) disk().release(file);
}

// Between enter and leave. view_out: of the last span.
bool VolumeServer::find_verified(Handle& handle, const DiskFile& file, const IndexSpans& spans, DiskView* view_out) {
  for (unsigned i = 0; i < spans.count; ++i) {
    if (!disk().find(handle.object, spans.spans[i].position, view_out)) return false;
    if (view_out->size != handle.object_bytes || !leads_to(*view_out, handle.object, file)) return false;
    if ((view_out->verified & spans.spans[i].blocks) != spans.spans[i].blocks) return false;
  }
  // Asked last: another file under the same name is only made when this one is marked as gone.
  return !file.gone.load(std::memory_order_acquire);
}

void VolumeServer::begin_disk_read(Request& request, const DiskFile& file, const DirectRead& direct) {
  fuse::Slot& slot = *request.slot;
  Request::DiskRead& read = request.disk_read;
  read.disk = file.disk;
  read.linked = direct.full && slot.transport->can_link();
  read.since_ns = now_ns();
  begin_trail(request, read.range);
  read.bytes_wanted = direct.full ? direct.at.bytes : read.range.bytes;
  ++tasks_running_;
  ++disk_reads_running_;
  if (prefetcher_ != nullptr) prefetcher_->on_disk_depth(disk_reads_running_);
  reactor().reserve(read.linked ? 2 : 1);
  Sqe& sqe = reactor().prepare(read);
  if (options_.registered_buffers && slot.buffer_index != fuse::no_buffer) {
    prep_read_fixed(sqe, FileRef::fd(file.fd), slot.payload, direct.at, slot.buffer_index);
  } else {
    prep_read(sqe, FileRef::fd(file.fd), slot.payload, direct.at);
  }
  if (!read.linked) return;
  link_next(sqe);
  BC_TRACE(reply, slot.unique, read.range.bytes, 0);
  slot.transport->reply_linked(slot, read.range.bytes);
}

void VolumeServer::on_disk_read(Op& op, int32_t result, uint32_t) {
  auto& read = static_cast<Request::DiskRead&>(op);
  Request& request = *read.request;
  VolumeServer& self = *request.server;
  self.disk().reads().leave(self.reactor().core(), read.disk, read.phase);
  --self.disk_reads_running_;
  if (self.now_ns() - read.since_ns >= DiskHealth::read_stuck_after_ns) self.disk().on_slow_read(read.disk);
  if (result >= 0 && static_cast<uint32_t>(result) >= read.bytes_wanted) {
    self.counters_.disk_hits.add(1);
    self.note_tier(request, Tier::disk);
    self.end_trail(request);
    if (read.linked) {
      self.counters_.add_reply(Tier::disk, read.range.bytes);
      self.count_latency(request);
      BC_TRACE(tier, request.trail.id, static_cast<unsigned>(Tier::disk), read.range.bytes, read.range.offset);
      BC_TRACE(request_end, request.trail.id);
    } else {
      self.reply_read(request, *read.handle, read.range, Tier::disk);
    }
  } else {
    // A short result is a file that lost its end: read_miss finds out which blocks.
    if (result < 0) self.disk().on_read_error(read.disk, -result);
    if (!read.linked || request.slot->state == fuse::SlotState::serving) self.read_without_disk(request);
  }
  --self.tasks_running_;
  self.become_idle_if_done();
}

void VolumeServer::on_reply_broken(fuse::Slot& slot) {
  Request& request = requests_[slot.number];
  BC_ASSERT(request.disk_read.linked);
  if (request.disk_read.cqes_owed > 0) return;
  read_without_disk(request);
}

void VolumeServer::read_without_disk(Request& request) {
  Handle& handle = *request.disk_read.handle;
  volume().handles.reference(handle);
  begin(request, read_miss(request.stack, request, handle, request.disk_read.range));
}

// Once a visit: the kernel cuts one reader's way through a chunk into many requests.
void VolumeServer::note_visit(Handle& handle, const IndexSpan& span, const DiskView* view) {
  if (handle.visited_position.load(std::memory_order_relaxed) == span.position) return;
  handle.visited_position.store(span.position, std::memory_order_relaxed);
  FilePrefetch* prefetch = handle.prefetch.load(std::memory_order_acquire);
  if (prefetch != nullptr && prefetch->visited(span.position)) return;
  const uint64_t offset = span.position * limits::chunk_frame_bytes;
  const uint64_t bytes = std::min<uint64_t>(limits::chunk_frame_bytes, handle.object_bytes - offset);
  disk().on_visit(handle.object, span.position, bytes, view);
}

void VolumeServer::note_miss(Handle& handle, ReadRange range) {
  if (!handle.cacheable) return;
  const uint64_t position = range.offset / limits::chunk_frame_bytes;
  if (handle.visited_position.load(std::memory_order_relaxed) == position) return;
  const uint64_t block = range.offset % limits::chunk_frame_bytes / limits::block_bytes;
  DiskView view;
  const bool there = disk().find(handle.object, position, &view) && (view.valid >> block & 1) != 0;
  note_visit(handle, {.position = position, .blocks = uint64_t{1} << block}, there ? &view : nullptr);
}

}  // namespace blobcache::serve
