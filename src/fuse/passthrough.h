// Passthrough: backing files of a FUSE connection (Linux 6.9, root; include/uapi/linux/fuse.h).
//   Thread    any that may block for an ioctl
#pragma once

namespace blobcache::fuse {

// Makes file_fd's file a backing file of the connection: its id (> 0), or a negative errno: -EPERM without CAP_SYS_ADMIN,
// -EOPNOTSUPP without the kernel's support, -ELOOP on a stacked filesystem.
int open_backing(int connection_fd, int file_fd);
// Files that are open with the id keep theirs.
void close_backing(int connection_fd, int backing_id);

}  // namespace blobcache::fuse
