// What a range of an object is on disk.
//   Thread    pure functions; any
//   Source    disk_format.h: own files have the object's own offsets, packed objects begin one page behind their header
#pragma once

#include <cstddef>
#include <cstdint>

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

// A direct read of a range of the object. `full`: the file has all of it, so a shorter result is a failure; else the result
// may be any that covers the range (the end of the object's own file).
struct DirectRead {
  ReadRange at;  // in the file, in units of the alignment
  bool full = false;
};
// range.offset is a multiple of alignment, which is at most a page.
DirectRead direct_read(const DiskPlace& place, uint64_t object_bytes, ReadRange range, uint32_t alignment);

}  // namespace blobcache::serve
