// Room is made by the keeper, before it is needed: cores only ask, and do without when there is none. So the room between
// the low watermark and the limit is what writes live on while the keeper evicts; it begins when half of that is gone.
//
// While a cyclic scan goes on (Eviction::scans().frozen()) nothing leaves in favour of what is new, and the cache fills to
// its limit and stays so.
//
// A write larger than the room that is left, in a cache so small that nothing else asks for room, would be refused for
// ever; so the largest refused write is remembered and room is made for it.
#include "cache/disk_space.h"

#include <algorithm>
#include <mutex>

#include "cache/disk_table.h"

namespace blobcache {

using Guard = std::lock_guard<Spinlock>;

DiskSpace::DiskSpace(const Options& options)
    : write_budget_bytes_(options.write_budget_bytes),
      limit_(options.limit_bytes),
      eviction_({.entries = options.entries,
                 .capacity_bytes = options.limit_bytes,
                 .detect_scans = options.detect_scans,
                 .keys_count = options.keys_count}) {}

bool DiskSpace::try_reserve(uint64_t bytes, uint64_t day, For what) {
  const uint64_t budget_bytes = write_budget_bytes_.load(std::memory_order_relaxed);
  const Guard guard(lock_);
  if (budget_bytes != 0 && spent_.day != day) spent_ = {.day = day, .bytes = 0};
  if (budget_bytes != 0 && spent_.bytes + bytes > budget_bytes) return false;
  const bool admitted = what == For::pinned || eviction_.admits(bytes);
  if (taken_locked() + reserved_ + bytes > limit_bytes() || !admitted) {
    if (what == For::pinned) pinned_refused_ = true;
    if (!frozen_locked()) refused_bytes_ = std::max(refused_bytes_, bytes);
    update_wants_locked();
    return false;
  }
  reserved_ += bytes;
  if (budget_bytes != 0) spent_.bytes += bytes;
  update_wants_locked();
  return true;
}

void DiskSpace::unreserve(uint64_t bytes) {
  const Guard guard(lock_);
  BC_ASSERT(reserved_ >= bytes);
  reserved_ -= bytes;
}

void DiskSpace::give_back(uint64_t bytes) {
  unreserve(bytes);
  const Guard guard(lock_);
  spent_.bytes -= std::min(spent_.bytes, bytes);  // it may have been another day's
}

void DiskSpace::on_visit(uint64_t hash, uint64_t bytes, uint32_t entry) {
  if (entry != disk_slot_none) eviction_.on_hit(entry);
  if (!eviction_.scans().samples(hash)) return;
  const Guard guard(lock_);
  // What is pinned is read as often as anybody likes: no scan of the rest.
  if (entry != disk_slot_none && eviction_.is_held(entry)) return;
  eviction_.on_access(hash, bytes, entry != disk_slot_none);
}

uint64_t DiskSpace::used_bytes() const {
  const Guard guard(lock_);
  return taken_locked();
}

uint64_t DiskSpace::reserved_bytes() const {
  const Guard guard(lock_);
  return reserved_;
}

DiskSpace::Spent DiskSpace::spent() const {
  const Guard guard(lock_);
  return spent_;
}

void DiskSpace::set_spent(const Spent& spent) {
  const Guard guard(lock_);
  spent_ = spent;
}

uint64_t DiskSpace::entries_bytes() const {
  const Guard guard(lock_);
  return eviction_.used_bytes();
}

bool DiskSpace::scan_frozen() const {
  const Guard guard(lock_);
  return eviction_.scans().frozen();
}

void DiskSpace::update_wants_locked() {
  const uint64_t begin = (low_bytes() + limit_bytes()) / 2;
  const bool full = taken_locked() + reserved_ > begin && !frozen_locked();
  wants_room_.store(full || refused_bytes_ != 0 || taken_locked() + reserved_ > limit_bytes(),
                    std::memory_order_relaxed);
}

void DiskSpace::set_limit(uint64_t bytes) {
  const Guard guard(lock_);
  limit_.store(bytes, std::memory_order_relaxed);
  eviction_.set_capacity(bytes);
  update_wants_locked();
}

void DiskSpace::add(uint32_t entry, uint64_t hash, uint64_t bytes) {
  const Guard guard(lock_);
  const uint64_t needed = eviction_.used_bytes() + bytes + limits::page_bytes;
  if (needed > eviction_.capacity_bytes()) eviction_.set_capacity(needed);
  if (eviction_.bytes_of(entry) == 0)
    eviction_.insert(entry, hash, bytes);
  else
    eviction_.grow(entry, bytes);
  update_wants_locked();
}

void DiskSpace::shrink(uint32_t entry, uint64_t bytes) {
  const Guard guard(lock_);
  eviction_.shrink(entry, bytes);
  leaving_ += bytes;
}

uint64_t DiskSpace::remove(uint32_t entry) {
  if (entry == disk_slot_none) return 0;
  const Guard guard(lock_);
  const uint64_t bytes = eviction_.bytes_of(entry);
  if (bytes == 0) return 0;
  eviction_.remove(entry);
  leaving_ += bytes;
  return bytes;
}

uint64_t DiskSpace::bytes_of(uint32_t entry) const {
  const Guard guard(lock_);
  return entry == disk_slot_none ? 0 : eviction_.bytes_of(entry);
}

uint8_t DiskSpace::frequency_of(uint32_t entry) const {
  const Guard guard(lock_);
  return entry == disk_slot_none ? 0 : eviction_.frequency(entry);
}

void DiskSpace::restore(uint32_t entry, uint8_t frequency) {
  const Guard guard(lock_);
  if (eviction_.bytes_of(entry) != 0) eviction_.restore(entry, frequency);
}

void DiskSpace::hold(uint32_t entry) {
  const Guard guard(lock_);
  if (entry != disk_slot_none && eviction_.bytes_of(entry) != 0) eviction_.hold(entry);
}

void DiskSpace::let_go(uint32_t entry) {
  const Guard guard(lock_);
  if (entry == disk_slot_none || eviction_.bytes_of(entry) == 0) return;
  eviction_.let_go(entry);
  update_wants_locked();
}

uint64_t DiskSpace::held_bytes() const {
  const Guard guard(lock_);
  return eviction_.held_bytes();
}

void DiskSpace::want_room(uint64_t bytes) {
  const Guard guard(lock_);
  if (taken_locked() + reserved_ + bytes <= limit_bytes()) return;
  refused_bytes_ = std::max(refused_bytes_, bytes);
  pinned_refused_ = true;
  update_wants_locked();
}

void DiskSpace::settle(uint64_t bytes) {
  const Guard guard(lock_);
  BC_ASSERT(leaving_ >= bytes);
  leaving_ -= bytes;
}

void DiskSpace::keep(uint64_t bytes) {
  const Guard guard(lock_);
  BC_ASSERT(leaving_ >= bytes);
  leaving_ -= bytes;
  kept_ += bytes;
}

void DiskSpace::settle_kept(uint64_t bytes) {
  const Guard guard(lock_);
  BC_ASSERT(kept_ >= bytes);
  kept_ -= bytes;
}

uint64_t DiskSpace::bytes_too_many(bool hard) const {
  const Guard guard(lock_);
  const bool frozen = frozen_locked();
  uint64_t target = hard || frozen ? limit_bytes() : low_bytes();
  if (!frozen) target = std::min(target, limit_bytes() - std::min(limit_bytes(), refused_bytes_));
  // What is leaving is as good as gone.
  const uint64_t taken = eviction_.used_bytes() + kept_ + reserved_;
  return taken > target ? taken - target : 0;
}

uint32_t DiskSpace::victim() {
  const Guard guard(lock_);
  return eviction_.victim();
}

void DiskSpace::evict(uint32_t entry, uint64_t hash) {
  const Guard guard(lock_);
  leaving_ += eviction_.bytes_of(entry);
  eviction_.evict(entry, hash);
}

void DiskSpace::refuse(uint32_t entry) {
  const Guard guard(lock_);
  eviction_.refuse(entry);
}

void DiskSpace::stop_wanting() {
  const Guard guard(lock_);
  refused_bytes_ = 0;
  pinned_refused_ = false;
  wants_room_.store(false, std::memory_order_relaxed);
}

}  // namespace blobcache
