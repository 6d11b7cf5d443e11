// Notifications: what we tell the kernel unasked, by a write on /dev/fuse (both transports).
//   Thread    never one that serves requests: the write may wait for a lock that a waiting request holds, or for pages that
//             are being read from us. It comes back at the latest when the connection is aborted.
//   Errors    stopping: the connection is gone. not_found: the kernel does not know it (any more). invalid: an unknown
//             notification, or one in a wrong form
//   Source    fs/fuse/dev.c, fuse_notify() of Linux 6.18
#pragma once

#include <span>
#include <string_view>

#include "base/result.h"
#include "fuse/inodes.h"

namespace blobcache::fuse {

// From this minor version of the protocol on (Linux 6.18) the kernel knows notify_prune.
inline constexpr uint32_t notify_prune_minor = 45;
inline constexpr size_t prune_nodes_max = 512;

// Drops the names of these nodes from the kernel's cache where nobody uses them; what goes is FORGOTten as usual. Open
// files, working directories and directories with cached names in them stay. Takes no directory's lock.
Result<void> notify_prune(int connection_fd, std::span<const NodeId> nodes);

// Drops one name, used or not: who has it open keeps it, but finds its path "(deleted)". Takes the directory's lock.
Result<void> notify_invalidate_entry(int connection_fd, NodeId parent, std::string_view name);

}  // namespace blobcache::fuse
