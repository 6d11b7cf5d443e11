#include "base/object_id.h"

#include <openssl/evp.h>

#include "base/assert.h"

namespace blobcache {
namespace {

// One context a thread: EVP_MD_CTX_new costs more than hashing a path does.
EVP_MD_CTX* thread_context() {
  struct Holder {
    EVP_MD_CTX* context = EVP_MD_CTX_new();
    ~Holder() { EVP_MD_CTX_free(context); }
  };
  thread_local Holder holder;
  BC_ASSERT(holder.context != nullptr);
  return holder.context;
}

const EVP_MD* sha256() {
  static const EVP_MD* md = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  BC_ASSERT(md != nullptr);
  return md;
}

void update_with_length(EVP_MD_CTX* context, std::string_view part) {
  const uint64_t length = part.size();
  BC_ASSERT(EVP_DigestUpdate(context, &length, sizeof length) == 1);
  BC_ASSERT(EVP_DigestUpdate(context, part.data(), part.size()) == 1);
}

}  // namespace

ObjectId object_id(std::string_view volume_identity, std::string_view key, std::string_view version) {
  EVP_MD_CTX* context = thread_context();
  BC_ASSERT(EVP_DigestInit_ex2(context, sha256(), nullptr) == 1);
  update_with_length(context, volume_identity);
  update_with_length(context, key);
  update_with_length(context, version);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned digest_bytes = 0;
  BC_ASSERT(EVP_DigestFinal_ex(context, digest, &digest_bytes) == 1);
  ObjectId id;
  BC_ASSERT(digest_bytes >= sizeof id.words);
  std::memcpy(id.words, digest, sizeof id.words);
  if (id.is_null()) id.words[0] = 1;
  return id;
}

std::string to_hex(const ObjectId& id) {
  static constexpr char digits[] = "0123456789abcdef";
  unsigned char bytes[sizeof id.words];
  std::memcpy(bytes, id.words, sizeof bytes);
  std::string text;
  text.reserve(sizeof bytes * 2);
  for (unsigned char byte : bytes) {
    text.push_back(digits[byte >> 4]);
    text.push_back(digits[byte & 15]);
  }
  return text;
}

}  // namespace blobcache
