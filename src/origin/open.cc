#include "origin/open.h"

#include <cstring>
#include <string_view>

#include <fmt/format.h>

#include "base/limits.h"
#include "origin/http.h"
#include "origin/http_manifest.h"
#include "origin/http_text.h"
#include "origin/name_index.h"
#include "origin/posix.h"
#include "origin/receive_buffers.h"
#include "origin/s3.h"

namespace blobcache {
namespace {

constexpr uint64_t libraries_bytes = 4 * limits::MiB;         // libcurl's, libcrypto's and listings' heap
constexpr uint64_t names_bytes = 8 * limits::MiB;             // RemoteOrigin's cache of names
constexpr uint64_t kept_connection_bytes = 50 * limits::KiB;  // TLS's state of one, seen with OpenSSL 3.0

constexpr uint64_t index_page_bytes = 4 * limits::MiB;  // 1,000 keys as XML, and taken apart

bool is_remote(std::string_view source) {
  return source.starts_with("s3://") || source.starts_with("http://") || source.starts_with("https://");
}

}  // namespace

uint64_t origin_memory_bytes(const VolumeConfig& volume, const OriginConfig& origin, unsigned cores) {
  if (!is_remote(volume.source)) return 0;
  // Transfers are counted over all cores, and each may have one more; connections are kept by core.
  const uint64_t transfers = origin.connections + cores - 1;
  const uint64_t kept = uint64_t{origin.connections} * cores;
  uint64_t index_bytes = volume.http.manifest.empty() ? 0 : manifest_memory_bytes;
  // Two of them while a new one replaces the old, and the page in hand.
  if (volume.index == Indexing::on) index_bytes = 2 * name_index_table_bytes_max + index_page_bytes;
  return libraries_bytes + names_bytes + index_bytes + transfers * ReceiveBuffers::bytes + kept * kept_connection_bytes;
}

Result<std::unique_ptr<Origin>> open_origin(const VolumeConfig& volume, const OriginConfig& origin, std::string* why,
                                            const std::string& names_directory) {
  const std::string_view source = volume.source;
  if (source.starts_with("s3://")) return create_s3_origin(volume, origin, why, names_directory);
  if (volume.index == Indexing::on) {
    *why = fmt::format("volume.index = on is for S3, not for {}; leave it out", source);
    return fail(Code::invalid, EINVAL);
  }
  if (source.starts_with("http://") || source.starts_with("https://")) return create_http_origin(volume, origin, why);
  std::string root(source);
  if (root.starts_with("file://")) root = percent_decode(root.substr(7)).value_or(root.substr(7));
  if (root.find("://") != std::string::npos) {
    *why = fmt::format("the source {} has an unknown scheme; use a directory, file://, s3:// or http(s)://", source);
    return fail(Code::invalid, EINVAL);
  }
  Result<std::unique_ptr<Origin>> created =
      create_posix_origin({.root = root, .bandwidth_bytes = origin.bandwidth_bytes});
  if (!created) *why = fmt::format("cannot open the source {}: {}", root, std::strerror(created.error().os_errno));
  return created;
}

}  // namespace blobcache
