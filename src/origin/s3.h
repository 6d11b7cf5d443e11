// S3 as an origin: s3://BUCKET/PREFIX of AWS or of any server that speaks its language.
//   Thread, lifetime, limits: as Origin. Created after the last fork: credentials are refreshed by a helper thread.
//   Requests  look-up: HEAD of the key beside a listing of KEY/ with one key at most; a directory wins. Read: ranged GET with
//             If-Match. Listing: ListObjectsV2 with a delimiter, 1,000 names a page
//   Version   the ETag. Not the version id: listings do not tell it
//   Names     docs/S3.md
//   Errors    as HttpClient
#pragma once

#include <memory>
#include <string>

#include "base/config.h"
#include "origin/origin.h"

namespace blobcache {

// Asks the server once, so that what is wrong with names, keys and rights is said at the start: *why is one sentence. Blocks
// for at most half a minute. names_directory: of indexes; needed for volume.index.
Result<std::unique_ptr<Origin>> create_s3_origin(const VolumeConfig& volume, const OriginConfig& origin,
                                                 std::string* why, const std::string& names_directory = {});

}  // namespace blobcache
