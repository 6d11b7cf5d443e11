// Eviction: which chunk leaves the disk tier, and whether a new one may come in. Counters only: no I/O, no clock, no
// randomness; the same calls give the same answers.
//   Owner     the index of one disk tier; it owns the entries too: entry i belongs to the index's slot i
//   Thread    on_hit any (one relaxed store, none once the chunk is known as popular); all else under the index's lock;
//             on_access needs it only where scans().samples(hash), a few keys in a large cache
//   Limits    16 bytes an entry and 4 of memory of those that left: 20 of the 64 that a chunk may cost; 288 KiB for the
//             detector. No allocation after the constructor. A call for a victim looks at most at looks_max entries
//   Invariant after insert used_bytes() <= capacity_bytes(): the caller makes room first
//
// What is pinned is held: it takes of the capacity and is never a victim. What stays for other reasons (readers, a file that is
// armed for passthrough) is the caller's to know: it refuses the victim and is given another. What leaves for other reasons
// (TTL, a lost block) is taken out by remove.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <span>

#include "base/assert.h"
#include "cache/eviction_scan.h"

namespace blobcache {

struct EvictionEntry {
  enum class Queue : uint8_t { absent, young, main, held };

  uint32_t newer = 0;
  uint32_t older = 0;
  uint32_t pages = 0;  // of 4 KiB: what the disk has given away for it
  Queue queue = Queue::absent;
  std::atomic<uint8_t> visits{0};
};
static_assert(sizeof(EvictionEntry) == 16);

// A FIFO of entries, linked by their slots.
struct EvictionQueue {
  static constexpr uint32_t none = UINT32_MAX;

  uint32_t newest = none;
  uint32_t oldest = none;
  uint32_t count = 0;
  uint64_t pages = 0;

  void push(std::span<EvictionEntry> entries, uint32_t slot);
  void unlink(std::span<EvictionEntry> entries, uint32_t slot);
};

// The keys that left the young queue while the last capacity's worth did: 4 bytes each, in buckets of 8 that forget
// their oldest. A key that was never there is found with a probability of 1/8,000.
class EvictedKeys {
 public:
  explicit EvictedKeys(size_t keys_count);

  void insert(uint64_t hash, uint16_t age);
  // Takes the key out; false: it is not there, or older than age_max.
  bool take(uint64_t hash, uint16_t age, uint16_t age_max);
  size_t bytes() const { return buckets_ * ways * sizeof(uint32_t); }

 private:
  static constexpr unsigned ways = 8;

  struct Free {
    void operator()(uint32_t* memory) const { std::free(memory); }
  };
  uint32_t* bucket(uint64_t hash) { return keys_.get() + (hash & (buckets_ - 1)) * ways; }
  static uint16_t fingerprint(uint64_t hash) { return static_cast<uint16_t>(hash >> 48 | 1); }

  size_t buckets_;
  std::unique_ptr<uint32_t[], Free> keys_;  // fingerprint << 16 | age; 0: empty. Pages are taken as they are used
};

class Eviction {
 public:
  static constexpr uint32_t none = EvictionQueue::none;
  static constexpr unsigned looks_max = 128;
  static constexpr unsigned refusals_max = 128;

  struct Options {
    std::span<EvictionEntry> entries;
    uint64_t capacity_bytes;
    bool detect_scans = true;
    size_t keys_count = 0;  // of those that left; 0: as many as entries
  };
  explicit Eviction(const Options& options);

  // Each visit of a reader to a chunk, hit or miss, before what it leads to (see ScanDetector for what a visit is).
  // hash: of the chunk's identity, uniform over 64 bits, the same in every call for the chunk.
  void on_access(uint64_t hash, uint64_t bytes, bool hit) {
    if (detect_scans_ && scans_.samples(hash)) scans_.on_access(hash, pages_of(bytes), hit);
  }
  void on_hit(uint32_t slot) {
    std::atomic<uint8_t>& visits = entries_[slot].visits;
    const uint8_t seen = visits.load(std::memory_order_relaxed);
    // Two cores at once count one visit: no harm.
    if (seen < visits_max) visits.store(static_cast<uint8_t>(seen + 1), std::memory_order_relaxed);
  }

  // Whether a chunk that was missed is to be brought in. While a cyclic scan goes on: only into free space.
  bool admits(uint64_t bytes) const;
  // The chunk now fills the slot. Room was made: used_bytes() + bytes, in whole pages, is within the capacity.
  void insert(uint32_t slot, uint64_t hash, uint64_t bytes);
  void remove(uint32_t slot);
  // What is in the slot takes more of the disk, or less (but not nothing: remove). Whole pages; room as for insert.
  void grow(uint32_t slot, uint64_t bytes);
  void shrink(uint32_t slot, uint64_t bytes);
  // 0: it is absent.
  uint64_t bytes_of(uint32_t slot) const {
    return entries_[slot].queue == EvictionEntry::Queue::absent ? 0 : entries_[slot].pages * page_bytes;
  }

  // Never a victim from now on, until it is let go: as what is new, with the visits that it had. The slot is not absent; both
  // say nothing new twice.
  void hold(uint32_t slot);
  void let_go(uint32_t slot);
  bool is_held(uint32_t slot) const { return entries_[slot].queue == EvictionEntry::Queue::held; }
  uint64_t held_bytes() const { return held_.pages * page_bytes; }

  // What a restart should know of what is in the slot: 0 of what nobody read again, or of nothing.
  uint8_t frequency(uint32_t slot) const;
  // Of what was just inserted. frequency: any value.
  void restore(uint32_t slot, uint8_t frequency);

  // The slot that should leave; none: there is no entry. The same until evict, refuse or another call but on_hit.
  uint32_t victim();
  void evict(uint32_t slot, uint64_t hash);
  // It cannot leave now: it is treated as one just read.
  void refuse(uint32_t slot);

  // Evicts until at most bytes are used. try_evict(slot) -> std::optional<uint64_t>: the hash of the chunk that has
  // left, or nothing, which refuses. false: refusals_max were refused, or nothing is left.
  template <class TryEvict>
  bool shrink_to(uint64_t bytes, TryEvict&& try_evict) {
    for (unsigned refusals = 0; used_bytes() > bytes;) {
      const uint32_t slot = victim();
      if (slot == none) return false;
      const std::optional<uint64_t> hash = try_evict(slot);
      if (hash) {
        evict(slot, *hash);
      } else {
        refuse(slot);
        if (++refusals == refusals_max) return false;
      }
    }
    return true;
  }
  // The same, so that a chunk of so many bytes fits.
  template <class TryEvict>
  bool make_room(uint64_t bytes, TryEvict&& try_evict) {
    const uint64_t needed = pages_of(bytes) * page_bytes;
    return needed <= capacity_bytes() && shrink_to(capacity_bytes() - needed, try_evict);
  }

  // Others fill the filesystem, or leave it. Below used_bytes(): the caller shrinks.
  void set_capacity(uint64_t bytes);
  uint64_t capacity_bytes() const { return capacity_pages_ * page_bytes; }
  uint64_t used_bytes() const { return used_pages() * page_bytes; }
  uint32_t entries_count() const { return young_.count + main_.count + held_.count; }
  const ScanDetector& scans() const { return scans_; }
  // Asserts that queues, entries and sums agree; for tests, takes time in proportion to the entries.
  void verify() const;

 private:
  static constexpr uint64_t page_bytes = 4096;
  static constexpr uint8_t visits_max = 3;
  static constexpr uint8_t visits_to_stay = 2;
  static constexpr uint8_t frequency_main = visits_max + 1;  // a bit beside the visits
  static constexpr unsigned young_share = 10;                // a tenth
  static constexpr unsigned age_steps = 256;                 // in one capacity's worth of evicted pages

  static uint32_t pages_of(uint64_t bytes);
  EvictionQueue& queue_of(uint32_t slot);
  uint64_t used_pages() const { return young_.pages + main_.pages + held_.pages; }
  // What the policy has to give away.
  uint64_t free_pages() const { return capacity_pages_ - std::min(capacity_pages_, held_.pages); }
  void tell_scans() { scans_.set_capacity(std::max<uint64_t>(1, free_pages())); }
  void to_front_of_main(uint32_t slot, uint8_t visits);
  uint16_t age() const { return static_cast<uint16_t>(left_young_pages_ / age_step_pages_); }
  uint16_t age_max() const {
    return static_cast<uint16_t>(std::min<uint64_t>(capacity_pages_ / age_step_pages_, 2 * age_steps));
  }
  void verify_queue(const EvictionQueue& queue, EvictionEntry::Queue name) const;

  std::span<EvictionEntry> entries_;
  uint64_t capacity_pages_;
  EvictionQueue young_;
  EvictionQueue main_;
  EvictionQueue held_;
  EvictedKeys evicted_;
  uint64_t left_young_pages_ = 0;
  uint64_t age_step_pages_;
  bool detect_scans_;
  ScanDetector scans_;
};

}  // namespace blobcache
