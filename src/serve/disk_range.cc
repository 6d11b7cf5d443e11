#include "serve/disk_range.h"

#include "base/assert.h"
#include "cache/disk_format.h"

namespace blobcache::serve {

using disk_format::index_chunk_bytes;
using limits::block_bytes;

IndexSpans index_spans(ReadRange range) {
  BC_ASSERT(range.bytes > 0);
  const uint64_t last_byte = range.offset + range.bytes - 1;
  const uint64_t position_first = range.offset / index_chunk_bytes;
  const uint64_t position_last = last_byte / index_chunk_bytes;
  IndexSpans spans;
  if (position_last - position_first > 1) return spans;
  for (uint64_t position = position_first; position <= position_last; ++position) {
    const uint64_t first = position == position_first ? range.offset % index_chunk_bytes / block_bytes : 0;
    const uint64_t last =
        position == position_last ? last_byte % index_chunk_bytes / block_bytes : limits::blocks_per_chunk_frame - 1;
    const uint64_t blocks = (~uint64_t{0} >> (limits::blocks_per_chunk_frame - 1 - last)) & (~uint64_t{0} << first);
    spans.spans[spans.count++] = {.position = position, .blocks = blocks};
  }
  return spans;
}

DirectRead direct_read(const DiskPlace& place, uint64_t object_bytes, ReadRange range, uint32_t alignment) {
  BC_ASSERT(alignment > 0 && limits::page_bytes % alignment == 0 && range.offset % alignment == 0);
  const uint32_t bytes = (range.bytes + alignment - 1) / alignment * alignment;
  const uint64_t data_offset = place.packed ? (uint64_t{place.page} + 1) * limits::page_bytes : 0;
  // Packed objects are padded to pages, so the file has what lies between their end and the next page.
  return {.at = {.offset = data_offset + range.offset, .bytes = bytes},
          .full = place.packed || range.offset + bytes <= object_bytes};
}

}  // namespace blobcache::serve
