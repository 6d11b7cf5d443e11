// DiskIndex::each_chunk, for disk_index*.cc only: over the chunks of one object without holding its lock for long.
#pragma once

#include "cache/disk_index.h"

namespace blobcache {

// By position, or over the whole part of the table where the object has more positions than that has buckets (a sparse
// file of terabytes has a million).
template <class Valid, class F>
void DiskIndex::each_chunk(unsigned stripe, uint32_t owner, uint64_t chunks, Valid&& valid_owner, F&& f) {
  constexpr uint64_t steps_per_lock = 64;
  const bool by_position = chunks <= chunks_.buckets_per_part();
  const uint64_t end = by_position ? chunks : chunks_.buckets_per_part();
  for (uint64_t at = by_position ? 1 : 0; at < end;) {
    const std::lock_guard guard(stripes_[stripe].lock);
    if (!valid_owner()) return;
    for (const uint64_t stop = at + steps_per_lock < end ? at + steps_per_lock : end; at < stop; ++at) {
      if (by_position) {
        const uint32_t chunk = find_chunk(owner, at);
        if (chunk != disk_slot_none) f(chunk);
        continue;
      }
      uint32_t chunk = chunks_.head(chunks_.first_bucket(stripe) + static_cast<uint32_t>(at));
      while (chunk != disk_slot_none) {
        const uint32_t following = chunks_.next(chunk);
        if (chunks_[chunk].owner == owner) f(chunk);
        chunk = following;
      }
    }
  }
}

}  // namespace blobcache
