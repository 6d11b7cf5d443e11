// Three CRCs and three hashes. The hashes are libcrypto's. The CRCs are one function over a table each: no library of Debian
// 12 has CRC-64/NVME, and what computes that computes the other two (1.5 GB/s, eight bytes a step).
//
// An object that was uploaded in parts has a digest of the parts' digests, with "-N" behind it: without the parts' lengths it
// says nothing of the bytes, unless there is one part. Of an answer to a range nothing is taken at all: servers were seen that
// send the whole object's checksum there, or that of the parts without its "-N" (botocore issue 3346).
#include "origin/checksum.h"

#include <array>
#include <bit>
#include <cstring>
#include <optional>

#include "base/assert.h"
#include "origin/http_attempt.h"
#include "origin/http_text.h"

namespace blobcache {
namespace {

struct Algorithm {
  ChecksumKind kind;
  std::string_view name;
  size_t bytes;
  std::string HttpHead::* place;  // null: the ETag
  uint64_t polynomial;            // reflected; 0: a hash
};
constexpr std::array algorithms{
    Algorithm{ChecksumKind::crc64nvme, "CRC64NVME", 8, &HttpHead::checksum_crc64nvme, 0x9a6c9329ac4bc9b5},
    Algorithm{ChecksumKind::crc32c, "CRC32C", 4, &HttpHead::checksum_crc32c, 0x82f63b78},
    Algorithm{ChecksumKind::crc32, "CRC32", 4, &HttpHead::checksum_crc32, 0xedb88320},
    Algorithm{ChecksumKind::sha256, "SHA256", 32, &HttpHead::checksum_sha256, 0},
    Algorithm{ChecksumKind::sha1, "SHA1", 20, &HttpHead::checksum_sha1, 0},
    Algorithm{ChecksumKind::md5, "MD5", 16, nullptr, 0},
};

const Algorithm& algorithm_of(ChecksumKind kind) { return algorithms[static_cast<size_t>(kind)]; }

// tables[k][b]: what the byte b does to the register when k more bytes follow.
using CrcTables = std::array<std::array<uint64_t, 256>, 8>;

CrcTables make_tables(uint64_t polynomial) {
  CrcTables tables;
  for (uint64_t byte = 0; byte < 256; ++byte) {
    uint64_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? polynomial : 0);
    tables[0][byte] = value;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint64_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 255];
    }
  }
  return tables;
}

const CrcTables& tables_of(ChecksumKind kind) {
  static const std::array<CrcTables, 3> all{make_tables(algorithms[0].polynomial),
                                            make_tables(algorithms[1].polynomial),
                                            make_tables(algorithms[2].polynomial)};
  return all[static_cast<size_t>(kind)];
}

uint64_t crc_add(const CrcTables& tables, uint64_t crc, const unsigned char* bytes, size_t length) {
  static_assert(std::endian::native == std::endian::little);
  for (; length >= 8; bytes += 8, length -= 8) {
    uint64_t word;
    std::memcpy(&word, bytes, 8);
    word ^= crc;
    crc = 0;
    for (unsigned i = 0; i < 8; ++i) crc ^= tables[7 - i][word >> (8 * i) & 255];
  }
  for (; length > 0; ++bytes, --length) crc = (crc >> 8) ^ tables[0][(crc ^ *bytes) & 255];
  return crc;
}

// Nothing: no base64 of so many bytes.
std::optional<std::string> decode_base64(std::string_view text, size_t bytes) {
  std::string raw(text.size() / 4 * 3 + 1, '\0');
  if (text.size() != (bytes + 2) / 3 * 4) return std::nullopt;
  const int length =
      EVP_DecodeBlock(reinterpret_cast<unsigned char*>(raw.data()), reinterpret_cast<const unsigned char*>(text.data()),
                      static_cast<int>(text.size()));
  if (length < static_cast<int>(bytes)) return std::nullopt;
  raw.resize(bytes);
  return raw;
}

std::optional<std::string> decode_hex(std::string_view text, size_t bytes) {
  if (text.size() != 2 * bytes) return std::nullopt;
  std::string raw;
  for (size_t i = 0; i < text.size(); i += 2) {
    const std::optional<std::string> byte = percent_decode("%" + std::string(text.substr(i, 2)));
    if (!byte) return std::nullopt;
    raw += *byte;
  }
  return raw;
}

// An object that the store has encrypted with keys of its own service or of the customer has another ETag.
bool has_md5_etag(const HttpHead& head) {
  return (head.encryption.empty() || head.encryption == "AES256") && head.customer_encryption.empty();
}

}  // namespace

std::unique_ptr<Checksum> Checksum::offered_by(const HttpHead& head, bool with_md5) {
  for (const Algorithm& algorithm : algorithms) {
    const bool is_etag = algorithm.place == nullptr;
    if (is_etag && (!with_md5 || !has_md5_etag(head))) continue;
    std::string_view text = is_etag ? head.etag : head.*algorithm.place;
    if (is_etag && text.size() > 2 && text.front() == '"') text = text.substr(1, text.size() - 2);
    const bool of_parts = text.ends_with("-1");
    if (of_parts) text.remove_suffix(2);
    std::optional<std::string> wanted =
        is_etag ? decode_hex(text, algorithm.bytes) : decode_base64(text, algorithm.bytes);
    if (wanted) return std::make_unique<Checksum>(algorithm.kind, std::move(*wanted), of_parts);
  }
  return nullptr;
}

Checksum::Checksum(ChecksumKind kind, std::string wanted, bool of_parts)
    : kind_(kind), wanted_(std::move(wanted)), of_parts_(of_parts) {
  begin();
}

std::string_view Checksum::name() const { return algorithm_of(kind_).name; }

void Checksum::begin() {
  crc_ = kind_ == ChecksumKind::crc64nvme ? ~uint64_t{0} : 0xffffffff;
  if (algorithm_of(kind_).polynomial != 0) return;
  context_.reset(EVP_MD_CTX_new());
  const EVP_MD* algorithm = kind_ == ChecksumKind::sha256 ? EVP_sha256()
                            : kind_ == ChecksumKind::sha1 ? EVP_sha1()
                                                          : EVP_md5();
  // Without memory, or where MD5 is forbidden (FIPS): nothing is verified.
  if (context_ != nullptr && EVP_DigestInit_ex(context_.get(), algorithm, nullptr) != 1) context_.reset();
}

void Checksum::add(const void* bytes, size_t length) {
  if (algorithm_of(kind_).polynomial != 0) {
    crc_ = crc_add(tables_of(kind_), crc_, static_cast<const unsigned char*>(bytes), length);
  } else if (context_ != nullptr) {
    EVP_DigestUpdate(context_.get(), bytes, length);
  }
}

// Big-endian, as the store writes it.
std::string Checksum::end() {
  const Algorithm& algorithm = algorithm_of(kind_);
  std::string digest(algorithm.bytes, '\0');
  if (algorithm.polynomial != 0) {
    for (size_t i = 0; i < digest.size(); ++i) digest[i] = static_cast<char>(~crc_ >> (8 * (digest.size() - 1 - i)));
  } else if (context_ == nullptr) {
    return wanted_;
  } else {
    unsigned length = 0;
    EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()), &length);
    BC_ASSERT(length == digest.size());
  }
  return digest;
}

bool Checksum::matches() {
  found_ = end();
  if (of_parts_) {
    begin();
    add(found_.data(), found_.size());
    found_ = end();
  }
  return found_ == wanted_;
}

}  // namespace blobcache
