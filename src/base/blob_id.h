// BlobId: the name of a blob of the content store: the SHA-256 of its bytes.
//   Thread    plain values
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace blobcache {

struct BlobId {
  std::array<uint8_t, 32> bytes{};
  friend auto operator<=>(const BlobId&, const BlobId&) = default;
};

// 64 hex digits, of either case; anything else is none.
std::optional<BlobId> parse_blob_id(std::string_view text);
// 64 lower-case hex digits.
std::string to_hex(const BlobId& id);

// SHA-256 of bytes that come one after the other.
class BlobHash {
 public:
  BlobHash();
  ~BlobHash();
  BlobHash(const BlobHash&) = delete;
  BlobHash& operator=(const BlobHash&) = delete;

  void add(std::span<const std::byte> bytes);
  // Once, at the end.
  BlobId finish();

 private:
  void* context_;  // libcrypto's
};

}  // namespace blobcache
