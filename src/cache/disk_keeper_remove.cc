// How things leave the disk: a block that is damaged, a chunk or a segment that is evicted, an object that is removed.
//
//   own file, not armed   blocks out of the index -> reads that were in flight have ended -> punched
//   own file, armed       the kernel reads it past us: only the whole file leaves, by unlink
//   segment               its objects out of the index -> unlink
// After an unlink open descriptors go on reading; the space counts until the last one is closed (DiskSpace::keep).
//
// A write to a block that was evicted a moment ago may be in flight when it is punched. The block is then found not to
// match when it is first read, because written is not verified.
#include <bit>
#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "cache/disk_keeper.h"

namespace blobcache {

namespace {

constexpr unsigned batch_max = 64;
constexpr unsigned reads_patience_ms = 100;

}  // namespace

void DiskKeeper::retire(DiskFile& file, uint64_t leaving_bytes) {
  file.gone.store(true, std::memory_order_seq_cst);
  file.kept_bytes += leaving_bytes;
  unit_.space->keep(leaving_bytes);
  unit_.files.retire(file);
}

// leaving_bytes: of its blocks that were taken out before. Errors: again (pinned).
Result<void> DiskKeeper::remove_object(const ObjectId& id, const DiskView& view, uint64_t leaving_bytes) {
  if (view.pinned) return fail(Code::again);
  if (view.place.packed) return index_.remove(id);
  // Entries before blocks: another disk's keeper may be given the same numbers as soon as they are free.
  for (uint64_t position = 0; position < disk_format::index_chunks_of(view.size); ++position) {
    DiskView chunk;
    if (index_.find(id, position, &chunk)) leaving_bytes += unit_.space->remove(chunk.entry);
  }
  BC_ASSERT(index_.remove(id));
  DiskFile* file = unit_.files.find(id);
  const int root_fd = unit_.directory.root_fd();
  if (unlinkat(root_fd, disk_format::object_path(id).c_str(), 0) != 0 && errno != ENOENT) unit_.on_write_error(errno);
  unlinkat(root_fd, disk_format::sidecar_path(id).c_str(), 0);
  if (file == nullptr) {
    unit_.space->settle(leaving_bytes);
  } else {
    retire(*file, leaving_bytes);
    unit_.files.release(*file);
  }
  return {};
}

Result<void> DiskKeeper::remove_damaged(const ObjectId& id, const DiskView& view) {
  if (view.pinned) lose_pin(id, view);
  DiskView unpinned = view;
  unpinned.pinned = false;
  return remove_object(id, unpinned, 0);
}

Result<void> DiskKeeper::run_remove(const DiskRemoveJob& job) {
  DiskView view;
  if (!index_.find(job.id, 0, &view) || view.place.disk != unit_.number) return fail(Code::not_found);
  const Result<void> removed = job.damaged ? remove_damaged(job.id, view) : remove_object(job.id, view, 0);
  close_files();
  return removed;
}

// A reader, the verifier and another reader may all have met the same block. The first one's wish drops it; by the second's turn
// the block may have been written anew, and is what it should be.
Result<void> DiskKeeper::run_drop(const ObjectId& id, uint64_t position, uint64_t blocks, uint64_t drops_seen) {
  DiskView view;
  if (!index_.find(id, position, &view) || view.place.disk != unit_.number) return fail(Code::not_found);
  blocks &= view.valid & ~dropped_since(id, position, drops_seen);
  if (blocks == 0) return {};
  unit_.counters.corrupt_blocks.fetch_add(static_cast<uint64_t>(std::popcount(blocks)), std::memory_order_relaxed);
  const Result<void> done = drop(id, view, position, blocks);
  const uint64_t number = drops_done_.load(std::memory_order_relaxed) + 1;
  dropped_[number % dropped_.size()] = {.id = id, .position = position, .blocks = blocks, .number = number};
  // After the reads that may have found it have ended (punch): each of them noted an earlier number.
  drops_done_.store(number, std::memory_order_release);
  return done;
}

uint64_t DiskKeeper::dropped_since(const ObjectId& id, uint64_t position, uint64_t drops_seen) const {
  uint64_t blocks = 0;
  for (const Dropped& each : dropped_) {
    if (each.number > drops_seen && each.id == id && each.position == position) blocks |= each.blocks;
  }
  return blocks;
}

Result<void> DiskKeeper::drop(const ObjectId& id, const DiskView& view, uint64_t position, uint64_t blocks) {
  DiskFile* file = view.place.packed ? nullptr : unit_.files.find(id);
  const bool armed = file != nullptr && file->armed.load(std::memory_order_seq_cst) > 0;
  Result<void> done;
  if (view.place.packed || armed) {
    done = remove_damaged(id, view);
  } else {
    const uint64_t bytes = disk_format::bytes_of_blocks(view.size, position, blocks);
    if (blocks == view.valid)
      unit_.space->remove(view.entry);
    else
      unit_.space->shrink(view.entry, bytes);
    BC_ASSERT(index_.drop_blocks(id, position, blocks));
    if (file != nullptr) on_chunk_changed(*file, position, view.valid, view.valid & ~blocks);
    punch({{.id = id, .position = position, .blocks = blocks, .bytes = bytes}});
  }
  if (file != nullptr) unit_.files.release(*file);
  close_files();
  return done;
}

// What is punched has left the index.
void DiskKeeper::punch(const std::vector<Punch>& punches) {
  if (punches.empty()) return;
  bool ended = false;
  DiskReads::Wait wait;
  uint64_t reads_ended = shared_.reads->ended(unit_.number);
  while (!ended && !thread_.stopping()) {
    ended = shared_.reads->wait(unit_.number, reads_patience_ms, wait);
    // A disk on which reads end is slow and does not hang.
    if (const uint64_t now = shared_.reads->ended(unit_.number); std::exchange(reads_ended, now) != now)
      thread_.begin_work();
  }
  for (const Punch& piece : punches) {
    DiskView view;
    const bool known = index_.find(piece.id, 0, &view);
    if (known && view.empty && remove_object(piece.id, view, piece.bytes)) continue;
    // Stopped while a read hangs: the space comes back with the object's end.
    if (ended && known) punch_file(piece, view.size);
    unit_.space->settle(piece.bytes);
  }
}

void DiskKeeper::punch_file(const Punch& piece, uint64_t object_bytes) {
  const Result<DiskFile*> file = open_own(piece.id, object_bytes);
  if (!file) return;
  thread_.begin_work();
  BC_ASSERT((*file)->armed.load(std::memory_order_seq_cst) == 0);
  for (uint64_t left = piece.blocks; left != 0;) {
    const auto first = static_cast<unsigned>(std::countr_zero(left));
    const auto count = static_cast<unsigned>(std::countr_one(left >> first));
    const uint64_t offset = piece.position * disk_format::index_chunk_bytes + first * limits::block_bytes;
    if (fallocate((*file)->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                  static_cast<off_t>(count * limits::block_bytes)) != 0)
      unit_.on_write_error(errno);
    left = first + count == limits::blocks_per_chunk_frame ? 0 : left >> (first + count) << (first + count);
  }
  (*file)->dirty = true;
  unit_.files.release(**file);
}

bool DiskKeeper::try_evict(uint32_t entry, bool desperate, std::vector<Punch>* punches) {
  if (entry >= index_.entries_count()) {
    const uint32_t number = segment_numbers_[entry - index_.entries_count() - unit_.number * shared_.segments_max];
    return (desperate || !is_active(number)) && remove_segments({number}) == 1;
  }
  ObjectId id;
  uint64_t position = 0;
  DiskView view;
  BC_ASSERT(index_.key_of(entry, &id, &position) && index_.find(id, position, &view) && view.entry == entry);
  if (view.pinned) return false;
  DiskFile* file = unit_.files.find(id);
  const bool armed = file != nullptr && file->armed.load(std::memory_order_seq_cst) > 0;
  bool evicted = !armed;
  if (armed) {
    evicted = desperate && remove_object(id, view, 0).has_value();
  } else {
    const uint64_t bytes = unit_.space->bytes_of(entry);
    unit_.space->evict(entry, chunk_hash(id, position));
    BC_ASSERT(index_.drop_blocks(id, position, view.valid));
    if (file != nullptr) on_chunk_changed(*file, position, view.valid, 0);
    punches->push_back({.id = id, .position = position, .blocks = view.valid, .bytes = bytes});
  }
  if (file != nullptr) unit_.files.release(*file);
  return evicted;
}

// A piece of the eviction that is due. Armed files, segments that are being written and what is pinned are passed over;
// the first two only as long as what is used is below the limit.
bool DiskKeeper::evict() {
  DiskSpace& space = *unit_.space;
  if (!space.wants_room()) return false;
  const uint64_t used_before = space.entries_bytes();
  std::vector<Punch> punches;
  bool desperate = false;
  unsigned evicted = 0;
  unsigned refused = 0;
  while (evicted < batch_max && space.bytes_too_many(desperate) > 0) {
    thread_.begin_work();
    const uint32_t entry = space.victim();
    if (entry == Eviction::none) break;
    if (try_evict(entry, desperate, &punches)) {
      ++evicted;
      refused = 0;
      continue;
    }
    space.refuse(entry);
    if (++refused < Eviction::refusals_max) continue;
    if (desperate) break;
    desperate = true;
    refused = 0;
  }
  unit_.counters.evicted_bytes.fetch_add(used_before - space.entries_bytes(), std::memory_order_relaxed);
  punch(punches);
  close_files();
  if (evicted == batch_max) return true;
  space.stop_wanting();
  return false;
}

}  // namespace blobcache
