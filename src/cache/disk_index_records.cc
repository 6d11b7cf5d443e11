// Between the index and its files: applying what was read, copying what is to be written, and the segments of a disk.
//
// Applying must come to the same end from any start: a snapshot is copied while the index changes, so its log says again
// what the copy may already hold. Hence records say how things are, not how they changed, and an `object` record forgets
// what was known of the object even when it is itself not acceptable: what follows it in the log speaks of that object.
//
// Everything is checked here, although a checksum matched: the checksum says that a program wrote it, not which one.
#include <algorithm>
#include <mutex>

#include "cache/disk_index.h"
#include "cache/disk_index_chunks.h"
#include "cache/disk_log.h"

namespace blobcache {

using disk_format::RecordType;
using Guard = std::lock_guard<Spinlock>;

DiskIndex::Record DiskIndex::record_of_object(uint32_t slot) const {
  const DiskObject& object = objects_[slot];
  uint8_t flags = object.packed ? disk_format::flag_packed : uint8_t{0};
  if (object.whole) flags = static_cast<uint8_t>(flags | disk_format::flag_whole);
  if (object.pinned) flags = static_cast<uint8_t>(flags | disk_format::flag_pinned);
  return {.type = static_cast<uint8_t>(RecordType::object),
          .flags = flags,
          .frequency = static_cast<uint8_t>(object.frequency),
          .id = {object.id.words[0], object.id.words[1]},
          .size = object.size,
          .place = object.place,
          .valid = object.valid,
          .verified = object.verified};
}

DiskIndex::Record DiskIndex::record_of_chunk(uint32_t slot, uint64_t position, Blocks blocks) const {
  const ObjectId& id = objects_[slot].id;
  return {.type = static_cast<uint8_t>(RecordType::blocks),
          .position = static_cast<uint32_t>(position),
          .id = {id.words[0], id.words[1]},
          .valid = blocks.valid,
          .verified = blocks.verified};
}

void DiskIndex::log_object(uint32_t slot) {
  if (DiskLog* log = disks_[objects_[slot].disk].log) log->append(record_of_object(slot));
}

void DiskIndex::log_blocks(uint32_t slot, uint64_t position) {
  if (DiskLog* log = disks_[objects_[slot].disk].log)
    log->append(record_of_chunk(slot, position, blocks_of(slot, position)));
}

bool DiskIndex::apply(unsigned disk, const Record& record) {
  BC_ASSERT(disk < disk_count_ && disks_[disk].log == nullptr);
  switch (static_cast<RecordType>(record.type)) {
    case RecordType::object: return apply_object(disk, record);
    case RecordType::blocks: return apply_blocks(disk, record);
    case RecordType::stamp:
    case RecordType::pin:
    case RecordType::object_removed: return apply_to_known(disk, record);
    case RecordType::segment:
    case RecordType::segment_removed: return apply_segment(disk, record);
  }
  return false;
}

bool DiskIndex::apply_object(unsigned disk, const Record& record) {
  const ObjectId id{{record.id[0], record.id[1]}};
  const uint32_t known = find_object(id);
  if (known != disk_slot_none) {
    if (objects_[known].disk != disk) return false;  // the disk that was read first has it
    mark_pinned(known, false);
    BC_ASSERT(remove(id));
  }
  const bool packed = (record.flags & disk_format::flag_packed) != 0;
  uint32_t slot = disk_slot_none;
  const NewObject object{
      .id = id, .size = record.size, .place = {.disk = static_cast<uint8_t>(disk), .packed = packed}};
  if (!add_locked(object, record.place, &slot)) return false;
  objects_[slot].whole = (record.flags & disk_format::flag_whole) != 0;
  objects_[slot].frequency = record.frequency;
  mark_pinned(slot, (record.flags & disk_format::flag_pinned) != 0);
  const bool possible =
      (record.valid & ~disk_format::blocks_mask(record.size, 0)) == 0 && (record.verified & ~record.valid) == 0;
  return possible && set_blocks(slot, 0, {.valid = record.valid, .verified = record.verified});
}

bool DiskIndex::apply_blocks(unsigned disk, const Record& record) {
  const uint32_t slot = find_object({{record.id[0], record.id[1]}});
  if (slot == disk_slot_none || objects_[slot].disk != disk) return false;
  const uint64_t size = objects_[slot].size;
  if (record.position >= disk_format::index_chunks_of(size)) return false;
  if ((record.valid & ~disk_format::blocks_mask(size, record.position)) != 0) return false;
  if ((record.verified & ~record.valid) != 0) return false;
  if (!set_blocks(slot, record.position, {.valid = record.valid, .verified = record.verified})) return false;
  if (record.frequency == 0) return true;  // a log's says nothing of it
  const uint32_t chunk = record.position == 0 ? disk_slot_none : find_chunk(slot, record.position);
  if (chunk != disk_slot_none) chunks_[chunk].frequency = record.frequency;
  return true;
}

bool DiskIndex::apply_to_known(unsigned disk, const Record& record) {
  const ObjectId id{{record.id[0], record.id[1]}};
  const uint32_t slot = find_object(id);
  if (slot == disk_slot_none || objects_[slot].disk != disk) return false;
  const auto type = static_cast<RecordType>(record.type);
  if (type == RecordType::pin) {
    mark_pinned(slot, (record.flags & disk_format::flag_pinned) != 0);
    return true;
  }
  if (type == RecordType::object_removed) {
    mark_pinned(slot, false);
    return remove(id).has_value();
  }
  if (objects_[slot].packed) return false;
  if (record.place == 0) {
    drop_marks(id);
    objects_[slot].confirmed = 0;
  }
  objects_[slot].place = record.place;
  objects_[slot].whole = (record.flags & disk_format::flag_whole) != 0;
  return true;
}

bool DiskIndex::apply_segment(unsigned disk, const Record& record) {
  if (record.type == static_cast<uint8_t>(RecordType::segment_removed))
    return remove_segment(disk, record.position).has_value();
  if (record.position > INT32_MAX) return false;  // leaves numbers for ours
  Segment* segment = find_segment(disks_[disk], record.position);
  if (segment == nullptr) {
    if (!add_segment(disk, record.position)) return false;
    segment = find_segment(disks_[disk], record.position);
  }
  segment->stamp = record.place;
  segment->confirmed = Confirm::unknown;
  if (record.frequency != 0) segment->frequency = record.frequency;
  return true;
}

void DiskIndex::distrust(unsigned disk) {
  for (unsigned stripe = 0; stripe < stripe_count; ++stripe) {
    const Stripe& parts = stripes_[stripe];
    for (uint32_t i = 0; i < parts.objects.shape.buckets; ++i) {
      objects_.each(parts.objects, i, [&](uint32_t slot) {
        if (objects_[slot].disk != disk) return;
        BC_ASSERT(set_blocks(slot, 0, {.valid = objects_[slot].valid, .verified = 0}));
        if (!objects_[slot].packed) objects_[slot].place = 0;
      });
    }
    for (uint32_t i = 0; i < parts.chunks.shape.buckets; ++i) {
      chunks_.each(parts.chunks, i, [&](uint32_t chunk) {
        const DiskChunk& blocks = chunks_[chunk];
        if (objects_[blocks.owner].disk != disk) return;
        BC_ASSERT(set_blocks(blocks.owner, blocks.position, {.valid = blocks.valid, .verified = 0}));
      });
    }
  }
}

// ---- copying ----

void DiskIndex::copy_segments(unsigned disk, std::vector<Record>* out) const {
  out->reserve(out->size() + segments_max_);
  const Guard guard(disks_[disk].lock);
  for (uint32_t i = 0; i < disks_[disk].segment_count; ++i) {
    const Segment& segment = disks_[disk].segments[i];
    if (segment.removed) continue;
    out->push_back({.type = static_cast<uint8_t>(RecordType::segment),
                    .frequency = segment.frequency,
                    .position = segment.number,
                    .place = segment.stamp});
  }
}

// Objects first, then chunks: a chunk record without its object is ignored. Room is made before the lock is taken, since
// making it is a system call; a part that does not fit is done again.
void DiskIndex::copy_stripe(unsigned disk, unsigned stripe, std::vector<Record>* out) {
  size_t room = 1024;
  // False: that was the last part. The table may grow from call to call.
  const auto copy_part = [&](auto& table, auto& part, uint32_t first, auto&& record_of) {
    while (true) {
      out->reserve(std::max(out->size() + room, out->size() + out->size() / 2));
      const size_t before = out->size();
      const Guard guard(stripes_[stripe].lock);
      bool fits = true;
      const uint32_t end = std::min(first + buckets_per_lock, part.shape.buckets);
      for (uint32_t i = first; i < end && fits; ++i) {
        table.each(part, i, [&](uint32_t slot) {
          fits = fits && out->size() < out->capacity();
          if (fits) record_of(slot);
        });
      }
      if (fits) return end < part.shape.buckets;
      out->resize(before);
      room *= 2;
    }
  };
  const auto copy_table = [&](auto& table, auto& part, auto&& record_of) {
    uint32_t first = 0;
    while (copy_part(table, part, first, record_of)) first += buckets_per_lock;
  };
  copy_table(objects_, stripes_[stripe].objects, [&](uint32_t slot) {
    if (objects_[slot].disk == disk) out->push_back(record_of_object(slot));
  });
  copy_table(chunks_, stripes_[stripe].chunks, [&](uint32_t chunk) {
    const DiskChunk& blocks = chunks_[chunk];
    // The owner may be on its way out: found no more, not released yet.
    if (objects_[blocks.owner].disk != disk || find_object(objects_[blocks.owner].id) != blocks.owner) return;
    out->push_back(record_of_chunk(blocks.owner, blocks.position, {blocks.valid, blocks.verified}));
  });
}

bool DiskIndex::copy_entries(unsigned disk, DiskCursor* cursor, std::vector<DiskEntry>* out) {
  constexpr size_t enough = 256;
  size_t room = 2 * enough;
  out->clear();
  while (cursor->stripe < stripe_count && out->empty()) {
    Stripe& stripe = stripes_[cursor->stripe];
    // True: that was all of the part. Between two buckets it may stop; one that does not fit is done again with more room,
    // which is made before the lock is taken.
    const auto copy = [&](auto& table, auto& part, auto&& entry_of) {
      while (true) {
        out->reserve(room);
        const Guard guard(stripe.lock);
        const uint32_t end = std::min(cursor->bucket + buckets_per_lock, part.shape.buckets);
        bool fits = true;
        for (; cursor->bucket < end && out->size() < enough; ++cursor->bucket) {
          const size_t before = out->size();
          table.each(part, cursor->bucket, [&](uint32_t slot) {
            fits = fits && out->size() < out->capacity();
            if (fits) entry_of(slot);
          });
          if (fits) continue;
          out->resize(before);
          break;
        }
        if (fits || !out->empty()) return cursor->bucket >= part.shape.buckets;
        room *= 2;
      }
    };
    const auto push = [&](const DiskObject& object, uint64_t position, uint64_t valid, uint32_t entry,
                          uint32_t frequency) {
      out->push_back({.id = object.id,
                      .size = object.size,
                      .position = position,
                      .valid = valid,
                      .entry = entry,
                      .frequency = static_cast<uint8_t>(frequency),
                      .packed = object.packed != 0,
                      .pinned = object.pinned != 0,
                      .segment = object.packed ? disk_format::segment_of(object.place) : 0,
                      .page = object.packed ? disk_format::page_of(object.place) : 0});
    };
    bool ended = false;
    if (!cursor->in_chunks) {
      ended = copy(objects_, stripe.objects, [&](uint32_t slot) {
        if (objects_[slot].disk != disk) return;
        push(objects_[slot], 0, objects_[slot].valid, slot, static_cast<uint32_t>(objects_[slot].frequency));
      });
    } else {
      ended = copy(chunks_, stripe.chunks, [&](uint32_t chunk) {
        const uint32_t owner = chunks_[chunk].owner;
        if (objects_[owner].disk != disk || find_object(objects_[owner].id) != owner) return;  // on its way out
        push(objects_[owner], chunks_[chunk].position, chunks_[chunk].valid, objects_max_ + chunk,
             chunks_[chunk].frequency);
      });
    }
    if (!ended) continue;
    cursor->bucket = 0;
    if (cursor->in_chunks) ++cursor->stripe;
    cursor->in_chunks = !cursor->in_chunks;
  }
  return !out->empty();
}

bool DiskIndex::key_of(uint32_t entry, ObjectId* id_out, uint64_t* position_out) {
  if (entry >= entries_count()) return false;
  const bool first = entry < objects_max_;
  const uint32_t owner = first ? entry : chunks_[entry - objects_max_].owner;
  if (owner >= objects_max_) return false;
  *id_out = objects_[owner].id;
  *position_out = first ? 0 : chunks_[entry - objects_max_].position;
  const Guard guard(stripes_[stripe_of(*id_out)].lock);
  return find_object(*id_out) == owner;
}

// ---- segments ----

DiskIndex::Segment* DiskIndex::find_segment(const Disk& disk, uint32_t number) {
  Segment* begin = disk.segments.get();
  Segment* end = begin + disk.segment_count;
  Segment* found = std::lower_bound(begin, end, number, [](const Segment& a, uint32_t b) { return a.number < b; });
  return found == end || found->number != number || found->removed ? nullptr : found;
}

Result<void> DiskIndex::add_segment(unsigned disk_index, uint32_t number) {
  BC_ASSERT(disk_index < disk_count_);
  Disk& disk = disks_[disk_index];
  const Guard guard(disk.lock);
  Segment* begin = disk.segments.get();
  if (disk.segment_count > 0 && begin[disk.segment_count - 1].number >= number) return fail(Code::invalid);
  if (disk.segment_count == segments_max_) {
    const Segment* end = std::remove_if(begin, begin + disk.segment_count, [](const Segment& s) { return s.removed; });
    disk.segment_count = static_cast<uint32_t>(end - begin);
    if (disk.segment_count == segments_max_) return fail(Code::full);
  }
  begin[disk.segment_count++] = {.number = number, .confirmed = Confirm::same};
  if (disk.log != nullptr) disk.log->append({.type = static_cast<uint8_t>(RecordType::segment), .position = number});
  return {};
}

Result<void> DiskIndex::record_segment_stamp(unsigned disk_index, uint32_t number, disk_format::FileStamp stamp) {
  Disk& disk = disks_[disk_index];
  const Guard guard(disk.lock);
  Segment* segment = find_segment(disk, number);
  if (segment == nullptr) return fail(Code::not_found);
  if (segment->confirmed != Confirm::same || segment->stamp != 0 || stamp == 0) return fail(Code::invalid);
  segment->stamp = stamp;
  if (disk.log != nullptr)
    disk.log->append({.type = static_cast<uint8_t>(RecordType::segment), .position = number, .place = stamp});
  return {};
}

Result<bool> DiskIndex::confirm_segment(unsigned disk_index, uint32_t number, disk_format::FileStamp stamp) {
  Disk& disk = disks_[disk_index];
  const Guard guard(disk.lock);
  Segment* segment = find_segment(disk, number);
  if (segment == nullptr) return fail(Code::not_found);
  if (segment->confirmed == Confirm::unknown)
    segment->confirmed = stamp != 0 && segment->stamp == stamp ? Confirm::same : Confirm::other;
  return segment->confirmed == Confirm::same;
}

Result<void> DiskIndex::remove_segment(unsigned disk_index, uint32_t number) {
  Disk& disk = disks_[disk_index];
  const Guard guard(disk.lock);
  Segment* segment = find_segment(disk, number);
  if (segment == nullptr) return fail(Code::not_found);
  if (segment->objects > 0) return fail(Code::again);
  segment->removed = true;
  if (disk.log != nullptr)
    disk.log->append({.type = static_cast<uint8_t>(RecordType::segment_removed), .position = number});
  return {};
}

uint32_t DiskIndex::next_segment(unsigned disk_index) const {
  const Disk& disk = disks_[disk_index];
  const Guard guard(disk.lock);
  return disk.segment_count == 0 ? 1 : disk.segments[disk.segment_count - 1].number + 1;
}

bool DiskIndex::has_segment(unsigned disk_index, uint32_t number) const {
  const Disk& disk = disks_[disk_index];
  const Guard guard(disk.lock);
  return find_segment(disk, number) != nullptr;
}

uint32_t DiskIndex::objects_in_segment(unsigned disk_index, uint32_t number) const {
  const Disk& disk = disks_[disk_index];
  const Guard guard(disk.lock);
  const Segment* segment = find_segment(disk, number);
  return segment == nullptr ? 0 : segment->objects;
}

uint32_t DiskIndex::pinned_in_segment(unsigned disk_index, uint32_t number) const {
  const Disk& disk = disks_[disk_index];
  const Guard guard(disk.lock);
  const Segment* segment = find_segment(disk, number);
  return segment == nullptr ? 0 : segment->pinned;
}

}  // namespace blobcache
