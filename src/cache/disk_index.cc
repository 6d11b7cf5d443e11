// Why it looks so: a million chunks must fit in 64 MB, most objects of image data sets have one chunk, models have
// thousands. So an object is 56 bytes with its first chunk inside, and further chunks are items of their own, made when
// they get a block. A sparse object costs what is cached of it.
//
// The identity of a file (inode, size, times, boot) is one hash of 8 bytes, the stamp, in the place where a packed object
// has its segment. It is compared when the tier opens the file, never at start: a million stat calls are minutes on a
// cold disk. Until then marks are hidden, and new ones refused, so old and new marks never mix.
//
// Locks and not the lock-free reads of FrameIndex: what follows a find() here is a disk read of 10 us and more, and an
// uncontended exchange is 20 ns.
#include "cache/disk_index.h"

#include <mutex>

#include "cache/disk_index_chunks.h"
#include "cache/disk_log.h"

namespace blobcache {

using disk_format::blocks_mask;
using disk_format::index_chunks_of;
using Guard = std::lock_guard<Spinlock>;

Result<void> DiskIndex::allocate(const DiskIndexOptions& options) {
  BC_ASSERT(disks_ == nullptr && options.disk_count >= 1 && options.disk_count <= disks_max);
  if (!objects_.allocate(options.objects_max) || !chunks_.allocate(options.chunks_max)) return fail(Code::again);
  for (unsigned i = 0; i < stripe_count; ++i) {
    stripes_[i].objects = objects_.part(i);
    stripes_[i].chunks = chunks_.part(i);
  }
  disks_ = std::make_unique<Disk[]>(options.disk_count);
  disk_count_ = options.disk_count;
  segments_max_ = options.segments_max;
  objects_max_ = options.objects_max;
  chunks_max_ = options.chunks_max;
  for (unsigned disk = 0; disk < disk_count_; ++disk)
    disks_[disk].segments = std::make_unique_for_overwrite<Segment[]>(segments_max_);
  return {};
}

void DiskIndex::attach(unsigned disk, DiskLog* log) {
  BC_ASSERT(disk < disk_count_);
  disks_[disk].log = log;
}

uint32_t DiskIndex::find_object(const ObjectId& id) const {
  return objects_.find(stripes_[stripe_of(id)].objects, id.hash(),
                       [&](const DiskObject& object) { return object.id == id; });
}

uint32_t DiskIndex::find_chunk(uint32_t owner, uint64_t position) const {
  return chunks_.find(stripes_[stripe_of(objects_[owner].id)].chunks, DiskChunk::hash_of(owner, position),
                      [&](const DiskChunk& chunk) { return chunk.owner == owner && chunk.position == position; });
}

DiskIndex::Blocks DiskIndex::blocks_of(uint32_t slot, uint64_t position) const {
  if (position == 0) return {objects_[slot].valid, objects_[slot].verified};
  const uint32_t chunk = objects_[slot].chunks == 0 ? disk_slot_none : find_chunk(slot, position);
  return chunk == disk_slot_none ? Blocks{} : Blocks{chunks_[chunk].valid, chunks_[chunk].verified};
}

Result<void> DiskIndex::set_blocks(uint32_t slot, uint64_t position, Blocks blocks) {
  DiskObject& object = objects_[slot];
  const uint64_t all = blocks_mask(object.size, position);
  BC_ASSERT((blocks.valid & ~all) == 0 && (blocks.verified & ~blocks.valid) == 0);
  const bool was_verified = blocks_of(slot, position).verified == all;
  if (position == 0) {
    object.valid = blocks.valid;
    object.verified = blocks.verified;
    if (blocks.valid == 0) object.frequency = 0;
  } else {
    uint32_t chunk = find_chunk(slot, position);
    if (chunk == disk_slot_none && blocks.valid != 0) {
      chunk = chunks_.acquire();
      if (chunk == disk_slot_none) return fail(Code::full);
      chunks_[chunk] = {.valid = 0,
                        .verified = 0,
                        .owner = slot,
                        .position = static_cast<uint32_t>(position) & 0xffffff,
                        .frequency = 0};
      chunks_.link(stripe_with(slot).chunks, chunk);
      object.add_chunks(1);
    }
    if (chunk != disk_slot_none) {
      chunks_[chunk].valid = blocks.valid;
      chunks_[chunk].verified = blocks.verified;
      if (blocks.valid == 0) {
        chunks_.unlink(stripe_with(slot).chunks, chunk);
        chunks_.release(chunk);
        object.add_chunks(-1);
      }
    }
  }
  const bool is_verified = blocks.verified == all;
  object.add_chunks_verified(is_verified - was_verified);
  return {};
}

// A packed object follows its segment, once that is known.
void DiskIndex::settle_packed(uint32_t slot) {
  DiskObject& object = objects_[slot];
  if (object.confirmed || !object.packed) return;
  Confirm confirmed = Confirm::unknown;
  {
    const Disk& disk = disks_[object.disk];
    const Guard guard(disk.lock);
    const Segment* segment = find_segment(disk, disk_format::segment_of(object.place));
    if (segment != nullptr) confirmed = segment->confirmed;
  }
  if (confirmed == Confirm::unknown) return;
  object.confirmed = 1;
  if (confirmed == Confirm::same) return;
  for (uint64_t position = 0; position < index_chunks_of(object.size); ++position) {
    const Blocks blocks = blocks_of(slot, position);
    if (blocks.verified == 0) continue;
    BC_ASSERT(set_blocks(slot, position, {.valid = blocks.valid, .verified = 0}));
    log_blocks(slot, position);
  }
}

bool DiskIndex::find(const ObjectId& id, uint64_t position, DiskView* view_out) {
  objects_.prefetch(stripe_of(id), id.hash());
  const Guard guard(stripes_[stripe_of(id)].lock);
  const uint32_t slot = find_object(id);
  if (slot == disk_slot_none) return false;
  settle_packed(slot);
  const DiskObject& object = objects_[slot];
  const uint64_t chunks = index_chunks_of(object.size);
  Blocks blocks;
  uint32_t entry = disk_slot_none;
  if (position == 0) {
    blocks = {object.valid, object.verified};
    entry = slot;
  } else if (const uint32_t chunk = object.chunks == 0 ? disk_slot_none : find_chunk(slot, position);
             chunk != disk_slot_none) {
    blocks = {chunks_[chunk].valid, chunks_[chunk].verified};
    entry = objects_max_ + chunk;
  }
  *view_out = {.size = object.size,
               .place = {.disk = static_cast<uint8_t>(object.disk), .packed = object.packed != 0},
               .valid = blocks.valid,
               .verified = object.confirmed ? blocks.verified : 0,
               .confirmed = object.confirmed != 0,
               .whole = object.whole != 0,
               .whole_verified = object.confirmed && object.chunks_verified == chunks,
               .pinned = object.pinned != 0,
               .empty = object.valid == 0 && object.chunks == 0,
               .entry = blocks.valid == 0 ? disk_slot_none : entry};
  if (object.packed) {
    view_out->place.segment = disk_format::segment_of(object.place);
    view_out->place.page = disk_format::page_of(object.place);
  }
  return true;
}

// On success *slot_out is linked; nothing is logged.
Result<void> DiskIndex::add_locked(const NewObject& object, uint64_t place, uint32_t* slot_out) {
  if (object.id.is_null() || object.place.disk >= disk_count_) return fail(Code::invalid);
  if (object.size == 0 || object.size > disk_format::object_bytes_max) return fail(Code::invalid);
  Disk& disk = disks_[object.place.disk];
  if (object.place.packed) {
    if (object.size > disk_format::packed_bytes_max) return fail(Code::invalid);
    const uint64_t pages_end = disk_format::page_of(place) + disk_format::packed_pages(object.size);
    if (pages_end > uint64_t{1} << 32) return fail(Code::invalid);
    const Guard guard(disk.lock);
    if (find_segment(disk, disk_format::segment_of(place)) == nullptr) return fail(Code::invalid);
  }
  const uint32_t slot = objects_.acquire();
  if (slot == disk_slot_none) return fail(Code::full);
  if (object.place.packed) {
    const Guard guard(disk.lock);
    Segment* segment = find_segment(disk, disk_format::segment_of(place));
    if (segment == nullptr) {  // removed in between
      objects_.release(slot);
      return fail(Code::invalid);
    }
    ++segment->objects;
  }
  objects_[slot] = {};
  objects_[slot].id = object.id;
  objects_[slot].size = object.size & (disk_format::object_bytes_max * 2 - 1);
  objects_[slot].disk = object.place.disk & (disks_max - 1);
  objects_[slot].packed = object.place.packed;
  objects_[slot].place = place;
  objects_.link(stripe_with(slot).objects, slot);
  *slot_out = slot;
  return {};
}

Result<void> DiskIndex::add(const NewObject& object) {
  const uint64_t place =
      object.place.packed ? disk_format::packed_place(object.place.segment, object.place.page) : uint64_t{0};
  const Guard guard(stripes_[stripe_of(object.id)].lock);
  if (find_object(object.id) != disk_slot_none) return fail(Code::invalid);
  uint32_t slot = disk_slot_none;
  const Result<void> added = add_locked(object, place, &slot);
  if (!added) return added;
  objects_[slot].confirmed = 1;
  log_object(slot);
  return {};
}

Result<void> DiskIndex::add_valid(const ObjectId& id, uint64_t position, uint64_t blocks) {
  const Guard guard(stripes_[stripe_of(id)].lock);
  const uint32_t slot = find_object(id);
  if (slot == disk_slot_none) return fail(Code::not_found);
  const uint64_t size = objects_[slot].size;
  if (position >= index_chunks_of(size) || (blocks & ~blocks_mask(size, position)) != 0) return fail(Code::invalid);
  Blocks after = blocks_of(slot, position);
  if ((blocks & ~after.valid) == 0) return {};
  after.valid |= blocks;
  const Result<void> done = set_blocks(slot, position, after);
  if (done) log_blocks(slot, position);
  return done;
}

Result<void> DiskIndex::mark_verified(const ObjectId& id, uint64_t position, uint64_t blocks) {
  const Guard guard(stripes_[stripe_of(id)].lock);
  const uint32_t slot = find_object(id);
  if (slot == disk_slot_none) return fail(Code::not_found);
  settle_packed(slot);
  if (position >= index_chunks_of(objects_[slot].size)) return fail(Code::invalid);
  if (!objects_[slot].confirmed) return fail(Code::again);
  Blocks after = blocks_of(slot, position);
  if ((blocks & after.valid & ~after.verified) == 0) return {};
  after.verified |= blocks & after.valid;
  BC_ASSERT(set_blocks(slot, position, after));
  log_blocks(slot, position);
  return {};
}

Result<void> DiskIndex::drop_blocks(const ObjectId& id, uint64_t position, uint64_t blocks) {
  const Guard guard(stripes_[stripe_of(id)].lock);
  const uint32_t slot = find_object(id);
  if (slot == disk_slot_none) return fail(Code::not_found);
  if (position >= index_chunks_of(objects_[slot].size)) return fail(Code::invalid);
  Blocks after = blocks_of(slot, position);
  if ((after.valid & blocks) == 0) return {};
  after.valid &= ~blocks;
  after.verified &= ~blocks;
  objects_[slot].whole = 0;
  BC_ASSERT(set_blocks(slot, position, after));
  log_blocks(slot, position);
  return {};
}

Result<void> DiskIndex::record_stamp(const ObjectId& id, disk_format::FileStamp stamp, bool whole) {
  const Guard guard(stripes_[stripe_of(id)].lock);
  const uint32_t slot = find_object(id);
  if (slot == disk_slot_none) return fail(Code::not_found);
  DiskObject& object = objects_[slot];
  if (object.packed || stamp == 0) return fail(Code::invalid);
  if (!object.confirmed) return fail(Code::again);
  object.place = stamp;
  object.whole = object.whole || whole;
  Record record{.type = static_cast<uint8_t>(disk_format::RecordType::stamp),
                .flags = object.whole ? disk_format::flag_whole : uint8_t{0},
                .id = {id.words[0], id.words[1]},
                .place = stamp};
  if (DiskLog* log = disks_[object.disk].log) log->append(record);
  return {};
}

Result<bool> DiskIndex::confirm(const ObjectId& id, disk_format::FileStamp stamp) {
  {
    const Guard guard(stripes_[stripe_of(id)].lock);
    const uint32_t slot = find_object(id);
    if (slot == disk_slot_none) return fail(Code::not_found);
    DiskObject& object = objects_[slot];
    if (object.packed) return fail(Code::invalid);
    if (object.confirmed) return true;
    if (stamp != 0 && object.place == stamp) {
      object.confirmed = 1;
      return true;
    }
  }
  drop_marks(id);
  return false;
}

// Own-file objects. They stay unconfirmed, and so without new marks, until the last old one is gone.
void DiskIndex::drop_marks(const ObjectId& id) {
  const unsigned stripe = stripe_of(id);
  uint32_t slot = disk_slot_none;
  uint64_t chunks = 0;
  {
    const Guard guard(stripes_[stripe].lock);
    slot = find_object(id);
    if (slot == disk_slot_none || objects_[slot].confirmed) return;
    chunks = index_chunks_of(objects_[slot].size);
  }
  const auto still_it = [&] { return find_object(id) == slot && !objects_[slot].confirmed; };
  each_chunk(stripe, slot, chunks, still_it, [&](uint32_t chunk) {
    const Blocks after{.valid = chunks_[chunk].valid, .verified = 0};
    BC_ASSERT(set_blocks(slot, chunks_[chunk].position, after));
  });
  const Guard guard(stripes_[stripe].lock);
  if (!still_it()) return;
  DiskObject& object = objects_[slot];
  BC_ASSERT(set_blocks(slot, 0, {.valid = object.valid, .verified = 0}));
  BC_ASSERT(object.chunks_verified == 0);
  object.confirmed = 1;
  object.place = 0;
  Record record{.type = static_cast<uint8_t>(disk_format::RecordType::stamp),
                .flags = object.whole ? disk_format::flag_whole : uint8_t{0},
                .id = {id.words[0], id.words[1]}};
  if (DiskLog* log = disks_[object.disk].log) log->append(record);
}

Result<void> DiskIndex::set_pinned(const ObjectId& id, bool pinned) {
  const Guard guard(stripes_[stripe_of(id)].lock);
  const uint32_t slot = find_object(id);
  if (slot == disk_slot_none) return fail(Code::not_found);
  if ((objects_[slot].pinned != 0) == pinned) return {};
  mark_pinned(slot, pinned);
  const Record record{.type = static_cast<uint8_t>(disk_format::RecordType::pin),
                      .flags = pinned ? disk_format::flag_pinned : uint8_t{0},
                      .id = {id.words[0], id.words[1]}};
  if (DiskLog* log = disks_[objects_[slot].disk].log) log->append(record);
  return {};
}

void DiskIndex::mark_pinned(uint32_t slot, bool pinned) {
  DiskObject& object = objects_[slot];
  if ((object.pinned != 0) == pinned) return;
  object.pinned = pinned ? 1 : 0;
  if (!object.packed) return;
  Disk& disk = disks_[object.disk];
  const Guard guard(disk.lock);
  Segment* segment = find_segment(disk, disk_format::segment_of(object.place));
  BC_ASSERT(segment != nullptr && (pinned || segment->pinned > 0));
  segment->pinned += pinned ? 1 : -1u;
}

void DiskIndex::unlink_object(uint32_t slot) {
  DiskObject& object = objects_[slot];
  objects_.unlink(stripe_with(slot).objects, slot);
  if (!object.packed) return;
  Disk& disk = disks_[object.disk];
  const Guard guard(disk.lock);
  Segment* segment = find_segment(disk, disk_format::segment_of(object.place));
  BC_ASSERT(segment != nullptr && segment->objects > 0);
  --segment->objects;
}

Result<void> DiskIndex::remove(const ObjectId& id) {
  const unsigned stripe = stripe_of(id);
  uint32_t slot = disk_slot_none;
  {
    const Guard guard(stripes_[stripe].lock);
    slot = find_object(id);
    if (slot == disk_slot_none) return fail(Code::not_found);
    if (objects_[slot].pinned != 0) return fail(Code::again);
    Record record{.type = static_cast<uint8_t>(disk_format::RecordType::object_removed),
                  .id = {id.words[0], id.words[1]}};
    if (DiskLog* log = disks_[objects_[slot].disk].log) log->append(record);
    unlink_object(slot);
  }
  // Nobody else finds the slot now. Its chunks still name it, so it is released after them.
  const auto still_it = [&] { return objects_[slot].chunks > 0; };
  each_chunk(stripe, slot, index_chunks_of(objects_[slot].size), still_it, [&](uint32_t chunk) {
    chunks_.unlink(stripes_[stripe].chunks, chunk);
    chunks_.release(chunk);
    objects_[slot].add_chunks(-1);
  });
  BC_ASSERT(objects_[slot].chunks == 0);
  objects_.release(slot);
  return {};
}

size_t DiskIndex::memory_bytes() const {
  size_t bytes = objects_.memory_bytes() + chunks_.memory_bytes() + sizeof stripes_;
  for (unsigned i = 0; i < disk_count_; ++i) bytes += disks_[i].segment_count * sizeof(Segment) + sizeof(Disk);
  return bytes;
}

}  // namespace blobcache
