// Where a daemon keeps what outlives a command: its control socket and its log. The same on both sides of the socket.
//   Thread    any; plain functions of the environment and the user
//   Root      /run/blobcache
//   Others    $XDG_RUNTIME_DIR/blobcache; without it $XDG_STATE_HOME/blobcache, ~/.local/state/blobcache, and at last
//             /tmp/blobcache-UID
#pragma once

#include <string>
#include <string_view>

#include <sys/types.h>

namespace blobcache {

// A mount point as one file name, as systemd escapes paths: /mnt/my models -> mnt-my\x20models. Long ones end in a hash,
// because the path of a socket has at most 107 bytes.
std::string escape_mount_path(std::string_view mountpoint);

// This user's folder. Not created.
std::string state_directory();
// The folder in which user `uid` keeps its daemons' sockets, as far as another user can know it.
std::string state_directory_of(uid_t uid);
// Creates state_directory() (0755 for root, 0700 otherwise). 0 or an errno.
int make_state_directory();

std::string control_socket_path(std::string_view directory, std::string_view name);
std::string log_path(std::string_view directory, std::string_view name);

}  // namespace blobcache
