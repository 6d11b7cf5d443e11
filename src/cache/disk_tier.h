// DiskTier: L1. What was read once, on the local disks: the files, the index over them, who leaves, and their health.
//   Owner     Node.      Thread  open, start, stop: the main thread; everything else any thread, and never blocks
//   Lifetime  open() -> start() -> (cores run) -> stop() after the cores ended
//   Objects   of at least a chunk (cache.chunk_size) have a file of their own; smaller ones lie in segments (disk_format.h)
//   Threads   a keeper for each disk (disk_jobs.h): it alone makes and removes files and says what is valid; and a verifier for
//             each disk, which reads back what has become whole, and later, slowly, everything (the scrubber)
//   Reads     cores read the files themselves, through their rings, between reads().enter and leave
//   Trust     a block is *valid* when it was written, *verified* when it was read back and its checksum matched in this boot
//   Limits    space: limit_bytes of each disk, watermarks of the filesystem; memory: Options::memory_bytes
//   Invariant what find() shows as verified holds the object's bytes, unless the disk changes them by itself
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/config.h"
#include "cache/disk_directory.h"
#include "cache/disk_file.h"
#include "cache/disk_health.h"
#include "cache/disk_index.h"
#include "cache/disk_jobs.h"
#include "cache/disk_reads.h"
#include "cache/disk_space.h"

namespace blobcache {

std::string_view state_name(DiskState state);

struct DiskStats {
  std::string path;
  DiskState state = DiskState::ok;
  std::string why;          // of the state; empty when ok
  bool stacked = false;     // no passthrough here
  uint64_t used_bytes = 0;  // what the cache takes, in whole pages, that of evicted but open files included
  uint64_t limit_bytes = 0;
  uint64_t pinned_bytes = 0;  // what may not leave: whole objects, and segments that something pinned lies in
  uint64_t pinned_bytes_max = 0;
  uint64_t objects = 0;  // of all disks
  uint64_t evicted_bytes = 0;
  uint64_t written_bytes = 0;
  uint64_t writes_shed = 0;  // blocks that were not written: no room, no budget, too many at once
  uint64_t read_errors = 0;
  uint64_t write_errors = 0;
  uint64_t corrupt_blocks = 0;
  uint64_t scrubbed_bytes = 0;
  bool scan_frozen = false;  // a cyclic scan goes on: nothing is admitted in place of what is there
};

// What lies on disk of one object; long (looks at every chunk).
struct DiskObjectFacts {
  bool known = false;
  uint64_t valid_bytes = 0;
  uint64_t verified_bytes = 0;
  bool whole_verified = false;
  bool pinned = false;
  std::string path;  // of its own file; empty for packed ones
};

class DiskTier {
 public:
  struct Options {
    CacheConfig cache;  // disks, chunk_bytes, ttl, budget, verify, eviction, admission
    disk_format::Uuid node;
    uint64_t memory_bytes = 0;  // for the index and eviction; 0: memory_wanted()
    Amount quota;               // the most of all disks; none: what the disks' own sizes allow
    // The scrubber's rate, when it begins, and how long it rests when it has read everything.
    uint64_t scrub_bytes_per_s = 16 * limits::MiB;
    uint64_t scrub_delay_ns = uint64_t{60} * 1'000'000'000;
    uint64_t scrub_pause_ns = uint64_t{3600} * 1'000'000'000;
  };

  DiskTier();
  ~DiskTier();
  DiskTier(const DiskTier&) = delete;
  DiskTier& operator=(const DiskTier&) = delete;

  // Memory that an index for disks of so many bytes would like to have; the plan may give less.
  static uint64_t memory_wanted(uint64_t disk_bytes);
  // Opens and locks every directory and loads its index. message_out: one sentence with cause and remedy.
  Result<void> open(const Options& options, std::string* message_out);
  void start();
  // Sees which disks stand still. Called by one core, some times a second, while cores run.
  void watch(uint64_t now_ns);
  // Takes over object_ttl, write_budget, the quota and the disks' watermarks; the disks are those of open(). Any thread, any
  // time. Keepers see what concerns them at their next tick, within 5 s.
  void change(const CacheConfig& cache, const Amount& quota);
  // Ends keepers and verifiers, writes what is pending. The cores have ended. False: a disk hangs; do not free anything.
  bool stop(unsigned patience_ms);

  // ---- reading ----
  DiskReads& reads();
  bool verify_always() const;
  // What the index says of a chunk, unless the object's disk is down.
  bool find(const ObjectId& id, uint64_t position, DiskView* view_out);
  // The open file that view leads to, with a reference; null: a DiskOpenJob must open it first.
  DiskFile* try_file(const ObjectId& id, const DiskView& view);
  void reference(DiskFile& file) { file.references.fetch_add(1, std::memory_order_relaxed); }
  void release(DiskFile& file);
  // What O_DIRECT asks of offset, length and memory on this disk.
  uint32_t direct_alignment(unsigned disk) const;
  bool stacked(unsigned disk) const;
  // Blocks whose checksums matched just now, read through the file that find() led to.
  void mark_verified(const ObjectId& id, uint64_t position, uint64_t blocks);
  // A reader comes to a chunk (once a visit, not a request); view: what find() said, null on a miss.
  void on_visit(const ObjectId& id, uint64_t position, uint64_t bytes, const DiskView* view);
  void on_read_error(unsigned disk, int os_errno);
  // A read took, or has been taking, DiskHealth::read_stuck_after_ns: the disk is left alone until probes are quick.
  void on_slow_read(unsigned disk);
  // Of objects that lost their end; blocks that do not match are counted when they are dropped.
  void on_corrupt(unsigned disk, unsigned blocks);
  // Of damaged blocks, so far: for DiskDropJob. Asked before the read that met them leaves reads().
  uint64_t drops_done(unsigned disk) const;

  // ---- writing (DiskWriter) ----
  bool packs(uint64_t object_bytes) const;
  // The disk that a new object goes to; -1: none takes writes.
  int disk_for(const ObjectId& id) const;
  // Bytes of a new object that are not written, before anything was reserved: counted where they would have gone.
  void on_shed(const ObjectId& id, uint64_t bytes);
  // Reserves room and budget for so many bytes. False: do without (counted). Given back by the job that tells of the write
  // (reserved_bytes), or by abandon_write.
  bool begin_write(unsigned disk, uint64_t bytes, DiskSpace::For what = DiskSpace::For::any);
  // Packed objects are awaited there, to be pinned (DiskPinJob).
  bool awaits_pins(unsigned disk) const;
  // os_errno: of a write that failed. written: bytes reached the disk all the same, so the day's budget is spent.
  void abandon_write(unsigned disk, uint64_t bytes, int os_errno, bool written = false);
  uint64_t segment_bytes(unsigned disk) const;

  // ---- jobs ----
  // job.disk is the disk of the object's place (open, written, packed, drop, remove, disarm) or disk_for() (create,
  // new_segment).
  void post(Reactor& home, DiskJob& job);
  // The same for threads that are no cores, which wait. Errors: not_found, again (pinned), io.
  Result<void> remove_and_wait(const ObjectId& id);
  // As DiskPinJob, on the disk where the object is or would go; its outs are in facts_out, and which disk.
  struct PinFacts {
    unsigned disk = 0;
    bool was_pinned = false;
    uint64_t wanted_bytes = 0;
    uint64_t pinned_bytes = 0;
    uint64_t pinned_bytes_max = 0;
  };
  Result<void> pin_and_wait(const ObjectId& id, uint64_t object_bytes, PinFacts* facts_out);
  // As DiskUnpinJob, on every disk, whatever another one answers. How many were; io, full: a disk could not tell of it, and
  // its pins are there again after a restart.
  Result<uint64_t> unpin_and_wait(const ObjectId& id);
  // Reads it all back soon, when it is whole, so that it may be passed through.
  void verify_soon(const ObjectId& id);

  unsigned disk_count() const;
  DiskStats stats(unsigned disk) const;
  // Of all disks: what may be written before anything has to leave.
  uint64_t free_bytes() const;
  DiskObjectFacts facts(const ObjectId& id, uint64_t object_bytes);
  uint64_t memory_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace blobcache
