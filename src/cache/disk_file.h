// DiskFile: one open file of the disk tier: an object's own, or a segment.
//   Owner     DiskFiles; users hold references. At 0 it may stay open for the next user
//   Thread    made and ended by the disk's keeper; references by any thread
//   States    open --keeper removes the object--> gone (its bytes stay readable through the descriptor, nobody finds it)
//   Invariant while `armed` > 0 nothing is written to the file and nothing is punched out of it: the kernel reads it
#pragma once

#include <atomic>
#include <cstdint>

#include "base/list.h"
#include "base/object_id.h"

namespace blobcache {

struct DiskFile : ListNode {  // the node: among those without references, or retired; under the lock of DiskFiles
  // Constant once published.
  ObjectId id;                // null: a segment
  uint64_t object_bytes = 0;  // own-file objects
  uint32_t segment = 0;       // segments
  uint8_t disk = 0;
  bool packed = false;  // a segment
  int fd = -1;          // O_RDWR | O_DIRECT
  int sums_fd = -1;     // the sidecar, through the page cache; own-file objects only

  std::atomic<uint32_t> references{0};
  std::atomic<bool> gone{false};
  std::atomic<uint32_t> armed{0};    // opens in passthrough mode, and those being made
  std::atomic<uint32_t> writing{0};  // writes in flight

  DiskFile* chain = nullptr;  // of the table of DiskFiles, under its lock
  bool found = false;         // it is in that table

  // The keeper's own.
  uint64_t chunks_full = 0;  // of the index's, those of which every block is valid
  bool counted = false;      // chunks_full was made
  bool dirty = false;        // changed since its stamp was recorded
  uint64_t kept_bytes = 0;   // of a file that is gone: what its blocks take until it is closed
};

}  // namespace blobcache
