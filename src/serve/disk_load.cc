// Loads from disk: a run of valid blocks goes from the object's file into its frame, and is checked there.
//
//   find --file not open--> DiskOpenJob --> find
//     '--> data READ, and if a block is not verified in this boot, its checksum page beside it
//            '--> all match: valid in the frame, verified in the index
//            |--> some do not: these leave the index (DiskDropJob), and the load goes on at the origin
//            |--> the file lost its end: the object leaves the disk, and then the load goes on at the origin. Dropping blocks
//            |    would not do: writing one of them anew makes the file long again, with zeros where others are gone too
//            '--> error: the disk is told, and the load goes on at the origin
//
// Blocks that were tried are not tried again by the same load. The reader notices nothing but time.
//
// A sidecar page may be read while the keeper writes it, and then be half of each; so one that does not check is read again
// before it is believed to be damaged. The index is asked and marked between DiskReads::enter and leave, so the blocks that
// are marked are the ones that were read.
#include <algorithm>
#include <bit>
#include <cerrno>

#include "base/log.h"
#include "cache/disk_check.h"
#include "serve/volume_server.h"

namespace blobcache::serve {
namespace {

constexpr unsigned page_reads_max = 3;

}  // namespace

// Of the load's blocks, as bits of the frame.
uint64_t VolumeServer::blocks_on_disk(Load& load) {
  if (volume().disk == nullptr || !load.handle->cacheable || load.past_disk) return 0;
  DiskView view;
  if (!disk().find(load.handle->object, load.position(), &view)) return 0;
  return (view.valid >> load.shift()) & load.blocks_left & ~load.blocks_tried;
}

uint64_t VolumeServer::run_bytes(const Load& load) const {
  const auto first = static_cast<unsigned>(std::countr_zero(load.blocks_in_run));
  const auto count = static_cast<unsigned>(std::popcount(load.blocks_in_run));
  const uint64_t offset = load.frame_offset + first * limits::block_bytes;
  return std::min<uint64_t>(count * limits::block_bytes, load.handle->object_bytes - offset);
}

void VolumeServer::start_disk_run(Load& load) {
  DiskView view;
  if (!disk().find(load.handle->object, load.position(), &view)) return finish_disk_run(load, 0, false);
  if (load.file != nullptr && !leads_to(view, load.handle->object, *load.file)) {
    disk().release(*load.file);
    load.file = nullptr;
  }
  if (load.file == nullptr) load.file = file_for(*load.handle, view);
  if (load.file == nullptr) {
    if (load.open_tried) return finish_disk_run(load, 0, false);
    load.view = view;
    return begin_open_file(load);
  }
  load.phase = static_cast<uint8_t>(disk().reads().enter(reactor().core(), load.file->disk));
  if (!find_run(load)) {
    disk().reads().leave(reactor().core(), load.file->disk, load.phase);
    return finish_disk_run(load, 0, false);
  }
  submit_disk_run(load);
}

// Between enter and leave.
bool VolumeServer::find_run(Load& load) {
  const Handle& handle = *load.handle;
  if (!disk().find(handle.object, load.position(), &load.view)) return false;
  if (load.view.size != handle.object_bytes || !leads_to(load.view, handle.object, *load.file)) return false;
  if ((load.blocks_in_run & ~(load.view.valid >> load.shift())) != 0) return false;
  return !load.file->gone.load(std::memory_order_acquire);
}

// With a reference; null: it has to be opened.
DiskFile* VolumeServer::file_for(Handle& handle, const DiskView& view) {
  DiskFile* file = handle.disk_files.current();
  if (file != nullptr && leads_to(view, handle.object, *file) && !file->gone.load(std::memory_order_acquire)) {
    disk().reference(*file);
    return file;
  }
  file = disk().try_file(handle.object, view);
  if (file != nullptr) remember_disk_file(handle, *file);
  return file;
}

void VolumeServer::begin_open_file(Load& load) {
  load.open_tried = true;
  load.open_job.id = load.handle->object;
  load.open_job.file = nullptr;
  load.open_job.backing_id = -1;
  post_job(load.open_job, load.view.place.disk);
}

void VolumeServer::on_file_open(DiskJob& job) {
  Load& load = *static_cast<Load::OpenJob&>(job).load;
  VolumeServer& self = *load.server;
  if (job.failed || load.abandoned) {
    load.file = job.failed ? nullptr : load.open_job.file;
    self.finish_disk_run(load, 0, false);
  } else {
    load.file = load.open_job.file;
    self.remember_disk_file(*load.handle, *load.file);
    self.start_disk_run(load);
  }
  self.end_job();
}

// For a chain of reads of which none waits for anything: all of the load in one run, verified, of a file that is open, and
// not at the ragged end of one, where a read is short by nature. True: it is as start_disk_run leaves it before it submits.
bool VolumeServer::try_enter_chain(Load& load) {
  choose_run(load);
  if (!load.from_disk || load.blocks_in_run != load.blocks_left || disk().verify_always()) return false;
  DiskView view;
  if (!disk().find(load.handle->object, load.position(), &view)) return false;
  load.file = file_for(*load.handle, view);
  if (load.file == nullptr) return false;
  load.phase = static_cast<uint8_t>(disk().reads().enter(reactor().core(), load.file->disk));
  const uint64_t bytes = static_cast<unsigned>(std::popcount(load.blocks_in_run)) * limits::block_bytes;
  const bool fits = find_run(load) && (load.blocks_in_run & ~(load.view.verified >> load.shift())) == 0 &&
                    (load.view.place.packed || run_bytes(load) == bytes);
  if (!fits) {
    disk().reads().leave(reactor().core(), load.file->disk, load.phase);
    return false;
  }
  ++prefetch_lane_.running;
  begin_disk_run(load);
  return load.chained = true;
}

void VolumeServer::submit_disk_run(Load& load) {
  const uint64_t verified = disk().verify_always() ? 0 : load.view.verified >> load.shift();
  if ((load.blocks_in_run & ~verified) == 0) {
    submit_disk_run_data(load);
    return;
  }
  load.page = checksum_pages_.try_acquire();
  if (load.page == nullptr) {  // there are as many as runs: those of abandoned loads have the rest
    disk().reads().leave(reactor().core(), load.file->disk, load.phase);
    return finish_disk_run(load, 0, false);
  }
  submit_disk_run_data(load);
  load.page_reads = 0;
  submit_checksums(load);
}

Sqe& VolumeServer::submit_disk_run_data(Load& load) {
  const auto first = static_cast<unsigned>(std::countr_zero(load.blocks_in_run));
  const ReadRange range{.offset = load.frame_offset + first * limits::block_bytes,
                        .bytes = static_cast<uint32_t>(run_bytes(load))};
  // The frame has room up to the end of the last block, whatever the object's end is.
  const DirectRead direct = direct_read(load.view.place, load.handle->object_bytes, range, limits::page_bytes);
  std::byte* to = volume().memory->frame_bytes(*load.frame) + first * limits::block_bytes;
  Sqe& sqe = reactor().prepare(load.data);
  if (options_.registered_buffers) {
    prep_read_fixed(sqe, FileRef::fd(load.file->fd), to, direct.at, volume().memory->buffer_index(*load.frame));
  } else {
    prep_read(sqe, FileRef::fd(load.file->fd), to, direct.at);
  }
  if (load.prefetch) set_low_priority(sqe);
  return sqe;
}

void VolumeServer::submit_checksums(Load& load) {
  const ChecksumPlace place = checksum_place(*load.file, load.view.place, load.position());
  ++load.page_reads;
  prep_read(reactor().prepare(load.sums), FileRef::fd(place.fd), load.page->bytes,
            {.offset = place.offset, .bytes = limits::page_bytes});
}

void VolumeServer::on_disk_load_read(Op& op, int32_t result, uint32_t) {
  auto& read = static_cast<Load::Read&>(op);
  Load& load = *read.load;
  read.result = result;
  if (load.data.cqes_owed + load.sums.cqes_owed == 0) load.server->on_disk_run_read(load);
}

void VolumeServer::on_disk_run_read(Load& load) {
  const unsigned disk_number = load.file->disk;
  if (load.chained) chain_moved_ns_ = now_ns();
  if (load.chained && load.data.result == -ECANCELED) {
    // Another member of the chain failed: this one is read by itself.
    load.chained = false;
    disk().reads().leave(reactor().core(), disk_number, load.phase);
    counters_.prefetch_chains_broken.add(1);
    if (load.abandoned) return finish_disk_run(load, 0, false);
    load.run_since_ns = now_ns();
    return start_disk_run(load);
  }
  const bool checked = load.page != nullptr;
  uint64_t good = 0;
  int os_errno = 0;
  if (load.data.result < 0) os_errno = -load.data.result;
  if (checked && load.sums.result < 0) os_errno = -load.sums.result;
  // A short result is damage of the file, not of the disk.
  const bool cut = os_errno == 0 && static_cast<uint64_t>(load.data.result) < run_bytes(load);
  const bool complete = !cut && (!checked || load.sums.result == static_cast<int32_t>(limits::page_bytes));
  if (os_errno == 0 && complete) {
    good = load.blocks_in_run;
    if (checked) {
      const auto first = static_cast<unsigned>(std::countr_zero(load.blocks_in_run));
      const BlockCheckResult result =
          check_blocks({.id = load.handle->object,
                        .object_bytes = load.handle->object_bytes,
                        .place = load.view.place,
                        .position = load.position(),
                        .page = load.page->bytes,
                        .blocks = load.blocks_in_run << load.shift(),
                        .bytes = volume().memory->frame_bytes(*load.frame) + first * limits::block_bytes,
                        .bytes_read = run_bytes(load)});
      if (!result.page_good && load.page_reads < page_reads_max) return submit_checksums(load);
      good = result.matching >> load.shift();
      const uint64_t matched = result.matching & ~load.view.verified;
      if (matched != 0) disk().mark_verified(load.handle->object, load.position(), matched);
    }
  }
  load.drops_seen = disk().drops_done(disk_number);
  disk().reads().leave(reactor().core(), disk_number, load.phase);
  if (os_errno != 0) disk().on_read_error(disk_number, os_errno);
  if (cut) return begin_remove(load);
  finish_disk_run(load, good, os_errno == 0);
}

// good: of the run's blocks, those that are in the frame now. The others are tried; drop: because they are damaged.
void VolumeServer::finish_disk_run(Load& load, uint64_t good, bool drop) {
  end_disk_run(load);
  const uint64_t bad = load.blocks_in_run & ~good;
  if (load.page != nullptr) {
    checksum_pages_.release(*load.page);
    load.page = nullptr;
  }
  load.blocks_tried |= bad;
  if (bad != 0 && drop) drop_blocks(load, bad);
  if (load.abandoned) {  // nobody waits, and nobody finds the frame
    volume().memory->finish_load(reactor(), *load.frame, load.blocks_left, {.error = Error{Code::timeout}});
    return end_run(load);
  }
  load.blocks_left &= ~good;
  note_tier(load, Tier::disk);
  if (good != 0) {
    if (load.prefetch) {
      const auto first = static_cast<unsigned>(std::countr_zero(good));
      const uint64_t rest = load.handle->object_bytes - load.frame_offset - first * limits::block_bytes;
      const uint64_t bytes = static_cast<unsigned>(std::popcount(good)) * limits::block_bytes;
      counters_.prefetch_bytes[static_cast<unsigned>(Tier::disk)].add(std::min(bytes, rest));
    }
    volume().memory->finish_load(reactor(), *load.frame, good,
                                 {.ok = true, .source = static_cast<uint8_t>(Tier::disk)});
  }
  end_run(load);
}

void VolumeServer::drop_blocks(Load& load, uint64_t blocks) {
  BC_LOG_REQUEST(warn, load.request_id, "{}: {} blocks of '{}' are damaged on disk {}; they come from the origin again",
                 volume().config.name, std::popcount(blocks), load.handle->key, load.file->disk);
  DropJob* job = drop_jobs_.try_acquire();
  if (job == nullptr) return;
  job->server = this;
  job->id = load.handle->object;
  job->position = load.position();
  job->blocks = blocks << load.shift();
  job->drops_seen = load.drops_seen;
  job->on_done = [](DiskJob& done) {
    auto& self = static_cast<DropJob&>(done);
    VolumeServer& server = *self.server;
    server.drop_jobs_.release(self);
    server.end_job();
  };
  post_job(*job, load.file->disk);
}

void VolumeServer::begin_remove(Load& load) {
  disk().on_corrupt(load.file->disk, static_cast<unsigned>(std::popcount(load.blocks_in_run)));
  BC_LOG(warn, "{}: the file of '{}' on disk {} lost its end; the object comes from the origin again",
         volume().config.name, load.handle->key, load.file->disk);
  load.blocks_tried = ~uint64_t{0};
  load.remove_job.id = load.handle->object;
  load.remove_job.damaged = true;
  post_job(load.remove_job, load.file->disk);
}

// Or somebody else removed it first.
void VolumeServer::on_removed(DiskJob& job) {
  Load& load = *static_cast<Load::RemoveJob&>(job).load;
  VolumeServer& self = *load.server;
  self.finish_disk_run(load, 0, false);
  self.end_job();
}

void VolumeServer::post_job(DiskJob& job, unsigned disk_number) {
  job.disk = static_cast<uint8_t>(disk_number);
  job.failed = false;
  ++disk_jobs_;
  disk().post(reactor(), job);
}

// Every on_done calls this last.
void VolumeServer::end_job() {
  BC_ASSERT(disk_jobs_ > 0);
  --disk_jobs_;
  become_idle_if_done();
}

}  // namespace blobcache::serve
