#include "cache/disk_check.h"

#include <algorithm>
#include <bit>

#include "base/assert.h"
#include "cache/disk_format.h"

namespace blobcache {

using disk_format::index_chunk_bytes;
using disk_format::sidecar_chunks_per_page;
using limits::block_bytes;
using limits::blocks_per_chunk_frame;

bool leads_to(const DiskView& view, const ObjectId& id, const DiskFile& file) {
  if (view.place.disk != file.disk || view.place.packed != file.packed) return false;
  return file.packed ? view.place.segment == file.segment : file.id == id;
}

ChecksumPlace checksum_place(const DiskFile& file, const DiskPlace& place, uint64_t position) {
  if (file.packed) return {.fd = file.fd, .offset = uint64_t{place.page} * limits::page_bytes};
  return {.fd = file.sums_fd, .offset = position / sidecar_chunks_per_page * limits::page_bytes};
}

const uint64_t* checksums_in(const BlockCheck& check) {
  if (check.place.packed) {
    const auto& header = *reinterpret_cast<const disk_format::PackedHeader*>(check.page);
    const uint64_t place = disk_format::packed_place(check.place.segment, check.place.page);
    if (!disk_format::check(header, place, check.id, check.object_bytes)) return nullptr;
    return header.block_checksums + check.position * blocks_per_chunk_frame;
  }
  const auto& sidecar = *reinterpret_cast<const disk_format::SidecarPage*>(check.page);
  if (!disk_format::check(sidecar, check.id, check.position / sidecar_chunks_per_page)) return nullptr;
  return sidecar.block_checksums + check.position % sidecar_chunks_per_page * blocks_per_chunk_frame;
}

BlockCheckResult check_blocks(const BlockCheck& check) {
  BC_ASSERT(check.blocks != 0);
  const uint64_t* checksums = checksums_in(check);
  if (checksums == nullptr) return {};
  BlockCheckResult result{.page_good = true, .matching = 0};
  const auto first = static_cast<unsigned>(std::countr_zero(check.blocks));
  for (uint64_t rest = check.blocks; rest != 0; rest &= rest - 1) {
    const auto block = static_cast<unsigned>(std::countr_zero(rest));
    const uint64_t begin = (block - first) * block_bytes;
    const uint64_t in_object = check.position * index_chunk_bytes + block * block_bytes;
    const size_t bytes = std::min<uint64_t>(block_bytes, check.object_bytes - in_object);
    if (begin + bytes > check.bytes_read) break;
    if (disk_format::block_checksum({check.bytes + begin, bytes}) == checksums[block])
      result.matching |= uint64_t{1} << block;
  }
  return result;
}

}  // namespace blobcache
