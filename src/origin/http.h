// A tree of files on a web server as an origin: http(s)://HOST/PATH/.
//   Thread, lifetime, limits: as Origin
//   Requests  look-up: HEAD of the name, and of NAME/ where that is not found; a redirect to NAME/ is a directory. Read: ranged
//             GET. Listing: GET of the directory: nginx's autoindex as JSON or HTML (and what looks like it)
//   Version   the ETag, or Last-Modified where there is none. A server with neither is refused: a changed file could not be
//             told from the old one. What changed within two seconds
//             before the answer, by the server's own clock, is young: both are made from seconds by most servers
//   Ranges    a server that ignores them is refused at the first read of a part of a file
//   Errors    as HttpClient
#pragma once

#include <memory>
#include <string>

#include "base/config.h"
#include "origin/origin.h"

namespace blobcache {

// Asks the server once: *why is one sentence. Blocks for at most half a minute.
Result<std::unique_ptr<Origin>> create_http_origin(const VolumeConfig& volume, const OriginConfig& origin,
                                                   std::string* why);

}  // namespace blobcache
