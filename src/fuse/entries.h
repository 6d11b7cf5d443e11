// Entries: the memory of every FUSE slot of one volume, in a memfd at a fixed address, so that requests survive the process
// (a successor maps it, finds the unanswered ones and answers them; docs/KERNEL.md).
//   Owner     a volume
//   Thread    built on the main thread; each slot's memory belongs to its core
//   Layout    page 0: EntriesHeader. Then per slot a header page and the payload, in the order queue, entry.
#pragma once

#include <cstdint>
#include <vector>

#include "base/memory.h"
#include "base/result.h"
#include "fuse/transport.h"

namespace blobcache::fuse {

struct EntriesGeometry {
  uint32_t queues = 0;
  uint32_t entries_per_queue = 0;
  uint32_t payload_bytes = 0;  // a multiple of 4 KiB

  size_t slot_bytes() const;
  size_t total_bytes() const;
};

// Fits queues into the budget: as many entries as it allows (between the limits), smaller requests before fewer than
// queue_entries_min entries. entries_per_queue == 0: even the smallest do not fit.
EntriesGeometry plan_entries(uint32_t queues, uint32_t payload_bytes_wanted, uint64_t budget_bytes);

struct EntriesHeader {
  uint64_t magic;
  uint32_t layout_version;
  EntriesGeometry geometry;
};

class Entries {
 public:
  static constexpr uint64_t magic = 0x31746e6563626c62;  // "blbcent1"
  static constexpr uint32_t layout_version = 1;

  // Each volume has its own place in the address space. Errors: again (no memory, or the place is taken).
  Result<void> create(unsigned volume, const EntriesGeometry& geometry);
  SlotMemory slot(uint32_t queue, uint32_t entry, uint16_t buffer_index) const;
  iovec memory() const { return {region_.bytes().data(), region_.bytes().size()}; }
  const EntriesGeometry& geometry() const { return geometry_; }

 private:
  SharedRegion region_;
  EntriesGeometry geometry_;
};

}  // namespace blobcache::fuse
