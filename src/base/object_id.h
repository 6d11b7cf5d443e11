// ObjectId: the name of one immutable version of one file, the same on every node.
//   The first 128 bits of SHA-256 over (volume identity, key, version). A keyed-by-attacker name space must not collide,
//   so this is a cryptographic hash; XXH3 is for block checksums and placement only.
//   Thread    plain values
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace blobcache {

struct ObjectId {
  uint64_t words[2] = {0, 0};

  friend bool operator==(const ObjectId&, const ObjectId&) = default;
  // The bits are uniform already: one word is a hash.
  uint64_t hash() const { return words[0]; }
  bool is_null() const { return (words[0] | words[1]) == 0; }
};

// Each part is hashed with its length before it, so that ("a","bc") and ("ab","c") differ. Never null.
ObjectId object_id(std::string_view volume_identity, std::string_view key, std::string_view version);

// 32 lower-case hex digits.
std::string to_hex(const ObjectId& id);

}  // namespace blobcache
