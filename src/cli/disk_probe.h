// DiskProbe: what a folder is worth as a cache directory: tried out, because nothing else tells.
//   Thread    main, before any other exists (bounded.h)
//   Limits    probe_bytes written and read, a second in all; the file has no name and is gone afterwards
#pragma once

#include <cstdint>
#include <string>

namespace blobcache::cli {

struct DiskFacts {
  std::string path;
  int os_errno = 0;               // of writing there; ETIMEDOUT: it did not answer
  std::string filesystem;         // "ext4"
  uint32_t direct_alignment = 0;  // what O_DIRECT asks for; 0: it does not work
  uint64_t free_bytes = 0;
  uint64_t write_bytes_s = 0;
  uint64_t read_bytes_s = 0;
};

// path: absolute. One that does not exist is probed in the folder that it would be made in.
DiskFacts probe_disk(const std::string& path);

}  // namespace blobcache::cli
