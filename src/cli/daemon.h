// Daemon: goes into the background and lets the command wait until the mount answers.
//   Thread    main, before any other thread exists (fork)
//   Life      fork -> setsid -> log to a file -> serve; the parent waits on a pipe for "ready" or the reason why not. Until
//             then the daemon dies with the parent: a mount command that is interrupted leaves nothing behind
#pragma once

#include <functional>
#include <string>

#include "node/node.h"

namespace blobcache::cli {

using OnReady = std::function<void(const std::string& summary)>;

struct DaemonOptions {
  std::string log_path;
  std::string mountpoint;
};

// Returns in the command's process, with what serve() ended with before it was ready, or with exit code 0 and the summary
// as message once the mount answers. The daemon itself never returns from here.
node::Outcome start_daemon(const DaemonOptions& options, const std::function<node::Outcome(const OnReady&)>& serve);

}  // namespace blobcache::cli
