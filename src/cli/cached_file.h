// CachedFile: what a mount says of one file, through its extended attributes.
//   Thread    any; plain functions. They ask the daemon, and wait for it
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/tiers.h"
#include "fuse/mountinfo.h"

namespace blobcache::cli {

struct CachedFile {
  std::string id;
  std::string source;
  std::string version;
  uint64_t size = 0;
  std::vector<TierBytes> tiers;  // "memory", "disk", "disk_verified", "peer"
  bool pinned = false;           // it may not leave the disk
  std::string backing_path;      // of a whole and verified object's own file; empty: there is none
};

// 0 or an errno: ENODATA and EOPNOTSUPP say that it is no file of a mount, EPROTO that the daemon speaks otherwise.
int read_cached_file(const std::string& path, CachedFile* out);
int read_cached_file(int fd, CachedFile* out);
// The two that every file of a long list is asked for. Tiers: also "pinned", the size of a pinned one.
int read_id(const std::string& path, std::string* out);
int read_tiers(const std::string& path, std::vector<TierBytes>* out);

// "FILE is no file on a blobcache mount; ...": one sentence for what read_cached_file returned.
std::string file_problem(std::string_view path, int os_errno);
// Why there is no backing path, and what to do.
std::string backing_problem(std::string_view path, const CachedFile& file);

// The blobcache mount that `path` lies on. The path is resolved by the file system.
std::optional<fuse::MountEntry> mount_of(const std::string& path);
// The mount of any kind that an absolute path without links lies on, or null.
const fuse::MountEntry* find_mount_above(const std::vector<fuse::MountEntry>& mounts, std::string_view path);
// Whether the daemon's status says that the volume on this mount point is read by passthrough.
bool says_passthrough(std::string_view status_json, std::string_view mountpoint);
// Bytes that all disks together still take before the cache evicts; nullopt: there are none.
std::optional<uint64_t> disk_room(std::string_view status_json);

}  // namespace blobcache::cli
