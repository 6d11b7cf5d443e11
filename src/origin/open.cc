#include "origin/open.h"

#include <cstring>
#include <string_view>

#include <fmt/format.h>

#include "origin/http.h"
#include "origin/http_text.h"
#include "origin/posix.h"
#include "origin/s3.h"

namespace blobcache {

Result<std::unique_ptr<Origin>> open_origin(const VolumeConfig& volume, const OriginConfig& origin, std::string* why) {
  const std::string_view source = volume.source;
  if (source.starts_with("s3://")) return create_s3_origin(volume, origin, why);
  if (source.starts_with("http://") || source.starts_with("https://")) return create_http_origin(volume, origin, why);
  std::string root(source);
  if (root.starts_with("file://")) root = percent_decode(root.substr(7)).value_or(root.substr(7));
  if (root.find("://") != std::string::npos) {
    *why = fmt::format("the source {} has an unknown scheme; use a directory, file://, s3:// or http(s)://", source);
    return fail(Code::invalid, EINVAL);
  }
  Result<std::unique_ptr<Origin>> created = create_posix_origin({.root = root});
  if (!created) *why = fmt::format("cannot open the source {}: {}", root, std::strerror(created.error().os_errno));
  return created;
}

}  // namespace blobcache
