#include "serve/handle.h"

#include <mutex>

#include "base/assert.h"
#include "serve/prefetch.h"

namespace blobcache::serve {

Handles::Handles() = default;

Handles::~Handles() {
  for (uint32_t i = 0; i < segment_count_; ++i) {
    Handle* segment = segments_[i].load(std::memory_order_relaxed);
    // Of files that were still open when the connection ended.
    for (uint32_t j = 0; j < segment_size; ++j) delete segment[j].prefetch.load(std::memory_order_relaxed);
    delete[] segment;
  }
}

Handle* Handles::take() {
  const std::lock_guard guard(lock_);
  if (free_ == none) {
    if (segment_count_ == handles_max / segment_size) return nullptr;
    auto* segment = new Handle[segment_size];
    for (uint32_t i = segment_size; i-- > 0;) {
      segment[i].index = segment_count_ * segment_size + i;
      segment[i].next_free = free_;
      free_ = segment[i].index;
    }
    segments_[segment_count_++].store(segment, std::memory_order_release);
  }
  Handle& handle = segments_[free_ / segment_size].load(std::memory_order_relaxed)[free_ % segment_size];
  free_ = handle.next_free;
  handle.references.store(1, std::memory_order_relaxed);
  return &handle;
}

void Handles::publish(Handle& handle) {
  const uint32_t generation = handle.generation.load(std::memory_order_relaxed);
  BC_ASSERT(generation % 2 == 0);
  handle.generation.store(generation + 1, std::memory_order_release);
  open_.fetch_add(1, std::memory_order_relaxed);
}

Handle* Handles::get(uint64_t id) {
  const auto index = static_cast<uint32_t>(id);
  if (index >= handles_max) return nullptr;
  Handle* segment = segments_[index / segment_size].load(std::memory_order_acquire);
  if (segment == nullptr) return nullptr;
  Handle& handle = segment[index % segment_size];
  const auto generation = static_cast<uint32_t>(id >> 32);
  if (generation % 2 == 0 || handle.generation.load(std::memory_order_acquire) != generation) return nullptr;
  return &handle;
}

void Handles::put_back(Handle& handle) {
  const std::lock_guard guard(lock_);
  const uint32_t generation = handle.generation.load(std::memory_order_relaxed);
  if (generation % 2 == 1) {
    handle.generation.store(generation + 1, std::memory_order_release);
    open_.fetch_sub(1, std::memory_order_relaxed);
  }
  handle.entries.clear();
  handle.entries.shrink_to_fit();
  handle.names = nullptr;
  handle.entries_told = 0;
  handle.entries_from = 0;
  handle.listing = false;
  handle.origin_fd.store(-1, std::memory_order_relaxed);
  handle.mode = OpenMode::untold;
  handle.expected_offset.store(0, std::memory_order_relaxed);
  handle.visited_position.store(Handle::no_position, std::memory_order_relaxed);
  BC_ASSERT(handle.disk_files.current() == nullptr);
  handle.next_free = free_;
  free_ = handle.index;
}

}  // namespace blobcache::serve
