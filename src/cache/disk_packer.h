// DiskPacker: small objects on their way to a segment; the packed half of DiskWriter, of one core.
//   Owner     DiskWriter.   Thread  the core's
//   Lifetime  idle() before it ends
//   Limits    queue_max objects wait for their turn, two buffers a disk, segments_max segments a disk that are not ended;
//             beyond that an object is shed: a later miss
//   States    of a buffer: free -> filling -> ready (waits for a segment) -> writing -> telling (the keeper) -> free
//             of a segment: free -> asked for -> current -> ending (its last writes are told) -> ended -> free
//   Invariant a page of a segment is written once: a write that failed leaves its pages unused
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/list.h"
#include "base/object_id.h"
#include "cache/disk_tier.h"
#include "cache/memory_tier.h"
#include "ring/reactor.h"

namespace blobcache {

class DiskPacker {
 public:
  struct Options {
    DiskTier* tier = nullptr;
    MemoryTier* memory = nullptr;
    Reactor* reactor = nullptr;
    std::span<std::byte> staging;
    int staging_buffer_index = -1;
    // There is room for an object again: has_work() may be true.
    void (*on_room)(void* context) = nullptr;
    void* on_room_context = nullptr;
  };
  static constexpr uint64_t flush_ns = 100'000'000;
  static constexpr unsigned queue_max = 1024;
  static constexpr unsigned segments_max = 4;
  static constexpr unsigned buffers_per_disk = 2;
  static size_t buffer_bytes(uint64_t chunk_bytes);
  // Of the heap, beside this.
  static size_t state_bytes(unsigned disks, uint64_t chunk_bytes);

  explicit DiskPacker(const Options& options);
  ~DiskPacker();
  DiskPacker(const DiskPacker&) = delete;
  DiskPacker& operator=(const DiskPacker&) = delete;

  // True: it is to be packed, and step() will do it.
  bool add(const ObjectId& id, uint64_t object_bytes);
  bool has_work() const { return queue_count_ > 0 && !waits_for_room_; }
  // Stages one object, or finds that there is no room for it.
  void step();
  // Stages and writes all there is, and then ends the segments.
  void flush();
  bool idle() const;

 private:
  struct Buffer;
  struct Segment;
  struct Disk;
  struct Object {
    ObjectId id;
    uint64_t bytes = 0;
  };

  bool known(const ObjectId& id) const;
  bool stage(const Object& object);
  Buffer* buffer_for(Disk& disk, uint64_t bytes);
  bool copy(Buffer& buffer, const Object& object);
  void write(Buffer& buffer);
  void advance(Disk& disk);
  void start(Buffer& buffer, Segment& segment);
  bool ask_segment(Disk& disk);
  void end_segment(Segment& segment);
  void leave_segment(Buffer& buffer);
  void discard(Buffer& buffer, int os_errno, bool written = false);
  void set_free(Buffer& buffer);

  static void on_flush_due(Timer& timer);
  static void on_written(Op& op, int32_t result, uint32_t flags);
  static void on_told(DiskJob& job);
  static void on_segment(DiskJob& job);
  static void on_segment_ended(DiskJob& job);

  const Options options_;
  size_t buffer_bytes_ = 0;
  std::vector<std::unique_ptr<Disk>> disks_;
  Object queue_[queue_max];  // a ring
  unsigned queue_first_ = 0;
  unsigned queue_count_ = 0;
  bool waits_for_room_ = false;  // the next object's disk has no buffer free
};

}  // namespace blobcache
