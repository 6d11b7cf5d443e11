// What a directory origin says about a file: inode number, attributes, version, age; and which keys it takes.
//   Thread    any; pure functions
//   Version   48 bytes: dev, ino, size (u64 each), mtime, ctime (i64 seconds and u32 nanoseconds each), little-endian
#pragma once

#include <cstdint>
#include <string_view>

#include <sys/stat.h>

#include "base/file_info.h"
#include "base/result.h"

namespace blobcache {

inline constexpr unsigned posix_statx_mask = STATX_BASIC_STATS | STATX_BTIME;

// Errors: invalid with EINVAL (an empty part, ".", "..", a NUL byte) or ENAMETOOLONG (no room for it in a path).
Result<void> check_posix_key(std::string_view key);

uint64_t device_of(const struct statx& stat);
uint64_t device_of(const FileVersion& version);  // 0: it was not made by posix_version

// The file's own number on the root's filesystem, so that tools that compare a mount with its source agree. Filesystems
// mounted below the root reuse numbers: there it is a mix of dev and ino with the highest bit set, which real numbers
// hardly ever have.
uint64_t shown_ino(uint64_t dev, uint64_t ino, uint64_t root_dev);

FileVersion posix_version(const struct statx& stat);

// False: another version of the file, or another file. A new ctime alone is forgiven once the last name is gone: that is
// what unlink and replacement by rename do to a file that is still open, and its bytes are the ones that were opened.
bool is_version_of(const FileVersion& version, const struct statx& stat);

struct AgeLimit {
  uint64_t young_ns = 0;
  TimePoint now;  // CLOCK_REALTIME
};
TimePoint realtime_now();
// mtime or ctime is newer than young_ns ago. A file server whose clock is ahead of ours stamps files with our future:
// those are young until we have passed them by young_ns. A version that was not made by posix_version is young.
bool is_young(const FileVersion& version, AgeLimit limit);

struct InfoOptions {
  uint64_t root_dev = 0;
  uint64_t young_ns = 0;
};
FileInfo posix_info(const struct statx& stat, InfoOptions options);

}  // namespace blobcache
