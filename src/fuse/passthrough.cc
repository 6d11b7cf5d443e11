// Two ioctls. The kernel keeps the file of an id open until the id is closed and the last open with it is released, so our
// own descriptor may be closed at once.
#include "fuse/passthrough.h"

#include <cerrno>

#include <sys/ioctl.h>

#include "base/assert.h"
#include "fuse/abi.h"

namespace blobcache::fuse {

int open_backing(int connection_fd, int file_fd) {
  const abi::BackingMap map{.fd = file_fd, .flags = 0, .padding = 0};
  const int id = ioctl(connection_fd, abi::ioctl_backing_open, &map);
  if (id < 0) return -errno;
  BC_ASSERT(id > 0);
  return id;
}

void close_backing(int connection_fd, int backing_id) {
  BC_ASSERT(backing_id > 0);
  const auto id = static_cast<uint32_t>(backing_id);
  // Fails only when the connection is gone, and the id with it.
  [[maybe_unused]] const int ignored = ioctl(connection_fd, abi::ioctl_backing_close, &id);
}

}  // namespace blobcache::fuse
