// ByteRange: a piece of a file.
//   Thread    plain value
#pragma once

#include <cstdint>

namespace blobcache {

struct ByteRange {
  uint64_t offset = 0;
  uint64_t bytes = 0;

  uint64_t end() const { return offset + bytes; }
  bool empty() const { return bytes == 0; }
  bool contains(uint64_t position) const { return position >= offset && position - offset < bytes; }
  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

}  // namespace blobcache
