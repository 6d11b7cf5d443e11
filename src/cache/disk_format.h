// The bytes of a cache directory. This file alone knows them; docs/DISK_FORMAT.md describes them.
//   Thread    pure functions over plain structures
//   Bytes     little-endian, no padding; asserted below
//   Hostile   whatever is read may be anything: only what a check function accepted is used, and no size is taken from a
//             file before it was compared with its limit
// Every structure carries an XXH3-64 of itself, seeded with where it belongs (disk, generation, place in the file; or
// object and page), so that a piece written to a wrong place, or left there by an earlier file, is not accepted.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include <xxhash.h>

#include "base/limits.h"
#include "base/object_id.h"
#include "base/result.h"

namespace blobcache::disk_format {

static_assert(std::endian::native == std::endian::little);

inline constexpr uint32_t version = 2;

// What an object may be: 32 TiB (origins stop at 5), and for those that lie in a segment the largest chunk.
inline constexpr uint64_t object_bytes_max = uint64_t{1} << 45;
inline constexpr uint64_t packed_bytes_max = limits::chunk_bytes_max;
// The index counts in chunks of 64 blocks, whatever cache.chunk_size is: validity of one is one word.
inline constexpr uint64_t index_chunk_bytes = limits::chunk_frame_bytes;
inline constexpr unsigned fan_out = 256;  // folders in objects/, named by the first byte of the id

inline constexpr uint64_t index_chunks_of(uint64_t object_bytes) {
  return (object_bytes + index_chunk_bytes - 1) / index_chunk_bytes;
}
// The blocks that a chunk of the index has: all 64, or fewer in the last one. position < index_chunks_of(object_bytes).
inline constexpr uint64_t blocks_mask(uint64_t object_bytes, uint64_t position) {
  const uint64_t bytes_left = object_bytes - position * index_chunk_bytes;
  if (bytes_left >= index_chunk_bytes) return ~uint64_t{0};
  return ~uint64_t{0} >>
         (limits::blocks_per_chunk_frame - (bytes_left + limits::block_bytes - 1) / limits::block_bytes);
}

inline constexpr uint64_t round_up_to_page(uint64_t bytes) {
  return (bytes + limits::page_bytes - 1) / limits::page_bytes * limits::page_bytes;
}
// What blocks of a chunk take of the disk: whole pages. blocks: bits of blocks_mask(object_bytes, position).
uint64_t bytes_of_blocks(uint64_t object_bytes, uint64_t position, uint64_t blocks);

// 128 random bits: a node, or a disk.
struct Uuid {
  uint64_t words[2] = {0, 0};
  friend bool operator==(const Uuid&, const Uuid&) = default;
  bool is_null() const { return (words[0] | words[1]) == 0; }
};

// One version of one file of the cache directory, within one boot: when it is what it was, nobody has written to it
// since, and marks that were made in that boot still hold. 0: none recorded; never equal to a taken one.
using FileStamp = uint64_t;
struct FileStampParts {
  Uuid boot;  // /proc/sys/kernel/random/boot_id
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t mtime_s = 0;
  int64_t ctime_s = 0;
  uint32_t mtime_ns = 0;
  uint32_t ctime_ns = 0;
};
static_assert(sizeof(FileStampParts) == 56);
inline FileStamp file_stamp(const FileStampParts& parts) {
  const FileStamp stamp = XXH3_64bits(&parts, sizeof parts);
  return stamp == 0 ? 1 : stamp;
}

// ---- index files: a header and records of 64 bytes, in logs and snapshots alike ----

enum class IndexFileKind : uint64_t {
  log = 0x31474f4c58444942,       // "BIDXLOG1"
  snapshot = 0x31504e5358444942,  // "BIDXSNP1"
};

struct IndexFileHeader {
  uint64_t checksum = 0;
  uint64_t kind = 0;
  uint32_t version = 0;
  uint32_t record_bytes = 0;
  uint64_t disk[2] = {0, 0};
  uint64_t generation = 0;
  // Log: records of the log before it that its own follow. Snapshot: records that it has.
  uint64_t records = 0;
  // Snapshot: records of the log of its generation that were written before it was complete. It was copied while the
  // index changed, so with fewer of them it is a mix of times, and no mark in it counts. Log: 0.
  uint64_t log_records = 0;
};
static_assert(sizeof(IndexFileHeader) == 64 && offsetof(IndexFileHeader, generation) == 40);
// A log that may be read only together with the snapshot of its generation, because records before it were lost.
inline constexpr uint64_t records_unknown = ~uint64_t{0};

enum class RecordType : uint8_t {
  object = 1,           // an object as it is: replaces what was known of it. id, size, place, chunk 0, flags, frequency
  blocks = 2,           // the blocks of one chunk as they are: id, position, valid, verified
  stamp = 3,            // the file of an own-file object as it is now: id, place = stamp, flags (whole); 0: and no
                        // block of it is verified
  object_removed = 4,   // id
  segment = 5,          // position = number; place = stamp, or 0 while it is being written
  segment_removed = 6,  // position = number
  pin = 7,              // id, flags (pinned, or not)
};
inline constexpr uint8_t record_type_max = 7;

inline constexpr uint8_t flag_packed = 1;  // place is a segment's number and a page of it, else a FileStamp
inline constexpr uint8_t flag_whole = 2;   // all blocks are valid
inline constexpr uint8_t flag_pinned = 4;  // somebody said that it must stay
inline constexpr uint8_t flags_known = flag_packed | flag_whole | flag_pinned;

struct IndexRecord {
  uint64_t checksum = 0;
  uint8_t type = 0;
  uint8_t flags = 0;
  uint8_t frequency = 0;
  uint8_t zero = 0;
  uint32_t position = 0;
  uint64_t id[2] = {0, 0};
  uint64_t size = 0;
  uint64_t place = 0;
  uint64_t valid = 0;
  uint64_t verified = 0;

  friend bool operator==(const IndexRecord&, const IndexRecord&) = default;
};
static_assert(sizeof(IndexRecord) == 64 && offsetof(IndexRecord, position) == 12 && offsetof(IndexRecord, id) == 16 &&
              offsetof(IndexRecord, valid) == 48);

inline uint64_t packed_place(uint32_t segment, uint32_t page) { return uint64_t{segment} << 32 | page; }
inline uint32_t segment_of(uint64_t place) { return static_cast<uint32_t>(place >> 32); }
inline uint32_t page_of(uint64_t place) { return static_cast<uint32_t>(place); }

inline uint64_t seed_of(uint64_t a, uint64_t b, uint64_t c) {
  uint64_t mixed = (a ^ (a >> 31)) * 0x9e3779b97f4a7c15u + b;
  mixed = (mixed ^ (mixed >> 29)) * 0xbf58476d1ce4e5b9u + c;
  return (mixed ^ (mixed >> 32)) * 0x94d049bb133111ebu;
}

// The checksum is the first word of every structure and covers the rest of it.
inline uint64_t checksum_of(const void* structure, size_t bytes, uint64_t seed) {
  return XXH3_64bits_withSeed(static_cast<const std::byte*>(structure) + sizeof(uint64_t), bytes - sizeof(uint64_t),
                              seed);
}

inline uint64_t header_seed(const Uuid& disk) { return seed_of(disk.words[0], disk.words[1], version); }
inline void seal(IndexFileHeader& header, const Uuid& disk) {
  header.checksum = checksum_of(&header, sizeof header, header_seed(disk));
}
bool check(const IndexFileHeader& header, const Uuid& disk, IndexFileKind kind);

// index: of the record in its file.
inline uint64_t record_seed(const Uuid& disk, IndexFileKind kind, uint64_t generation, uint64_t index) {
  return seed_of(disk.words[0] ^ static_cast<uint64_t>(kind), generation, index);
}
inline void seal(IndexRecord& record, uint64_t seed) { record.checksum = checksum_of(&record, sizeof record, seed); }
// Checks checksum, type and flags; what the fields say is for the index to judge.
inline bool check(const IndexRecord& record, uint64_t seed) {
  return record.checksum == checksum_of(&record, sizeof record, seed) && record.type >= 1 &&
         record.type <= record_type_max && (record.flags & ~flags_known) == 0 && record.zero == 0;
}

// ---- index/budget: what was written today, so that a restart begins no new day ----

struct BudgetFile {
  uint64_t checksum = 0;
  uint64_t magic = 0;
  uint32_t version = 0;
  uint32_t zero = 0;
  uint64_t day = 0;  // since 1970, UTC
  uint64_t written_bytes = 0;
};
static_assert(sizeof(BudgetFile) == 40 && offsetof(BudgetFile, day) == 24);
inline constexpr const char* budget_name = "budget";  // in index/

void seal(BudgetFile& budget, const Uuid& disk);
bool check(const BudgetFile& budget, const Uuid& disk);

// ---- segments: objects smaller than a chunk, each a header page and its bytes padded to pages ----

inline constexpr size_t packed_blocks_max = packed_bytes_max / limits::block_bytes;

struct PackedHeader {  // one page; the object's first byte is on the next
  uint64_t checksum = 0;
  uint64_t magic = 0;
  uint64_t id[2] = {0, 0};
  uint64_t size = 0;
  uint32_t block_count = 0;
  uint32_t version = 0;
  uint64_t block_checksums[packed_blocks_max] = {};  // those beyond block_count are 0
  uint8_t zero[limits::page_bytes - 48 - packed_blocks_max * 8] = {};
};
static_assert(sizeof(PackedHeader) == limits::page_bytes && offsetof(PackedHeader, block_checksums) == 48);

// Pages that an object takes in a segment, its header included. size: 1..packed_bytes_max.
inline constexpr uint64_t packed_pages(uint64_t size) {
  return 1 + (size + limits::page_bytes - 1) / limits::page_bytes;
}
// place: packed_place of the page the header lies on. Requires id, size, block_count and block_checksums to be set.
void seal(PackedHeader& header, uint64_t place);
// What it says is right for this object at this place. The caller knows id and size from the index; with a null id any
// object is taken (a walk over a segment without an index).
bool check(const PackedHeader& header, uint64_t place, const ObjectId& id, uint64_t size);

// ---- sidecars: the checksums of an own-file object, 7 chunks of the index a page ----

inline constexpr unsigned sidecar_chunks_per_page = 7;
inline constexpr unsigned sidecar_blocks_per_page = sidecar_chunks_per_page * limits::blocks_per_chunk_frame;

struct SidecarPage {
  uint64_t checksum = 0;
  uint64_t magic = 0;
  uint64_t page = 0;
  uint32_t version = 0;
  uint32_t zero = 0;
  uint64_t block_checksums[sidecar_blocks_per_page] = {};  // which of them mean something: the index's valid bits
  uint8_t rest[limits::page_bytes - 32 - sidecar_blocks_per_page * 8] = {};
};
static_assert(sizeof(SidecarPage) == limits::page_bytes && offsetof(SidecarPage, block_checksums) == 32);

void seal(SidecarPage& page, const ObjectId& id, uint64_t page_index);
bool check(const SidecarPage& page, const ObjectId& id, uint64_t page_index);

// bytes: a block, the last one of an object as long as it is.
inline uint64_t block_checksum(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

// ---- names and FORMAT ----

std::string object_path(const ObjectId& id);     // "objects/ab/ab...", below the cache directory
std::string sidecar_path(const ObjectId& id);    // "objects/ab/ab....sums"
std::string segment_path(uint32_t segment);      // "segments/0000002a"
std::string log_name(uint64_t generation);       // "log.000000000000002a", in index/
std::string snapshot_name(uint64_t generation);  // "snapshot.000000000000002a", in index/
// The generation in such a name, or 0. kind: what kind of name is asked for.
uint64_t generation_of(const char* name, IndexFileKind kind);

struct FormatFile {
  uint32_t version = 0;  // of the directory, when another one; the rest is unknown then
  Uuid node;
  Uuid disk;
};
inline constexpr size_t format_bytes_max = 1024;
std::string print(const FormatFile& format);
// Errors: corrupt. A good file of another version is a value.
Result<FormatFile> parse_format(std::string_view text);
std::string to_text(const Uuid& uuid);

}  // namespace blobcache::disk_format
