// OriginWords: what an origin says of its failures, as the lines of `doctor`.
//   Thread    any; a plain function
#pragma once

#include <string_view>

#include "cli/checks.h"

namespace blobcache::cli {

// `sentence` is one of open_origin's or of an origin's log: cause and remedy. The line is named after what is wrong (dns,
// connect, tls, clock, credentials, region, bucket, rights, ranges, etag, listing), or "source" where that is not known.
Check check_origin_failure(std::string_view sentence);

}  // namespace blobcache::cli
