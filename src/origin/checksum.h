// Checksum: what a store says an object's bytes add up to, followed while they arrive.
//   Owner     an HttpRequest
//   Thread    one
//   Source    docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <openssl/evp.h>

namespace blobcache {

struct HttpHead;

enum class ChecksumKind : uint8_t { crc64nvme, crc32c, crc32, sha256, sha1, md5 };

class Checksum {
 public:
  // The cheapest that an answer with a whole object offers and that can be computed from its bytes alone; null: none.
  // `with_md5`: its ETag may be taken for one.
  static std::unique_ptr<Checksum> offered_by(const HttpHead& head, bool with_md5);

  // `wanted`: the digest's bytes. `of_parts`: it is the digest of the digest, of an object of one part.
  Checksum(ChecksumKind kind, std::string wanted, bool of_parts);

  void add(const void* bytes, size_t length);
  // Once, after all bytes.
  bool matches();
  // What matches() found.
  const std::string& found() const { return found_; }
  ChecksumKind kind() const { return kind_; }
  std::string_view name() const;

 private:
  struct FreeContext {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  void begin();
  std::string end();

  const ChecksumKind kind_;
  const std::string wanted_;
  const bool of_parts_;
  std::string found_;
  uint64_t crc_ = 0;
  std::unique_ptr<EVP_MD_CTX, FreeContext> context_;
};

}  // namespace blobcache
