// Which version of a file an answer is: what its server names it by.
#include "base/file_info.h"
#include "base/object_id.h"
#include "origin/http_client.h"

namespace blobcache {

std::string version_of(const HttpHead& head) {
  if (!head.etag.empty()) return compact_version(head.etag);
  return head.last_modified.empty() ? std::string() : compact_version("@" + head.last_modified);
}

std::string compact_version(std::string version) {
  if (version.size() <= sizeof FileVersion::bytes) return version;
  return "#" + to_hex(object_id("", "", version));
}

}  // namespace blobcache
