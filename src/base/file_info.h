// FileInfo: what is known of one version of one file.
//   Thread    plain values
#pragma once

#include <compare>
#include <cstdint>
#include <string_view>

namespace blobcache {

struct TimePoint {
  int64_t seconds = 0;
  uint32_t nanoseconds = 0;
  friend auto operator<=>(const TimePoint&, const TimePoint&) = default;
};

// What stat(2) shows.
struct FileAttributes {
  uint64_t ino = 0;  // unique within the volume; hard links share theirs
  uint64_t size = 0;
  uint64_t blocks = 0;  // of 512 bytes
  uint32_t mode = 0;    // type and permissions
  uint32_t nlink = 1;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t rdev = 0;  // as new_encode_dev packs it: minor & 0xff | major << 8 | (minor & ~0xff) << 12
  uint32_t block_size = 4096;
  TimePoint atime;
  TimePoint mtime;
  TimePoint ctime;
  TimePoint btime;  // zero: the origin has none
};

// At most 63 bytes, compared as bytes.
struct FileVersion {
  uint8_t length = 0;
  char bytes[63] = {};

  std::string_view view() const { return {bytes, length}; }
  friend bool operator==(const FileVersion& a, const FileVersion& b) { return a.view() == b.view(); }
};

struct FileInfo {
  FileAttributes attributes;
  FileVersion version;
  // The version changed so recently that another change could go unseen (origin timestamps are coarse): serve it, but
  // cache nothing of it.
  bool young = false;
  // Files of a directory origin are named by (dev, ino) and shared by their hard links; "" means that the version alone
  // identifies the object, otherwise key and version do together.
  bool key_in_identity = true;
};

}  // namespace blobcache
