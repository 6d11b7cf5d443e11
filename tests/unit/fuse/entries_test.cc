// How the FUSE entries share their budget, and where each slot lies.
#include <doctest/doctest.h>

#include "base/limits.h"
#include "fuse/entries.h"

namespace blobcache::fuse {
namespace {

using limits::KiB;
using limits::MiB;

TEST_CASE("entries: as many as the budget allows, never more than the limit") {
  const EntriesGeometry plenty = plan_entries(2, MiB, 10'000 * MiB);
  CHECK(plenty.entries_per_queue == limits::queue_entries_max);
  CHECK(plenty.payload_bytes == MiB);
  const EntriesGeometry some = plan_entries(16, MiB, 256 * MiB);
  CHECK(some.entries_per_queue == 15);  // each takes 4 KiB more than its payload
  CHECK(some.payload_bytes == MiB);
  CHECK(some.total_bytes() <= 256 * MiB + limits::page_bytes);
}

TEST_CASE("entries: smaller requests before fewer than the least number, and nothing when even they do not fit") {
  const EntriesGeometry halved = plan_entries(64, MiB, 140 * MiB);
  CHECK(halved.payload_bytes == 512 * KiB);
  CHECK(halved.entries_per_queue >= limits::queue_entries_min);
  const EntriesGeometry none = plan_entries(192, MiB, 64 * MiB);
  CHECK(none.entries_per_queue == 0);
}

TEST_CASE("entries: slots lie apart, within the region, page-aligned, and the header says the geometry") {
  Entries entries;
  const EntriesGeometry geometry{.queues = 3, .entries_per_queue = 4, .payload_bytes = 128 * KiB};
  REQUIRE(entries.create(2, geometry));
  const iovec memory = entries.memory();
  const auto* begin = static_cast<const std::byte*>(memory.iov_base);
  const auto* end = begin + memory.iov_len;
  const auto& header = *reinterpret_cast<const EntriesHeader*>(begin);
  CHECK(header.magic == Entries::magic);
  CHECK(header.geometry.entries_per_queue == 4);
  const std::byte* previous_end = begin + limits::page_bytes;
  for (uint32_t queue = 0; queue < geometry.queues; ++queue) {
    for (uint32_t entry = 0; entry < geometry.entries_per_queue; ++entry) {
      const SlotMemory slot = entries.slot(queue, entry, 5);
      CHECK(reinterpret_cast<const std::byte*>(slot.header) == previous_end);
      CHECK(reinterpret_cast<uintptr_t>(slot.payload) % limits::page_bytes == 0);
      CHECK(slot.queue == queue);
      CHECK(slot.buffer_index == 5);
      previous_end = slot.payload + slot.payload_bytes;
    }
  }
  CHECK(previous_end == end);
}

}  // namespace
}  // namespace blobcache::fuse
