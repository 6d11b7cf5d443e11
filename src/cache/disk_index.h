// DiskIndex: what lies on the disks, in memory. One for all disks of the node.
//   Owner     Node.   Thread  any for all but allocate, attach and apply (start, one thread); no call blocks or allocates.
//             Calls marked "long" take the stripe's lock many times and are for helper threads
//   Lifetime  allocated at start, freed after the cores ended
//   Limits    objects_max objects, chunks_max chunks beyond the first of an object, segments_max segments a disk: full
//   Memory    62 bytes an object and its first chunk, 30 a further chunk that has blocks (checksums lie in sidecars)
//   Locks     64 stripes by object, then the segments of a disk, then its log; none is held over a call
//   Invariant verified blocks are valid ones. A mark counts only while its file is known to be the file it was made on:
//             one this process added, or one whose stamp was confirmed; until then find() shows no mark.
//   Order     changes of one object reach the log in the order in which they were made
// What the caller owes: data lies in the file before add_valid; a stamp is taken when no write to the file is in flight; a
// segment's pages are written once and its number is used once; after its stamp is recorded nothing is written to it.
#pragma once

#include <memory>
#include <vector>

#include "cache/disk_table.h"

namespace blobcache {

class DiskLog;

struct DiskIndexOptions {
  uint32_t objects_max = 0;
  uint32_t chunks_max = 0;  // beyond the first of each object
  uint32_t segments_max = 65536;
  unsigned disk_count = 1;
};

struct DiskPlace {
  uint8_t disk = 0;
  bool packed = false;
  uint32_t segment = 0;  // packed only
  uint32_t page = 0;     // packed: of the header; the bytes begin one page further. Else the file has its own offsets
};

struct DiskView {
  uint64_t size = 0;
  DiskPlace place;
  uint64_t valid = 0;     // blocks of the chunk asked for
  uint64_t verified = 0;  // of these, those to be trusted unread; 0 until the stamp is confirmed
  bool confirmed = false;
  bool whole = false;           // somebody said so: worth verifying
  bool whole_verified = false;  // all blocks are verified, now: may be armed
  bool pinned = false;
  bool empty = false;               // no block of the object is valid
  uint32_t entry = disk_slot_none;  // of the chunk, see DiskIndex::entries_count; none: it has no blocks
};

// One object (position 0, with or without blocks) or one further chunk, as a walk meets it.
struct DiskEntry {
  ObjectId id;
  uint64_t size = 0;
  uint64_t position = 0;
  uint64_t valid = 0;
  uint32_t entry = disk_slot_none;
  uint8_t frequency = 0;  // when the disk was last loaded
  bool packed = false;
  bool pinned = false;
  uint32_t segment = 0;  // packed only
  uint32_t page = 0;
};
// Where a walk is.
struct DiskCursor {
  unsigned stripe = 0;
  uint32_t bucket = 0;
  bool in_chunks = false;
};

class DiskIndex {
 public:
  using Record = disk_format::IndexRecord;
  static constexpr unsigned stripe_count = 64;
  // Of some 10 items (more where a large object has most chunks of its part), looked at under the part's lock.
  static constexpr uint32_t buckets_per_lock = 8;

  DiskIndex() = default;
  DiskIndex(const DiskIndex&) = delete;
  DiskIndex& operator=(const DiskIndex&) = delete;

  // Errors: again (no memory). Address space is taken, memory as it is used.
  Result<void> allocate(const DiskIndexOptions& options);
  // From now on changes of this disk go to log; null: nowhere.
  void attach(unsigned disk, DiskLog* log);

  // position: offset / disk_format::index_chunk_bytes.
  bool find(const ObjectId& id, uint64_t position, DiskView* view_out);

  struct NewObject {
    ObjectId id;
    uint64_t size = 0;
    DiskPlace place;
  };
  // An object without blocks. Errors: full; invalid (exists, impossible size, no such segment).
  Result<void> add(const NewObject& object);
  // blocks: bits of the chunk, all of them the object's. Errors: not_found (removed meanwhile), invalid, full, and for
  // mark_verified: again (its stamp is not confirmed), and only valid blocks are marked.
  Result<void> add_valid(const ObjectId& id, uint64_t position, uint64_t blocks);
  Result<void> mark_verified(const ObjectId& id, uint64_t position, uint64_t blocks);
  // What was found wrong, or punched out.
  Result<void> drop_blocks(const ObjectId& id, uint64_t position, uint64_t blocks);
  // Keeps marks over a restart: the stamp of an own-file object's file as it is now. Errors: not_found, invalid (packed),
  // again (not confirmed: its old stamp would be lost).
  Result<void> record_stamp(const ObjectId& id, disk_format::FileStamp stamp, bool whole);
  // Long. Compares with what was recorded: the same: true, its marks count. Another: false, its marks are dropped.
  // Errors: not_found, invalid (packed: see confirm_segment).
  Result<bool> confirm(const ObjectId& id, disk_format::FileStamp stamp);
  // A pinned object is not removed; a second pin is none. For the keeper of its disk, as remove is. Errors: not_found.
  Result<void> pin(const ObjectId& id) { return set_pinned(id, true); }
  Result<void> unpin(const ObjectId& id) { return set_pinned(id, false); }
  // Long. Its file may be unlinked once this returned. Errors: not_found, again (pinned).
  Result<void> remove(const ObjectId& id);

  // Errors: full, invalid (exists, or smaller than one before).
  Result<void> add_segment(unsigned disk, uint32_t number);
  // Once, when it is full. Errors: not_found, invalid (not one that this process began).
  Result<void> record_segment_stamp(unsigned disk, uint32_t number, disk_format::FileStamp stamp);
  // As confirm(). Errors: not_found.
  Result<bool> confirm_segment(unsigned disk, uint32_t number, disk_format::FileStamp stamp);
  // Errors: not_found, again (objects lie in it).
  Result<void> remove_segment(unsigned disk, uint32_t number);
  uint32_t next_segment(unsigned disk) const;
  uint32_t objects_in_segment(unsigned disk, uint32_t number) const;
  uint32_t pinned_in_segment(unsigned disk, uint32_t number) const;
  bool has_segment(unsigned disk, uint32_t number) const;

  // What a disk's file says. False: it cannot be, and nothing of it is believed. Before attach.
  bool apply(unsigned disk, const Record& record);
  // Before attach: no mark of this disk counts any more.
  void distrust(unsigned disk);
  // Adds the records that make up this disk's part of the index, without checksums. Long.
  void copy_segments(unsigned disk, std::vector<Record>* out) const;
  void copy_stripe(unsigned disk, unsigned stripe, std::vector<Record>* out);

  // A walk over what lies on a disk, a piece a call; what changes meanwhile may be met or not, or twice. False: it has
  // ended, and out is empty. out: replaced.
  bool copy_entries(unsigned disk, DiskCursor* cursor, std::vector<DiskEntry>* out);
  // Each object (its first chunk) and each further chunk has a number below this, for as long as it has blocks, for what
  // others keep about it.
  uint32_t entries_count() const { return objects_max_ + chunks_max_; }
  // The way back. For the thread that alone adds and removes on this disk. False: there is no such chunk.
  bool key_of(uint32_t entry, ObjectId* id_out, uint64_t* position_out);

  uint32_t object_count() const { return objects_.in_use(); }
  uint32_t chunk_count() const { return chunks_.in_use(); }  // beyond the first of each object
  size_t memory_bytes() const;                               // as used so far

 private:
  enum class Confirm : uint8_t { same, other, unknown };
  struct Segment {
    uint32_t number = 0;
    uint32_t objects = 0;
    disk_format::FileStamp stamp = 0;
    uint32_t pinned = 0;  // of its objects
    Confirm confirmed = Confirm::unknown;
    uint8_t frequency = 0;
    bool removed = false;
  };
  struct Disk {
    mutable Spinlock lock;
    std::unique_ptr<Segment[]> segments;  // by number, ascending
    uint32_t segment_count = 0;
    DiskLog* log = nullptr;
  };
  struct Blocks {
    uint64_t valid = 0;
    uint64_t verified = 0;
  };

  static unsigned stripe_of(const ObjectId& id) { return static_cast<unsigned>(id.hash() >> 58); }
  // All below: under the stripe's lock, unless they say otherwise.
  uint32_t find_object(const ObjectId& id) const;
  uint32_t find_chunk(uint32_t owner, uint64_t position) const;
  Blocks blocks_of(uint32_t slot, uint64_t position) const;
  Result<void> set_blocks(uint32_t slot, uint64_t position, Blocks blocks);
  Result<void> add_locked(const NewObject& object, uint64_t place, uint32_t* slot_out);
  void settle_packed(uint32_t slot);
  void log_blocks(uint32_t slot, uint64_t position);
  void log_object(uint32_t slot);
  Record record_of_object(uint32_t slot) const;
  Record record_of_chunk(uint32_t slot, uint64_t position, Blocks blocks) const;
  void unlink_object(uint32_t slot);
  Result<void> set_pinned(const ObjectId& id, bool pinned);
  void mark_pinned(uint32_t slot, bool pinned);
  // Not under it. Calls f(chunk slot) under the lock, which is let go every few dozen steps; f may remove that chunk.
  // valid_owner() is asked each time the lock was taken anew.
  template <class Valid, class F>
  void each_chunk(unsigned stripe, uint32_t owner, uint64_t chunks, Valid&& valid_owner, F&& f);
  void drop_marks(const ObjectId& id);  // takes it
  bool apply_object(unsigned disk, const Record& record);
  bool apply_blocks(unsigned disk, const Record& record);
  bool apply_to_known(unsigned disk, const Record& record);
  bool apply_segment(unsigned disk, const Record& record);
  static Segment* find_segment(const Disk& disk, uint32_t number);

  using Objects = DiskTable<DiskObject, 12>;  // 10: 0.8 bytes an object more, and no look-up that is measurably faster
  using Chunks = DiskTable<DiskChunk, 13>;    // the least memory
  static_assert(stripe_count == Objects::parts && stripe_count == Chunks::parts);
  struct alignas(64) Stripe {
    Spinlock lock;
    Objects::Part objects;
    Chunks::Part chunks;
  };
  Stripe& stripe_with(uint32_t slot) { return stripes_[stripe_of(objects_[slot].id)]; }

  Stripe stripes_[stripe_count];
  Objects objects_;
  Chunks chunks_;
  std::unique_ptr<Disk[]> disks_;
  unsigned disk_count_ = 0;
  uint32_t segments_max_ = 0;
  uint32_t objects_max_ = 0;
  uint32_t chunks_max_ = 0;
};

}  // namespace blobcache
