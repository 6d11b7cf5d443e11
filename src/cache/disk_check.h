// Whether bytes that were read from a disk are those that were written there: the one place that compares checksums, for the
// readers (serve/disk_load.cc) and for the verifier.
//   Thread    pure functions; any
//   Source    disk_format.h: own files have a sidecar of checksums; packed objects have theirs in the header page before them
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/object_id.h"
#include "cache/disk_file.h"
#include "cache/disk_index.h"

namespace blobcache {

// Whether the view was found for what lies in this file.
bool leads_to(const DiskView& view, const ObjectId& id, const DiskFile& file);

// Where the page with the checksums of a chunk's blocks lies: in the sidecar, or in the file itself.
struct ChecksumPlace {
  int fd = -1;
  uint64_t offset = 0;
};
ChecksumPlace checksum_place(const DiskFile& file, const DiskPlace& place, uint64_t position);

struct BlockCheck {
  ObjectId id;
  uint64_t object_bytes = 0;
  DiskPlace place;
  uint64_t position = 0;             // of the index's chunk
  const std::byte* page = nullptr;   // what was read from checksum_place(): it may be anything; aligned to 8 bytes
  uint64_t blocks = 0;               // of the chunk, adjacent ones
  const std::byte* bytes = nullptr;  // of the first of the blocks
  uint64_t bytes_read = 0;           // from there on; a block that lies only partly within does not match
};
struct BlockCheckResult {
  bool page_good = false;
  uint64_t matching = 0;  // of `blocks`
};
BlockCheckResult check_blocks(const BlockCheck& check);
// Of all blocks of the chunk. Null: the page is damaged, torn, or of something else. Looks at nothing behind `page`.
const uint64_t* checksums_in(const BlockCheck& check);

}  // namespace blobcache
