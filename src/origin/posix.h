// PosixOrigin: a directory of this machine (or of a file server mounted on it) as an origin.
//   Thread, lifetime, limits: as Origin
//   How       openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS), statx and reads go through the
//             caller's ring; getdents, readlink and statfs through `blocking_threads` helpers of this origin's own
//   Version   (dev, ino, size, mtime, ctime), taken from the open file before and after each read
//   Young     the version's mtime or ctime lies within young_ns of now
#pragma once

#include <memory>
#include <string>

#include "origin/origin.h"

namespace blobcache {

struct PosixOriginOptions {
  std::string root;              // an existing directory
  unsigned blocking_threads = 4;  // 0: inline (simulation)
  uint64_t young_ns = 1'000'000'000;
};

// Opens the root. Errors: not_found, denied, invalid (not a directory), with os_errno.
Result<std::unique_ptr<Origin>> create_posix_origin(PosixOriginOptions options);

}  // namespace blobcache
