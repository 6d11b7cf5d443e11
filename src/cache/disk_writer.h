// DiskWriter: the writes behind the reply, of one core.
//   Owner     a Core.   Thread  the core's
//   Lifetime  built with the core's tables, and before DiskTier::stop(). At the end: flush(), then turns until idle(): drain
//             waits for CQEs, not for keepers. While it is not idle it may not be freed (the disk hangs)
//   Own files blocks go from the frame they were loaded into straight to their place in the file (WRITE_FIXED, O_DIRECT);
//             the frame is held until the write has ended
//   Packed    objects smaller than a chunk are copied, header and bytes, into a staging buffer that is written when it is full
//             or has waited for flush_ns
//   Limits    writing_max in flight, one begun a turn; writes_max waiting, with frames of held_bytes_max; two staging buffers a
//             disk; beyond that a write is shed: a later miss
//   Order     data, then (keeper) sidecar and index: what a crash leaves is at worst a miss
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/object_id.h"
#include "cache/disk_tier.h"
#include "cache/memory_tier.h"
#include "ring/reactor.h"

namespace blobcache {

class DiskWriter {
 public:
  struct Options {
    DiskTier* tier = nullptr;
    MemoryTier* memory = nullptr;
    Reactor* reactor = nullptr;
    bool registered_buffers = true;  // the ring knows the arena
    std::span<std::byte> staging;    // page-aligned, staging_bytes(disks); inside the arena or not
    int staging_buffer_index = -1;   // registered buffer that staging lies in; -1: none
    // Of frames that wait for their write: a share of the memory tier, which must go on serving.
    uint64_t held_bytes_max = 64 * limits::MiB;
  };
  static constexpr unsigned writes_max = 512;
  static constexpr unsigned writing_max = 16;
  // Two buffers a disk, each for the largest packed object and its header, and for 2 MiB at least.
  static size_t staging_bytes(unsigned disks, uint64_t chunk_bytes);

  // Of the heap, what a writer takes: for the memory plan.
  static size_t state_bytes(unsigned disks, uint64_t chunk_bytes);

  explicit DiskWriter(const Options& options);
  ~DiskWriter();
  DiskWriter(const DiskWriter&) = delete;
  DiskWriter& operator=(const DiskWriter&) = delete;

  // Blocks of an own-file object that a load has just brought: bits of the frame, valid bytes, still loading (so before
  // MemoryTier::finish_load). The frame is held as long as it is needed. damaged: those of them that the index may still
  // call valid, because the DiskDropJob that was posted for them has not run yet.
  void write_blocks(const ObjectId& id, uint64_t object_bytes, Frame& frame, uint64_t frame_offset, uint64_t blocks,
                    uint64_t damaged = 0);
  // A packed object of which a load has just ended (after finish_load): written if all of it is in memory.
  void write_packed(const ObjectId& id, uint64_t object_bytes);
  // Half of the frames that may be held wait for their write: what nobody reads yet had better come later than be shed.
  bool crowded() const;
  // Nothing is in flight or staged.
  bool idle() const;
  // Writes what is staged now, and ends the segments when that is done; for the end. Within a turn, or after the last.
  void flush();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace blobcache
