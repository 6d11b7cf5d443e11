// What web servers say of their directories. Hostile input; pure functions.
//   Thread    any
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace blobcache {

struct ListedName {
  std::string name;
  bool directory = false;
};

// nginx: autoindex_format json. Errors: protocol.
Result<std::vector<ListedName>> parse_json_listing(std::string_view text);
// Links to direct children of base_path (decoded, ends with '/'), each once, in their order. Others are passed over: parents,
// sort orders, other sites. Errors: protocol (not one link at all, so it is no listing).
Result<std::vector<ListedName>> parse_html_listing(std::string_view text, std::string_view base_path);

}  // namespace blobcache
