// PosixOrigin: a directory of this machine (or of a file server mounted on it) as an origin.
//   Thread, lifetime, limits: as Origin. Created after the last fork: its helper threads do not survive one.
//   How       openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS), statx and reads go through the
//             caller's ring; getdents, readlink and statfs through `blocking_threads` helpers of this origin's own
//   Root      the directory that had the name at the start, for ever: one that takes its name later is not looked at
//   Errors    invalid with ELOOP: a symlink where a file or directory was to be opened, or in the middle of a path
//   Version   (dev, ino, size, mtime, ctime), taken from the open file before and after each read. A file that was
//             unlinked or replaced by rename while open keeps its version; chmod, link and rename give a new one
//   Young     the version's mtime or ctime lies within young_ns of now, or in the future
//   Stopping  join() false: a helper hangs in a system call and still uses the origin and its call; neither may be freed,
//             the process is about to end
#pragma once

#include <memory>
#include <string>

#include "origin/origin.h"

namespace blobcache {

struct PosixOriginOptions {
  std::string root;               // an existing directory
  unsigned blocking_threads = 4;  // 0: inline (simulation)
  uint64_t young_ns = 1'000'000'000;
  uint64_t bandwidth_bytes = 0;  // a second; 0: no limit
};

// Opens the root. Errors, with os_errno: not_found, denied, invalid (ENOTDIR: not a directory), denied with ENOSYS (there
// is no /proc, through which files are opened).
Result<std::unique_ptr<Origin>> create_posix_origin(PosixOriginOptions options);

}  // namespace blobcache
