// What the flows need to know of an object's place on disk, and whether bytes read from there are right.
//   Thread    pure functions; any
//   Source    disk_format.h: own files have the object's own offsets, packed objects begin one page behind their header
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/object_id.h"
#include "cache/disk_file.h"
#include "cache/disk_index.h"
#include "ring/sqe.h"

namespace blobcache::serve {

// The blocks of one chunk of the index.
struct IndexSpan {
  uint64_t position = 0;
  uint64_t blocks = 0;
};
// What a range touches. count 0: more than two chunks.
struct IndexSpans {
  IndexSpan spans[2];
  unsigned count = 0;
};
// range.bytes > 0.
IndexSpans index_spans(ReadRange range);

// Whether the view was found for what lies in this file.
bool leads_to(const DiskView& view, const ObjectId& id, const DiskFile& file);

// A direct read of a range of the object. `full`: the file has all of it, so a shorter result is a failure; else the result
// may be any that covers the range (the end of the object's own file).
struct DirectRead {
  ReadRange at;  // in the file, in units of the alignment
  bool full = false;
};
// range.offset is a multiple of alignment, which is at most a page.
DirectRead direct_read(const DiskPlace& place, uint64_t object_bytes, ReadRange range, uint32_t alignment);

// Where the checksums of a chunk's blocks lie: of the sidecar, or of the file itself.
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
  uint64_t blocks = 0;               // of it, adjacent ones
  const std::byte* page = nullptr;   // a page that may be anything
  const std::byte* bytes = nullptr;  // of the first of the blocks
};
struct BlockCheckResult {
  bool page_good = false;
  uint64_t matching = 0;  // of `blocks`
};
BlockCheckResult check_blocks(const BlockCheck& check);

}  // namespace blobcache::serve
