// What `version` says, for the report too.
//   Thread    main
#pragma once

#include <string>

namespace blobcache::cli {

std::string version_text(bool json);

}  // namespace blobcache::cli
