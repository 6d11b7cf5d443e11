#include "base/blob_id.h"

#include <openssl/evp.h>

#include "base/assert.h"

namespace blobcache {
namespace {

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

EVP_MD_CTX* context_of(void* context) { return static_cast<EVP_MD_CTX*>(context); }

}  // namespace

std::optional<BlobId> parse_blob_id(std::string_view text) {
  BlobId id;
  if (text.size() != 2 * id.bytes.size()) return std::nullopt;
  for (size_t i = 0; i < id.bytes.size(); ++i) {
    const int high = hex_value(text[2 * i]);
    const int low = hex_value(text[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    id.bytes[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return id;
}

std::string to_hex(const BlobId& id) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * id.bytes.size());
  for (const uint8_t byte : id.bytes) {
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

BlobHash::BlobHash() : context_(EVP_MD_CTX_new()) {
  BC_ASSERT(context_ != nullptr && EVP_DigestInit_ex2(context_of(context_), EVP_sha256(), nullptr) == 1);
}

BlobHash::~BlobHash() { EVP_MD_CTX_free(context_of(context_)); }

void BlobHash::add(std::span<const std::byte> bytes) {
  BC_ASSERT(EVP_DigestUpdate(context_of(context_), bytes.data(), bytes.size()) == 1);
}

BlobId BlobHash::finish() {
  BlobId id;
  unsigned bytes = 0;
  BC_ASSERT(EVP_DigestFinal_ex(context_of(context_), id.bytes.data(), &bytes) == 1 && bytes == id.bytes.size());
  return id;
}

}  // namespace blobcache
