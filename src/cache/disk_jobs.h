// Jobs of the disk tier: what cores ask of a disk's keeper, the one thread that makes, names, measures and removes files and
// changes what the index says is valid. One keeper a disk, one job after the other, so that nothing of it can race.
//   Owner     whoever posts it; it lives until on_done has run
//   Thread    filled and posted by a core; run by the keeper; on_done runs on the core that posted it (`home`)
//   Errors    `failed` and `error`; what the job has to give back then is nothing
//   Stopping  a job that runs while the tier stops is done and not answered: its core has ended; a file that it opened is
//             closed with the tier, as is that of an answer which came too late
#pragma once

#include <cstdint>
#include <span>

#include "base/limits.h"
#include "base/list.h"
#include "base/object_id.h"
#include "base/result.h"
#include "ring/reactor.h"

namespace blobcache {

struct DiskFile;

struct DiskJob : Message, ListNode {
  enum class Kind : uint8_t {
    open,
    create,
    written,
    new_segment,
    packed,
    end_segment,
    drop_blocks,
    remove,
    pin,
    unpin,
    disarm
  };

  explicit DiskJob(Kind kind_of_job) : Message(&DiskJob::on_message), kind(kind_of_job) {}

  const Kind kind;
  uint8_t disk = 0;
  bool failed = false;
  Error error{Code::io};
  Reactor* home = nullptr;                  // set by DiskTier::post
  void (*on_done)(DiskJob& job) = nullptr;  // on home's core; the job is the poster's again

 private:
  static void on_message(Op& op, int32_t, uint32_t) {
    auto& self = static_cast<DiskJob&>(op);
    self.on_done(self);
  }
};

// Opens the file that an indexed object lies in, and compares its stamp, so that its marks count.
// Errors: not_found (nothing of it is cached), io.
struct DiskOpenJob : DiskJob {
  DiskOpenJob() : DiskJob(Kind::open) {}
  ObjectId id;
  // When set: a whole and verified file is made a backing file of a FUSE connection, by this function on the keeper's thread;
  // it returns the id, or a negative errno.
  int (*open_backing)(int connection_fd, int file_fd) = nullptr;
  int connection_fd = -1;
  DiskFile* file = nullptr;  // out: with a reference
  int backing_id = -1;       // out: armed when > 0; given back by a DiskDisarmJob
};

// Makes the object known and its file, or opens it when both are there. Errors: full, io.
struct DiskCreateJob : DiskJob {
  DiskCreateJob() : DiskJob(Kind::create) {}
  ObjectId id;
  uint64_t object_bytes = 0;
  DiskFile* file = nullptr;  // out: with a reference
};

// Blocks of one chunk have been written to an object's own file: sidecar, tail, index, in this order.
struct DiskWrittenJob : DiskJob {
  DiskWrittenJob() : DiskJob(Kind::written) {}
  DiskFile* file = nullptr;  // the poster's reference stays the poster's
  uint64_t position = 0;     // of the index's chunk
  uint64_t blocks = 0;       // bits of the chunk
  uint64_t reserved_bytes = 0;
  uint64_t drops_seen = ~uint64_t{0};  // DiskTier::drops_done() before the first of them was written
  uint64_t checksums[limits::blocks_per_chunk_frame] = {};  // of the blocks in `blocks`, at their own places
};

// A new segment, with a reference. Errors: full, io.
struct DiskNewSegmentJob : DiskJob {
  DiskNewSegmentJob() : DiskJob(Kind::new_segment) {}
  DiskFile* file = nullptr;  // out
};

struct DiskPackedItem {
  ObjectId id;
  uint64_t size = 0;
  uint32_t page = 0;  // of its header in the segment
};
// Objects have been written to a segment, headers and all. What is known already is passed over.
struct DiskPackedJob : DiskJob {
  DiskPackedJob() : DiskJob(Kind::packed) {}
  DiskFile* file = nullptr;  // the poster's reference stays the poster's
  std::span<const DiskPackedItem> items;
  uint64_t reserved_bytes = 0;
};

// Nothing will be written to the segment any more: its stamp is taken, and the reference is given back.
struct DiskEndSegmentJob : DiskJob {
  DiskEndSegmentJob() : DiskJob(Kind::end_segment) {}
  DiskFile* file = nullptr;
};

// Blocks whose bytes did not match: they are no longer valid. A packed object leaves as a whole.
struct DiskDropJob : DiskJob {
  DiskDropJob() : DiskJob(Kind::drop_blocks) {}
  ObjectId id;
  uint64_t position = 0;
  uint64_t blocks = 0;
  uint64_t drops_seen =
      ~uint64_t{0};  // DiskTier::drops_done() when they were met: what was dropped since is not dropped again
};

// The object leaves (a command, or it is damaged). Open handles keep its bytes. Errors: not_found, again (pinned).
struct DiskRemoveJob : DiskJob {
  DiskRemoveJob() : DiskJob(Kind::remove) {}
  ObjectId id;
  bool damaged = false;  // a pin does not keep it; it is pinned again when it comes back
};

// The object stays, whatever else needs room, until it is unpinned; what is not here yet is pinned as it comes.
// Errors: full (pinned_bytes_max), invalid (no such size), io (the disk takes no writes), again (too many are awaited).
struct DiskPinJob : DiskJob {
  DiskPinJob() : DiskJob(Kind::pin) {}
  ObjectId id;
  uint64_t object_bytes = 0;
  bool was_pinned = false;        // out
  uint64_t wanted_bytes = 0;      // out: what it adds
  uint64_t pinned_bytes = 0;      // out: of the disk, before
  uint64_t pinned_bytes_max = 0;  // out
};

// id null: all that is pinned on the disk, also what no file of the origin is any more. What is not pinned is no error.
struct DiskUnpinJob : DiskJob {
  DiskUnpinJob() : DiskJob(Kind::unpin) {}
  ObjectId id;
  uint64_t unpinned = 0;  // out: objects
};

// The last open in passthrough mode has ended, or the backing id was never used.
struct DiskDisarmJob : DiskJob {
  DiskDisarmJob() : DiskJob(Kind::disarm) {}
  DiskFile* file = nullptr;  // its reference is given back
  void (*close_backing)(int connection_fd, int backing_id) = nullptr;
  int connection_fd = -1;
  int backing_id = -1;
};

}  // namespace blobcache
