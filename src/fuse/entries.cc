#include "fuse/entries.h"

#include <algorithm>

#include "base/assert.h"
#include "base/limits.h"
#include "fuse/address_space.h"

namespace blobcache::fuse {

size_t EntriesGeometry::slot_bytes() const { return limits::page_bytes + payload_bytes; }

size_t EntriesGeometry::total_bytes() const {
  return limits::page_bytes + size_t{queues} * entries_per_queue * slot_bytes();
}

EntriesGeometry plan_entries(uint32_t queues, uint32_t payload_bytes_wanted, uint64_t budget_bytes) {
  EntriesGeometry geometry{.queues = queues, .entries_per_queue = 0, .payload_bytes = payload_bytes_wanted};
  while (true) {
    const uint64_t fitting = budget_bytes / (queues * geometry.slot_bytes());
    if (fitting >= limits::queue_entries_min) {
      geometry.entries_per_queue = static_cast<uint32_t>(std::min<uint64_t>(fitting, limits::queue_entries_max));
      return geometry;
    }
    if (geometry.payload_bytes / 2 < limits::request_bytes_min) return geometry;
    geometry.payload_bytes /= 2;
  }
}

Result<void> Entries::create(unsigned volume, const EntriesGeometry& geometry) {
  geometry_ = geometry;
  const size_t bytes = geometry.total_bytes();
  BC_ASSERT(bytes <= address_space::entries_stride);
  const Result<void> created = region_.create({.name = "blobcache-entries",
                                               .address = address_space::entries(volume),
                                               .reserve_bytes = bytes,
                                               .bytes = bytes,
                                               .populate = true});
  if (!created) return created;
  new (region_.bytes().data()) EntriesHeader{.magic = magic, .layout_version = layout_version, .geometry = geometry};
  return {};
}

SlotMemory Entries::slot(uint32_t queue, uint32_t entry, uint16_t buffer_index) const {
  BC_ASSERT(queue < geometry_.queues && entry < geometry_.entries_per_queue);
  const size_t number = size_t{queue} * geometry_.entries_per_queue + entry;
  std::byte* base = region_.bytes().data() + limits::page_bytes + number * geometry_.slot_bytes();
  return SlotMemory{.header = reinterpret_cast<abi::UringHeader*>(base),
                    .payload = base + limits::page_bytes,
                    .payload_bytes = geometry_.payload_bytes,
                    .queue = static_cast<uint16_t>(queue),
                    .buffer_index = buffer_index};
}

}  // namespace blobcache::fuse
