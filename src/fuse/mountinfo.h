// MountTable: what is mounted where, from /proc/self/mountinfo only. Nothing here touches a mount: looking at a hung one
// would hang with it.
//   Thread    any; plain values
//   Source    proc_pid_mountinfo(5); fuse connections: Documentation/filesystems/fuse.rst
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace blobcache::fuse {

inline constexpr std::string_view filesystem_type = "fuse.blobcache";

struct MountEntry {
  int id = 0;
  int parent_id = 0;
  unsigned major = 0;
  unsigned minor = 0;  // of a fuse mount: the number of its connection
  std::string mountpoint;
  std::string options;
  std::string type;  // "fuse.blobcache"
  std::string source;
  std::string super_options;

  bool is_blobcache() const { return type == filesystem_type; }
  // The user that mounted it, where the kernel says so (user_id=).
  std::optional<uint32_t> owner_uid() const;
};

// Lines that are not in the kernel's form are left out.
std::vector<MountEntry> parse_mountinfo(std::string_view text);
Result<std::vector<MountEntry>> read_mountinfo();

// The topmost mount on `path` (absolute, without "." and ".." and without a slash at its end), or null.
const MountEntry* find_mount(const std::vector<MountEntry>& mounts, std::string_view path);

// Ends the connection: every request of it fails with ECONNABORTED, and every process that waits for one goes on. Mounts
// /sys/fs/fuse/connections when it is not there. Errors: not_found (no such connection), denied.
Result<void> abort_connection(unsigned minor);

}  // namespace blobcache::fuse
