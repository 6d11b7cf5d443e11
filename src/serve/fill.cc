// Loads: blocks on their way from the disk (disk_load.cc) or the origin into frames. A load belongs to nobody: the request that began it may be gone
// when it ends. It pins its handle (the origin's descriptor) and the tier keeps its frame.
//
// A lane bounds the runs that are at the origin at a time, so that a slow origin fills a queue here and not the kernel's
// worker threads; another lane those at the disks.
//
// A run of many blocks is delivered block by block where the origin says how far it is (Origin, ReadCall::on_bytes): a block
// that has come whole goes to its readers while the rest is on its way. The last block of a run is delivered by its end.
// Nothing is delivered early of what may not be kept: its frame leaves the index with the first block that is delivered, and
// the next reader would load the rest again.
//
// What came from the origin is written to disk behind the reply: from the frame, in one write a run, while the run's last
// block is still ours alone (own files), or once all of it is there (packed objects).
//
// Adjacent frames of one reader that a server has to fill are asked for by one request (Load::joined): the first load makes
// it and has a place in the lane, and the others end with it. A whole small object comes by one request so, and can be
// compared with the checksum that its server offers.
//
// A request that finds no load or no frame free waits in room_waiters_ for whatever ends next. A timer wakes it too: in the
// next turn at first, because frames evicted in this turn are free in the next, then less and less often, for room that
// another core makes.
#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "serve/volume_server.h"

namespace blobcache::serve {
namespace {

constexpr uint64_t room_retry_ns_max = 1'000'000;

}  // namespace

void VolumeServer::begin_loads(Request& request, Handle& handle, bool past_disk) {
  begin_loads_of(request.plan, handle, {.request = &request, .past_disk = past_disk});
}

unsigned VolumeServer::begin_prefetch_loads(Plan& plan, Handle& handle, List<Load>* held) {
  return begin_loads_of(plan, handle, {.prefetch = true, .held = held});
}

unsigned VolumeServer::begin_loads_of(Plan& plan, Handle& handle, const LoadsFor& purpose) {
  unsigned count = 0;
  Load* begun[Plan::spans_max];
  for (unsigned i = 0; i < plan.span_count; ++i) {
    Plan::Span& span = plan.spans[i];
    if (span.blocks_to_load == 0) continue;
    Load* load = loads_.try_acquire();
    BC_ASSERT(load != nullptr);  // loads_available() was asked in this turn; prefetch counts its own
    begun[count++] = load;
    load->joined = nullptr;
    load->server = this;
    load->request = purpose.request;
    load->request_id = purpose.request == nullptr ? 0 : purpose.request->trail.id;
    load->prefetch = purpose.prefetch;
    load->chained = false;
    load->call.background = purpose.prefetch;
    load->bytes = static_cast<uint32_t>(std::popcount(span.blocks_to_load) * limits::block_bytes);
    if (!purpose.prefetch && volume().prefetch != nullptr) volume().prefetch->budget().begin_demand(load->bytes);
    load->handle = &handle;
    load->frame = span.frame;
    load->frame_offset = span.offset;
    load->blocks_left = span.blocks_to_load;
    load->blocks_in_run = 0;
    load->blocks_tried = 0;
    load->open_tried = false;
    load->past_disk = purpose.past_disk;
    load->abandoned = false;
    load->call.on_done = &VolumeServer::on_load_done;
    load->call.key = handle.key;
    load->call.version = handle.version;
    load->call.object_bytes = handle.object_bytes;
    volume().handles.reference(handle);
  }
  const std::span<Load*> loads(begun, count);
  if (purpose.held == nullptr) join_loads(loads);
  for (Load* load : loads) {
    if (load == nullptr) continue;  // joined
    if (purpose.held != nullptr) {
      purpose.held->push_back(*load);
    } else {
      continue_load(*load);
    }
  }
  return count;
}

namespace {

// In the object. A chunk's frame may lack one block in its middle.
uint64_t run_offset(const Load& load) {
  return load.frame_offset + static_cast<unsigned>(std::countr_zero(load.blocks_in_run)) * limits::block_bytes;
}

}  // namespace

std::byte* VolumeServer::run_memory(const Load& load) const {
  return volume().memory->frame_bytes(*load.frame) + (run_offset(load) - load.frame_offset);
}

// One block, and the run is chosen.
bool VolumeServer::comes_whole_from_origin(Load& load) {
  choose_run(load);
  return !load.from_disk && load.blocks_in_run == load.blocks_left && std::has_single_bit(load.blocks_in_run);
}

// Those that are joined to another leave the array.
void VolumeServer::join_loads(std::span<Load*> loads) {
  if (!volume().origin->scatters()) return;
  Load* last = nullptr;
  for (Load*& load : loads) {
    const bool whole = comes_whole_from_origin(*load);
    const bool next = whole && last != nullptr && run_offset(*last) + limits::block_bytes == run_offset(*load);
    Load* const before = last;
    last = whole ? load : nullptr;
    if (!next) continue;
    before->joined = load;
    load = nullptr;
  }
}

// They waited, and some of what they load is on disk by now: each goes on by itself.
void VolumeServer::part_loads(Load& load) {
  Load* next = std::exchange(load.joined, nullptr);
  while (next != nullptr) {
    Load& parted = *next;
    next = std::exchange(parted.joined, nullptr);
    continue_load(parted);
  }
}

// Adjacent blocks that come from the same place: from disk where they are valid there, else from the origin.
void VolumeServer::choose_run(Load& load) {
  const uint64_t on_disk = blocks_on_disk(load);
  const auto first = static_cast<unsigned>(std::countr_zero(load.blocks_left));
  load.from_disk = (on_disk >> first & 1) != 0;
  const uint64_t candidates = load.from_disk ? on_disk : load.blocks_left & ~on_disk;
  const auto count = static_cast<unsigned>(std::countr_one(candidates >> first));
  load.blocks_in_run = (count == 64 ? ~uint64_t{0} : ((uint64_t{1} << count) - 1)) << first;
}

void VolumeServer::continue_load(Load& load) {
  // Asked once: by the next look the keeper may have put some of it on disk.
  bool stays = load.joined != nullptr && comes_whole_from_origin(load);
  for (Load* each = load.joined; each != nullptr && stays; each = each->joined) stays = comes_whole_from_origin(*each);
  if (!stays) {
    if (load.joined != nullptr) part_loads(load);
    choose_run(load);
  }
  LoadLane& lane = lane_of(load);
  if (lane.running >= lane.running_max) return lane.queued.push_back(load);
  ++lane.running;
  if (load.from_disk) {
    BC_ASSERT(load.joined == nullptr);
    begin_disk_run(load);
    start_disk_run(load);
  } else {
    start_origin_run(load);
  }
}

// What waited in the lane chooses anew: it may be on disk by now, or no longer.
void VolumeServer::end_run(Load& load) {
  LoadLane& lane = lane_of(load);
  if (load.abandoned) return end_load(load);
  BC_ASSERT(lane.running > 0);
  --lane.running;
  if (load.blocks_left != 0) {
    continue_load(load);
  } else {
    end_load(load);
  }
  while (lane.running < lane.running_max) {
    Load* next = lane.queued.pop_front();
    if (next == nullptr) return;
    continue_load(*next);
  }
}

void VolumeServer::start_origin_run(Load& load) {
  load.call.failed = false;
  load.call.request_id = load.request_id;
  load.call.fd = load.handle->origin_fd.load(std::memory_order_acquire);
  load.call.offset = run_offset(load);
  load.call.to = run_memory(load);
  load.call.bytes = 0;
  unsigned count = 0;
  for (const Load* each = &load; each != nullptr; each = each->joined) {
    const auto bytes = static_cast<uint32_t>(run_bytes(*each));
    load.pieces[count++] = {.to = run_memory(*each), .bytes = bytes};
    load.call.bytes += bytes;
  }
  load.call.pieces = count == 1 ? std::span<const ReadPiece>() : std::span<const ReadPiece>(load.pieces, count);
  // Of joined loads each is one block, which is its run's last.
  load.call.on_bytes = load.handle->cacheable && count == 1 ? &VolumeServer::on_load_bytes : nullptr;
  load.call.buffer_index =
      options_.registered_buffers ? static_cast<int>(volume().memory->buffer_index(*load.frame)) : -1;
  volume().origin->begin_read(reactor(), load.call);
}

void VolumeServer::on_load_bytes(ReadCall& call, uint32_t bytes_done) {
  Load& load = *static_cast<Load::LoadCall&>(call).load;
  const auto first = static_cast<unsigned>(std::countr_zero(load.blocks_in_run));
  const auto whole = static_cast<unsigned>(bytes_done / limits::block_bytes);
  BC_ASSERT(first + whole < limits::blocks_per_chunk_frame);  // the last byte is not told of
  const uint64_t come = ((uint64_t{1} << whole) - 1) << first & load.blocks_left;
  if (come != 0) load.server->deliver(load, come);
}

// Blocks that came from the origin, to those who wait for them.
void VolumeServer::deliver(Load& load, uint64_t blocks) {
  load.blocks_left &= ~blocks;
  note_tier(load, Tier::origin);
  volume().memory->finish_load(
      reactor(), *load.frame, blocks,
      {.ok = true, .keep = load.handle->cacheable && !load.call.young, .source = static_cast<uint8_t>(Tier::origin)});
}

void VolumeServer::write_behind(Load& load, uint64_t blocks) {
  if (options_.writer == nullptr || !load.handle->cacheable || load.call.young || blocks == 0) return;
  if (disk().packs(load.handle->object_bytes)) return;
  options_.writer->write_blocks(load.handle->object, load.handle->object_bytes, *load.frame, load.frame_offset, blocks,
                                load.blocks_tried & blocks);
}

// When its blocks are in memory: written once all of the object is.
void VolumeServer::write_behind_packed(Load& load) {
  if (options_.writer == nullptr || !load.handle->cacheable || load.call.young) return;
  if (!disk().packs(load.handle->object_bytes)) return;
  options_.writer->write_packed(load.handle->object, load.handle->object_bytes);
}

// A file that was opened by the load: for those that come, unless another load was faster.
void VolumeServer::keep_origin_file(Handle& handle, int fd) {
  int kept = -1;
  if (fd < 0 || handle.origin_fd.compare_exchange_strong(kept, fd, std::memory_order_acq_rel) || kept == fd) return;
  volume().origin->close(reactor(), fd);
}

void VolumeServer::on_load_done(OriginCall& base) {
  const auto& call = static_cast<Load::LoadCall&>(base);
  Load& first = *call.load;
  VolumeServer& self = *first.server;
  self.keep_origin_file(*first.handle, call.fd);
  if (call.failed) {
    self.counters_.add_error(ErrorPlace::load, call.error.code);
  } else {
    self.counters_.origin_reads.add(1);
  }
  for (Load* load = &first; load != nullptr; load = load->joined) self.finish_origin_run(*load, call);
  if (!call.failed) self.write_behind_packed(first);
  Load* next = std::exchange(first.joined, nullptr);
  while (next != nullptr) {
    Load& ended = *next;
    next = std::exchange(ended.joined, nullptr);
    self.end_load(ended);
  }
  self.end_run(first);
}

// What the call that is over means for one of the loads that it was made for.
void VolumeServer::finish_origin_run(Load& load, const ReadCall& call) {
  load.call.young = call.young;
  const uint64_t left = load.blocks_in_run & load.blocks_left;
  BC_ASSERT(left != 0);
  if (!call.failed) {
    const uint64_t bytes = run_bytes(load);
    counters_.origin_bytes.add(bytes);
    if (load.prefetch) counters_.prefetch_bytes[static_cast<unsigned>(Tier::origin)].add(bytes);
    write_behind(load, load.blocks_in_run);
    deliver(load, left);
    return;
  }
  const uint64_t delivered = load.blocks_in_run & ~left;
  counters_.origin_bytes.add(static_cast<unsigned>(std::popcount(delivered)) * limits::block_bytes);
  // Who broke the protocol (an answer longer or shorter than it says) is not believed in what came before either.
  if (call.error.code != Code::protocol) write_behind(load, delivered);
  // What was not tried fails with what was.
  const uint64_t failing = std::exchange(load.blocks_left, 0);
  note_tier(load, Tier::origin);
  volume().memory->finish_load(reactor(), *load.frame, failing,
                               {.error = call.error, .source = static_cast<uint8_t>(Tier::origin)});
}

void VolumeServer::end_load(Load& load) {
  if (load.prefetch) {
    prefetcher_->on_load_ended();
  } else if (volume().prefetch != nullptr) {
    volume().prefetch->budget().end_demand(load.bytes);
  }
  if (load.file != nullptr) disk().release(*load.file);
  load.file = nullptr;
  release_handle(*load.handle);
  load.handle = nullptr;
  load.frame = nullptr;
  loads_.release(load);
  wake_for_room();
}

void VolumeServer::release_handle(Handle& handle) {
  if (!volume().handles.release(handle)) return;
  forget_names(handle);
  while (DiskFile* file = handle.disk_files.take()) disk().release(*file);
  delete handle.prefetch.exchange(nullptr, std::memory_order_acq_rel);
  const int origin_fd = handle.origin_fd.load(std::memory_order_relaxed);
  if (origin_fd >= 0) volume().origin->close(reactor(), origin_fd);
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
