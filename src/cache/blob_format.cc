#include "cache/blob_format.h"

#include <fmt/format.h>

namespace blobcache::blob_format {
namespace {

constexpr uint64_t magic = 0x314c4145535f42;  // "B_SEAL1"
constexpr uint32_t flags_known = flag_pinned;

uint64_t seed_of_slot(const Seal& seal, unsigned slot) {
  uint64_t words[2];
  std::memcpy(words, seal.id, sizeof words);
  return disk_format::seed_of(words[0], words[1], slot);
}

}  // namespace

void seal(Seal& seal, unsigned slot) {
  seal.magic = magic;
  seal.version = version;
  seal.checksum = disk_format::checksum_of(&seal, sizeof seal, seed_of_slot(seal, slot));
}

bool check(const Seal& seal, const BlobId& id, unsigned slot) {
  return seal.checksum == disk_format::checksum_of(&seal, sizeof seal, seed_of_slot(seal, slot)) &&
         seal.magic == magic && seal.version == version && std::memcmp(seal.id, id.bytes.data(), sizeof seal.id) == 0 &&
         (seal.flags & ~flags_known) == 0 && seal.bytes <= blob_bytes_max && seal.generation != 0 &&
         seal.expires_s >= 0;
}

std::string blob_path(const BlobId& id) {
  const std::string name = to_hex(id);
  return fmt::format("{}/{}", std::string_view(name).substr(0, 2), name);
}

}  // namespace blobcache::blob_format
