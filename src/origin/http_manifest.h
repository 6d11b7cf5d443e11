// A manifest: what a web server's tree holds, in a file, in place of listings (docs/S3.md has its form). Hostile input; pure.
//   Thread    any
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "base/result.h"

namespace blobcache {

// Some 150,000 files. Taking one apart needs twice as much beside it, and its names are kept, two times over while a new one
// replaces the old.
inline constexpr size_t manifest_bytes_max = 16 * limits::MiB;
inline constexpr size_t manifest_memory_bytes = 5 * manifest_bytes_max;

struct ManifestFile {
  std::string path;
  uint64_t size = 0;
  int64_t mtime_s = 0;
  std::string version;  // at most 63 bytes; empty: not told
};

// In the order of paths as bytes. Errors: protocol; *why is "line N ..." as the end of a sentence.
Result<std::vector<ManifestFile>> parse_manifest(std::string_view text, std::string* why);

}  // namespace blobcache
