// DiskIndex::each_chunk, for disk_index*.cc only: over the chunks of one object without holding its lock for long.
#pragma once

#include <algorithm>

#include "cache/disk_index.h"

namespace blobcache {

// By position, or over the whole part of the table where the object has more positions than that has chunks, about (a
// sparse file of terabytes has a million).
template <class Valid, class F>
void DiskIndex::each_chunk(unsigned stripe, uint32_t owner, uint64_t chunks, Valid&& valid_owner, F&& f) {
  const Chunks::Part& part = stripes_[stripe].chunks;
  bool by_position = false;
  {
    const std::lock_guard guard(stripes_[stripe].lock);
    by_position = chunks <= part.shape.buckets * uint64_t{8};
  }
  const uint64_t steps_per_lock = by_position ? 64 : buckets_per_lock;
  for (uint64_t at = by_position ? 1 : 0; true;) {
    const std::lock_guard guard(stripes_[stripe].lock);
    const uint64_t end = by_position ? chunks : part.shape.buckets;  // it may have grown
    if (at >= end || !valid_owner()) return;
    for (const uint64_t stop = std::min(at + steps_per_lock, end); at < stop; ++at) {
      if (by_position) {
        const uint32_t chunk = find_chunk(owner, at);
        if (chunk != disk_slot_none) f(chunk);
        continue;
      }
      chunks_.each(part, static_cast<uint32_t>(at), [&](uint32_t chunk) {
        if (chunks_[chunk].owner == owner) f(chunk);
      });
    }
  }
}

}  // namespace blobcache
