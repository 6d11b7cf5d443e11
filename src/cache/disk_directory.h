// DiskDirectory: one directory of cache.disk, opened, locked, and known to be ours.
//   Owner     Node; one per disk.   Thread  open and close: the main thread, before the cores start and after they ended
//   Blocks    open: yes (a few small files). The descriptors may then be used by anyone
//   Lock      flock on FORMAT, held while open: the kernel drops it when the process dies, however it dies
//   Never     deletes or overwrites what it did not make: what is not ours, or of another version, is refused
#pragma once

#include <cstdint>
#include <string>

#include "cache/disk_format.h"

namespace blobcache {

struct DiskDirectoryOptions {
  std::string path;        // created with mode 0700 when it does not exist (its parent must)
  disk_format::Uuid node;  // whose directory it is; not null
};

class DiskDirectory {
 public:
  DiskDirectory() = default;
  ~DiskDirectory() { close(); }
  DiskDirectory(const DiskDirectory&) = delete;
  DiskDirectory& operator=(const DiskDirectory&) = delete;

  // message_out: on failure one sentence with cause and remedy. Errors: denied (not ours to use: another node's, other
  // permissions), again (in use by another process), corrupt (FORMAT is damaged), invalid (another version, not a cache
  // directory, no O_DIRECT), io.
  Result<void> open(const DiskDirectoryOptions& options, std::string* message_out);
  void close();

  int root_fd() const { return root_fd_; }
  int index_fd() const { return index_fd_; }  // the folder index/
  const std::string& path() const { return path_; }
  disk_format::Uuid disk() const { return disk_; }  // random, made with the directory
  bool created() const { return created_; }
  // What O_DIRECT asks of memory, offsets and lengths here, 512 to 4096.
  uint32_t direct_alignment() const { return direct_alignment_; }
  // On a stacked filesystem (overlayfs, ecryptfs) no file can be a backing file of FUSE passthrough (max_stack_depth 1,
  // fs/fuse/passthrough.c); everything else works.
  bool stacked() const { return stacked_; }

 private:
  Result<void> open_root(std::string* message_out);
  Result<void> open_format(const disk_format::Uuid& node, std::string* message_out);
  Result<void> create_format(const disk_format::Uuid& node, std::string* message_out);
  Result<void> create_format_locked(const disk_format::Uuid& node, std::string* message_out);
  Result<void> open_folders(std::string* message_out);
  Result<void> probe_direct(std::string* message_out);

  std::string path_;
  disk_format::Uuid disk_;
  int root_fd_ = -1;
  int format_fd_ = -1;
  int index_fd_ = -1;
  uint32_t direct_alignment_ = 0;
  bool created_ = false;
  bool stacked_ = false;
};

// This boot's id. Errors: io.
Result<disk_format::Uuid> boot_id();
// Errors: io. For a descriptor of a file in a cache directory; see disk_format::FileStamp for what it is good for.
Result<disk_format::FileStamp> stamp_of_file(int fd, const disk_format::Uuid& boot);

}  // namespace blobcache
