// Pins: what somebody said must stay on this disk, whatever else is read.
//
//   file of its own   its chunks are held in eviction, those that come later as they come. It counts with its whole size, so
//                     that one that was pinned before it was read is not refused its end
//   packed            its segment is held, with all that lies in it, and counts with all of its bytes
//   not here          an object that would have a file of its own is made known, without blocks; a smaller one is awaited:
//                     pinned by the job that tells of it
//
// Pinned first and read then: a model that is read into a full cache is new, and what is new leaves first; its beginning would
// be gone before its end has come.
//
// What is damaged leaves all the same, and is awaited. What is awaited is known to this process alone. Only this thread
// changes pins, so what it has just looked at holds.
#include "base/log.h"
#include "cache/disk_keeper.h"

namespace blobcache {

using disk_format::index_chunks_of;
using disk_format::round_up_to_page;

namespace {

constexpr size_t awaited_max = 65'536;  // some 4 MiB

}  // namespace

uint64_t DiskKeeper::pinned_bytes() const {
  const DiskCounters& counters = unit_.counters;
  return counters.pinned_own_bytes.load(std::memory_order_relaxed) +
         counters.pinned_segment_bytes.load(std::memory_order_relaxed) + awaited_bytes_;
}

// What a pin of the object would add.
uint64_t DiskKeeper::bytes_to_pin(const DiskView& view) const {
  if (!view.place.packed) return round_up_to_page(view.size);
  if (index_.pinned_in_segment(unit_.number, view.place.segment) > 0) return 0;
  return unit_.space->bytes_of(shared_.segment_entry(unit_.number, view.place.segment));
}

Result<void> DiskKeeper::run_pin(DiskPinJob& job) {
  job.pinned_bytes = pinned_bytes();
  job.pinned_bytes_max = unit_.space->pinned_bytes_max();
  if (job.object_bytes == 0 || job.object_bytes > disk_format::object_bytes_max) return fail(Code::invalid);
  DiskView view;
  const bool known = index_.find(job.id, 0, &view);
  if (known && (view.place.disk != unit_.number || view.size != job.object_bytes)) return fail(Code::invalid);
  job.was_pinned = known ? view.pinned : awaited_.contains(job.id);
  if (job.was_pinned) return {};
  if (unit_.health->state() != DiskState::ok) return fail(Code::io);
  const bool packs = !known && job.object_bytes < shared_.cache.chunk_bytes;
  job.wanted_bytes = known   ? bytes_to_pin(view)
                     : packs ? disk_format::packed_pages(job.object_bytes) * limits::page_bytes
                             : round_up_to_page(job.object_bytes);
  if (job.pinned_bytes + job.wanted_bytes > job.pinned_bytes_max) return fail(Code::full);
  if (packs && !await(job.id, job.wanted_bytes)) return fail(Code::again);
  if (!known && !packs) {
    DiskCreateJob create;
    create.id = job.id;
    create.object_bytes = job.object_bytes;
    const Result<void> created = run_create(create);
    if (!created) return created;
    unit_.files.release(*create.file);
  }
  if (const Result<void> pinned = packs ? Result<void>() : pin(job.id); !pinned) return pinned;
  // What is to come finds its room: a write that is refused would be left out until somebody reads it again.
  const uint64_t held = unit_.space->held_bytes();
  if (const uint64_t all = pinned_bytes(); all > held) unit_.space->want_room(all - held);
  if (packs) return {};
  const Result<void> told = tell_of_pins();
  if (!told && index_.find(job.id, 0, &view)) unpin(job.id, view);
  return told;
}

// What was answered outlives this process.
Result<void> DiskKeeper::tell_of_pins() {
  const Result<void> flushed = unit_.journal->flush();
  if (!flushed) unit_.on_write_error(flushed.error().os_errno);
  if (flushed && !unit_.journal->durable()) return fail(Code::io);
  return flushed;
}

// The object is known and lies here.
Result<void> DiskKeeper::pin(const ObjectId& id) {
  DiskView view;
  BC_ASSERT(index_.find(id, 0, &view) && !view.pinned);
  const uint64_t bytes = bytes_to_pin(view);
  const Result<void> pinned = index_.pin(id);
  if (!pinned) return pinned;
  if (view.place.packed) {
    unit_.space->hold(shared_.segment_entry(unit_.number, view.place.segment));
    unit_.counters.pinned_segment_bytes.fetch_add(bytes, std::memory_order_relaxed);
    return {};
  }
  unit_.counters.pinned_own_bytes.fetch_add(bytes, std::memory_order_relaxed);
  for (uint64_t position = 0; position < index_chunks_of(view.size); ++position) {
    thread_.begin_work();
    DiskView chunk;
    if (index_.find(id, position, &chunk)) unit_.space->hold(chunk.entry);
  }
  return {};
}

void DiskKeeper::unpin(const ObjectId& id, const DiskView& view) {
  BC_ASSERT(view.pinned && index_.unpin(id));
  const uint64_t bytes = bytes_to_pin(view);
  if (view.place.packed) {
    if (bytes == 0) return;  // others in it are pinned
    unit_.space->let_go(shared_.segment_entry(unit_.number, view.place.segment));
    BC_ASSERT(unit_.counters.pinned_segment_bytes.fetch_sub(bytes, std::memory_order_relaxed) >= bytes);
    return;
  }
  BC_ASSERT(unit_.counters.pinned_own_bytes.fetch_sub(bytes, std::memory_order_relaxed) >= bytes);
  for (uint64_t position = 0; position < index_chunks_of(view.size); ++position) {
    thread_.begin_work();
    DiskView chunk;
    if (index_.find(id, position, &chunk)) unit_.space->let_go(chunk.entry);
  }
}

Result<void> DiskKeeper::run_unpin(DiskUnpinJob& job) {
  if (!job.id.is_null()) {
    const bool awaited = stop_awaiting(job.id);
    DiskView view;
    const bool here = index_.find(job.id, 0, &view) && view.place.disk == unit_.number;
    const bool pinned = here && view.pinned;
    if (pinned) unpin(job.id, view);
    job.unpinned = pinned || awaited ? 1 : 0;
    // One that was unpinned before may not have been told yet.
    return here ? tell_of_pins() : Result<void>();
  }
  job.unpinned = awaited_.size();
  awaited_.clear();
  awaited_bytes_ = 0;
  unit_.counters.pins_awaited.store(0, std::memory_order_relaxed);
  DiskCursor cursor;
  std::vector<DiskEntry> entries;
  while (index_.copy_entries(unit_.number, &cursor, &entries)) {
    for (const DiskEntry& entry : entries) {
      DiskView view;
      if (entry.position != 0 || !entry.pinned || !index_.find(entry.id, 0, &view) || !view.pinned) continue;
      unpin(entry.id, view);
      ++job.unpinned;
    }
  }
  return tell_of_pins();
}

// ---- what is awaited ----

bool DiskKeeper::await(const ObjectId& id, uint64_t bytes) {
  if (awaited_.size() >= awaited_max || !awaited_.emplace(id, bytes).second) return false;
  awaited_bytes_ += bytes;
  unit_.counters.pins_awaited.store(awaited_.size(), std::memory_order_relaxed);
  return true;
}

bool DiskKeeper::stop_awaiting(const ObjectId& id) {
  const auto found = awaited_.find(id);
  if (found == awaited_.end()) return false;
  awaited_bytes_ -= found->second;
  awaited_.erase(found);
  unit_.counters.pins_awaited.store(awaited_.size(), std::memory_order_relaxed);
  return true;
}

// It has come. A segment is larger than the object in it, so there may be no room for it after all.
void DiskKeeper::pin_if_awaited(const ObjectId& id) {
  DiskView view;
  // Not there after all: it is still awaited.
  if (awaited_.empty() || !index_.find(id, 0, &view) || view.place.disk != unit_.number) return;
  if (!stop_awaiting(id) || view.pinned) return;
  if (pinned_bytes() + bytes_to_pin(view) > unit_.space->pinned_bytes_max()) {
    BC_LOG(warn, "{}: object {} is not pinned: that would be more than {} bytes", unit_.directory.path(), to_hex(id),
           unit_.space->pinned_bytes_max());
    return;
  }
  std::ignore = pin(id);
}

// What is no good does not stay, whoever pinned it. Its segment's entry is still there.
void DiskKeeper::lose_pin(const ObjectId& id, const DiskView& view) {
  unpin(id, view);
  BC_LOG(warn, "{}: pinned object {} is damaged and leaves; it is pinned again when it is read", unit_.directory.path(),
         to_hex(id));
  std::ignore = await(id, round_up_to_page(view.size));
}

// ---- the start ----

// Of a file of its own. entry: in the index with its pin; its blocks have been added.
void DiskKeeper::add_known_pin(const DiskEntry& entry) {
  unit_.space->hold(entry.entry);
  if (entry.position == 0)
    unit_.counters.pinned_own_bytes.fetch_add(round_up_to_page(entry.size), std::memory_order_relaxed);
}

}  // namespace blobcache
