// The bytes of a blob's file. docs/DISK_FORMAT.md describes them.
//   Thread    pure functions over plain structures
//   Hostile   as cache/disk_format.h: only what a check function accepted is used
// One file a blob, so that one rename publishes it: groups of 448 blocks, each with the page of their checksums behind it, so
// that a stream of unknown length is written once, front to back, by who remembers one page; then two seals, of which the
// valid one with the higher generation counts: a change of a blob's life writes the other one.
#pragma once

#include "base/blob_id.h"
#include "cache/disk_format.h"

namespace blobcache::blob_format {

inline constexpr uint32_t version = 1;
inline constexpr uint64_t group_data_bytes = disk_format::sidecar_blocks_per_page * limits::block_bytes;  // 28 MiB
inline constexpr uint64_t group_bytes = group_data_bytes + limits::page_bytes;
inline constexpr uint64_t blob_bytes_max = uint64_t{1} << 43;  // what fits into a file of ext4, 16 TiB, with room
inline constexpr unsigned seals = 2;
inline constexpr uint64_t seals_bytes = seals * limits::page_bytes;

inline constexpr uint64_t groups_of(uint64_t bytes) { return (bytes + group_data_bytes - 1) / group_data_bytes; }
// Where byte `offset` of the blob lies in its file.
inline constexpr uint64_t data_offset(uint64_t offset) {
  return offset + offset / group_data_bytes * limits::page_bytes;
}
// Where the checksums of a group lie. group < groups_of(bytes).
inline constexpr uint64_t sums_offset(uint64_t bytes, uint64_t group) {
  const uint64_t begin = group * group_data_bytes;
  const uint64_t in_group = bytes - begin < group_data_bytes ? bytes - begin : group_data_bytes;
  return group * group_bytes + disk_format::round_up_to_page(in_group);
}
inline constexpr uint64_t seals_offset(uint64_t bytes) {
  return disk_format::round_up_to_page(bytes) + groups_of(bytes) * limits::page_bytes;
}
inline constexpr uint64_t file_bytes(uint64_t bytes) { return seals_offset(bytes) + seals_bytes; }

inline constexpr uint32_t flag_pinned = 1;

struct Seal {  // one page
  uint64_t checksum = 0;
  uint64_t magic = 0;
  uint8_t id[32] = {};
  uint64_t nonce[2] = {0,
                       0};  // random; its checksum pages are seeded with it, so that no other file's are taken for them
  uint64_t bytes = 0;
  int64_t stored_s = 0;   // since 1970
  int64_t expires_s = 0;  // since 1970; 0: never
  uint64_t generation = 0;
  uint32_t flags = 0;
  uint32_t version = 0;
  uint8_t zero[limits::page_bytes - 104] = {};
};
static_assert(sizeof(Seal) == limits::page_bytes && offsetof(Seal, nonce) == 48 && offsetof(Seal, version) == 100);

// What the checksum pages are sealed with (disk_format::SidecarPage).
inline ObjectId sums_id(const Seal& seal) { return {{seal.nonce[0], seal.nonce[1]}}; }

// Sets what follows from the rest, and the checksum. slot: 0 or 1.
void seal(Seal& seal, unsigned slot);
// It is the seal of this blob at this slot.
bool check(const Seal& seal, const BlobId& id, unsigned slot);

std::string blob_path(const BlobId& id);  // "ab/ab...", below blobs/
inline constexpr const char* staging_folder = "staging";
inline constexpr const char* aside_folder = "aside";

}  // namespace blobcache::blob_format
