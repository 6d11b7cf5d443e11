// SOURCE of the command line: which directory it names, and whether it can be shown.
//   Thread    main, before any other thread exists (bounded.h)
#pragma once

#include <string>
#include <string_view>

#include "node/node.h"

namespace blobcache::cli {

// "/data", "data" or "file:///data%201" -> the path it names. Other schemes and malformed URLs: why they are turned down.
node::Outcome source_path(const std::string& source, std::string* path_out);

// s3:// and http(s)://, which the daemon asks itself.
bool is_remote_source(std::string_view source);

// The real path of a directory that can be listed; or what is wrong with it, told within 10 s. Remote sources as they are.
node::Outcome resolve_source(const std::string& source, std::string* real_path_out);

}  // namespace blobcache::cli
