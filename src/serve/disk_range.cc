#include "serve/disk_range.h"

#include <algorithm>
#include <bit>

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

bool leads_to(const DiskView& view, const ObjectId& id, const DiskFile& file) {
  if (view.place.disk != file.disk || view.place.packed != file.packed) return false;
  return file.packed ? view.place.segment == file.segment : file.id == id;
}

DirectRead direct_read(const DiskPlace& place, uint64_t object_bytes, ReadRange range, uint32_t alignment) {
  BC_ASSERT(alignment > 0 && limits::page_bytes % alignment == 0 && range.offset % alignment == 0);
  const uint32_t bytes = (range.bytes + alignment - 1) / alignment * alignment;
  const uint64_t data_offset = place.packed ? (uint64_t{place.page} + 1) * limits::page_bytes : 0;
  // Packed objects are padded to pages, so the file has what lies between their end and the next page.
  return {.at = {.offset = data_offset + range.offset, .bytes = bytes},
          .full = place.packed || range.offset + bytes <= object_bytes};
}

ChecksumPlace checksum_place(const DiskFile& file, const DiskPlace& place, uint64_t position) {
  if (file.packed) return {.fd = file.fd, .offset = uint64_t{place.page} * limits::page_bytes};
  return {.fd = file.sums_fd, .offset = position / disk_format::sidecar_chunks_per_page * limits::page_bytes};
}

BlockCheckResult check_blocks(const BlockCheck& check) {
  BC_ASSERT(check.blocks != 0);
  const uint64_t* checksums = nullptr;
  if (check.place.packed) {
    const auto& header = *reinterpret_cast<const disk_format::PackedHeader*>(check.page);
    const uint64_t place = disk_format::packed_place(check.place.segment, check.place.page);
    if (!disk_format::check(header, place, check.id, check.object_bytes)) return {};
    checksums = header.block_checksums + check.position * limits::blocks_per_chunk_frame;
  } else {
    const auto& sidecar = *reinterpret_cast<const disk_format::SidecarPage*>(check.page);
    if (!disk_format::check(sidecar, check.id, check.position / disk_format::sidecar_chunks_per_page)) return {};
    checksums = sidecar.block_checksums +
                check.position % disk_format::sidecar_chunks_per_page * limits::blocks_per_chunk_frame;
  }
  BlockCheckResult result{.page_good = true, .matching = 0};
  const auto first = static_cast<unsigned>(std::countr_zero(check.blocks));
  for (uint64_t rest = check.blocks; rest != 0; rest &= rest - 1) {
    const auto block = static_cast<unsigned>(std::countr_zero(rest));
    const uint64_t offset = check.position * index_chunk_bytes + block * block_bytes;
    const size_t bytes = std::min<uint64_t>(block_bytes, check.object_bytes - offset);
    const uint64_t sum = disk_format::block_checksum({check.bytes + (block - first) * block_bytes, bytes});
    if (sum == checksums[block]) result.matching |= uint64_t{1} << block;
  }
  return result;
}

}  // namespace blobcache::serve
