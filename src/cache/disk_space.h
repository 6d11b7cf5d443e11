// DiskSpace: what one disk's part of the cache takes, what it may take, and who leaves when that is too much.
//   Owner     DiskUnit.   Thread  try_reserve, unreserve, on_visit: any; the rest: the disk's keeper; sums: any
//   Limits    limit_bytes, measured again every second by the keeper; the write budget of a day (UTC). Another day than the
//             last one begins a new budget, also when the clock was set back
//   Memory    the entries are shared by all disks: one belongs to the disk that its chunk lies on
//   States of a byte   reserved -> used (in Eviction) -> leaving (until it is punched or unlinked) -> free
//                                                     -> kept (unlinked, but open somewhere)      -> free
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "base/spinlock.h"
#include "cache/disk_format.h"
#include "cache/eviction.h"

namespace blobcache {

class DiskSpace {
 public:
  struct Options {
    std::span<EvictionEntry> entries;
    size_t keys_count = 0;  // of evicted chunks to remember
    uint64_t limit_bytes = 0;
    bool detect_scans = true;
    uint64_t write_budget_bytes = 0;  // a day; 0: none
  };
  explicit DiskSpace(const Options& options);

  // ---- any thread ----
  // False: no room now, or the budget of `day` (since 1970) is spent. What is pinned comes in while a scan is kept out, too.
  enum class For : uint8_t { any, pinned };
  bool try_reserve(uint64_t bytes, uint64_t day, For what = For::any);
  void unreserve(uint64_t bytes);
  void set_write_budget(uint64_t bytes) { write_budget_bytes_.store(bytes, std::memory_order_relaxed); }
  // Of the limit, where eviction ends.
  void set_low_share(double share) { low_share_.store(share, std::memory_order_relaxed); }
  // The same of bytes that were never written: the day's budget has them back.
  void give_back(uint64_t bytes);
  // hash: chunk_hash(). entry: disk_slot_none on a miss.
  void on_visit(uint64_t hash, uint64_t bytes, uint32_t entry);
  uint64_t used_bytes() const;  // all but what is only reserved
  uint64_t reserved_bytes() const;
  uint64_t entries_bytes() const;  // of chunks and segments that are there
  uint64_t limit_bytes() const { return limit_.load(std::memory_order_relaxed); }
  // What may be pinned: four fifths of what eviction leaves there, so that a fifth and the room above it are left for the rest.
  uint64_t pinned_bytes_max() const { return low_bytes() / 5 * 4; }
  bool scan_frozen() const;
  // Of the budget; nothing is counted without one.
  struct Spent {
    uint64_t day = 0;
    uint64_t bytes = 0;
    friend bool operator==(const Spent&, const Spent&) = default;
  };
  Spent spent() const;
  // The keeper should make room. A hint, cheap.
  bool wants_room() const { return wants_room_.load(std::memory_order_relaxed); }

  // ---- the keeper ----
  void set_limit(uint64_t bytes);
  void set_spent(const Spent& spent);  // before anything is reserved
  // Takes more of the disk than was reserved for it at no time: room is there even when the limit fell meanwhile.
  void add(uint32_t entry, uint64_t hash, uint64_t bytes);
  // Bytes of an entry that stays. The bytes are leaving then.
  void shrink(uint32_t entry, uint64_t bytes);
  // It need not be there. What it took, which is leaving now.
  uint64_t remove(uint32_t entry);
  uint64_t bytes_of(uint32_t entry) const;
  // As Eviction::frequency and restore.
  uint8_t frequency_of(uint32_t entry) const;
  void restore(uint32_t entry, uint8_t frequency);
  // As Eviction::hold and let_go; an entry that is not there is left alone.
  void hold(uint32_t entry);
  void let_go(uint32_t entry);
  uint64_t held_bytes() const;
  // So many bytes of what is pinned are to come: room is made for all of them.
  void want_room(uint64_t bytes);
  // Bytes that were leaving are gone, or are kept by open descriptors.
  void settle(uint64_t bytes);
  void keep(uint64_t bytes);
  void settle_kept(uint64_t bytes);

  // How much more should leave now. hard: only what is over the limit, or wanted by a write.
  uint64_t bytes_too_many(bool hard) const;
  // As Eviction::victim, evict and refuse; what is evicted is leaving then.
  uint32_t victim();
  void evict(uint32_t entry, uint64_t hash);
  void refuse(uint32_t entry);
  // Everything that could leave did: until something changes nothing is wanted.
  void stop_wanting();

 private:
  uint64_t taken_locked() const { return eviction_.used_bytes() + leaving_ + kept_; }
  uint64_t low_bytes() const { return static_cast<uint64_t>(static_cast<double>(limit_bytes()) * low_share_); }
  void update_wants_locked();
  bool frozen_locked() const { return eviction_.scans().frozen() && !pinned_refused_; }

  std::atomic<double> low_share_{1};
  std::atomic<uint64_t> write_budget_bytes_;
  std::atomic<uint64_t> limit_;
  std::atomic<bool> wants_room_{false};

  mutable Spinlock lock_;  // of all below; Eviction::on_hit alone needs none
  Eviction eviction_;
  uint64_t reserved_ = 0;
  uint64_t leaving_ = 0;
  uint64_t kept_ = 0;
  uint64_t refused_bytes_ = 0;   // the largest write that found no room lately
  bool pinned_refused_ = false;  // one of what is pinned: room is made although a scan goes on
  Spent spent_;
};

// What the eviction policy knows a chunk, or a segment, by.
inline uint64_t chunk_hash(const ObjectId& id, uint64_t position) {
  return disk_format::seed_of(id.words[0], id.words[1], position + 1);
}
inline uint64_t segment_hash(unsigned disk, uint32_t number) { return disk_format::seed_of(disk, number, 0); }

}  // namespace blobcache
