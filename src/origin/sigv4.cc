#include "origin/sigv4.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <utility>

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include "base/assert.h"
#include "base/text.h"
#include "origin/http_text.h"

namespace blobcache {
namespace {

using Digest = std::array<unsigned char, SHA256_DIGEST_LENGTH>;
constexpr std::string_view hash_of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

Digest hmac(std::string_view key, std::string_view text) {
  Digest digest;
  unsigned length = 0;
  const auto* made = HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                          reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data(), &length);
  BC_ASSERT(made != nullptr && length == digest.size());
  return digest;
}
std::string_view bytes_of(const Digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}
std::string hex_of(const Digest& digest) {
  std::string hex;
  for (const unsigned char byte : digest) fmt::format_to(std::back_inserter(hex), "{:02x}", byte);
  return hex;
}
std::string sha256_hex(std::string_view text) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return hex_of(digest);
}

// (name in lower case, value), sorted by name.
std::vector<std::pair<std::string, std::string>> canonical_headers(std::string_view host,
                                                                   const std::vector<std::string>& lines) {
  std::vector<std::pair<std::string, std::string>> headers{{"host", std::string(host)}};
  for (const std::string& line : lines) {
    const size_t colon = line.find(':');
    BC_ASSERT(colon != std::string::npos);
    headers.emplace_back(ascii_lower(line.substr(0, colon)),
                         std::string(trim(std::string_view(line).substr(colon + 1))));
  }
  std::ranges::sort(headers);
  return headers;
}

}  // namespace

void sign_request(const SignedRequest& request, const AwsCredentials& credentials, std::vector<std::string>& headers) {
  std::tm utc{};
  const auto time = static_cast<time_t>(request.time_s);
  gmtime_r(&time, &utc);
  char stamp[32];
  BC_ASSERT(std::strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &utc) == 16);
  const std::string_view date = std::string_view(stamp).substr(0, 8);

  headers.push_back(fmt::format("x-amz-content-sha256: {}", hash_of_nothing));
  headers.push_back(fmt::format("x-amz-date: {}", stamp));
  if (!credentials.session_token.empty()) headers.push_back("x-amz-security-token: " + credentials.session_token);

  std::string canonical = fmt::format("{}\n{}\n{}\n", request.verb, request.path, request.query);
  std::string names;
  for (const auto& [name, value] : canonical_headers(request.host, headers)) {
    canonical += fmt::format("{}:{}\n", name, value);
    names += (names.empty() ? "" : ";") + name;
  }
  canonical += fmt::format("\n{}\n{}", names, hash_of_nothing);

  const std::string scope = fmt::format("{}/{}/{}/aws4_request", date, request.region, request.service);
  const std::string to_sign = fmt::format("AWS4-HMAC-SHA256\n{}\n{}\n{}", stamp, scope, sha256_hex(canonical));
  const Digest date_key = hmac("AWS4" + credentials.secret_key, date);
  const Digest region_key = hmac(bytes_of(date_key), request.region);
  const Digest service_key = hmac(bytes_of(region_key), request.service);
  const Digest signing_key = hmac(bytes_of(service_key), "aws4_request");
  headers.push_back(fmt::format("Authorization: AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={}",
                                credentials.access_key, scope, names, hex_of(hmac(bytes_of(signing_key), to_sign))));
}

}  // namespace blobcache
