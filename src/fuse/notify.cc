#include "fuse/notify.h"

#include <cerrno>

#include <sys/uio.h>

#include "base/assert.h"
#include "base/limits.h"
#include "fuse/abi.h"
#include "ring/errno.h"

namespace blobcache::fuse {
namespace {

// A notification is a reply to request 0 with the code in place of the error.
Result<void> write_notification(int connection_fd, int32_t code, std::span<iovec> parts) {
  fuse_out_header header{.len = sizeof header, .error = code, .unique = 0};
  parts[0] = {&header, sizeof header};
  size_t bytes = 0;
  for (const iovec& part : parts) bytes += part.iov_len;
  header.len = static_cast<uint32_t>(bytes);
  ssize_t written = 0;
  do {
    written = writev(connection_fd, parts.data(), static_cast<int>(parts.size()));
  } while (written < 0 && errno == EINTR);
  if (written == static_cast<ssize_t>(bytes)) return {};
  const int os_errno = written < 0 ? errno : EIO;
  switch (os_errno) {
    case ENOTCONN:
    case ENODEV:
    case ECONNABORTED:
    case EPERM: return fail(Code::stopping, os_errno);
    default: return std::unexpected(error_from_errno(os_errno));
  }
}

}  // namespace

Result<void> notify_prune(int connection_fd, std::span<const NodeId> nodes) {
  BC_ASSERT(!nodes.empty() && nodes.size() <= prune_nodes_max);
  abi::NotifyPrune prune{.count = static_cast<uint32_t>(nodes.size()), .padding = 0, .spare = 0};
  iovec parts[] = {{}, {&prune, sizeof prune}, {const_cast<NodeId*>(nodes.data()), nodes.size_bytes()}};
  return write_notification(connection_fd, abi::notify_prune, parts);
}

Result<void> notify_invalidate_entry(int connection_fd, NodeId parent, std::string_view name) {
  BC_ASSERT(!name.empty() && name.size() <= limits::name_bytes_max);
  fuse_notify_inval_entry_out out{.parent = parent, .namelen = static_cast<uint32_t>(name.size()), .flags = 0};
  char text[limits::name_bytes_max + 1] = {};
  name.copy(text, name.size());
  iovec parts[] = {{}, {&out, sizeof out}, {text, name.size() + 1}};
  return write_notification(connection_fd, FUSE_NOTIFY_INVAL_ENTRY, parts);
}

}  // namespace blobcache::fuse
