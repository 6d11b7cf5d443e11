// Node: from a Config to a running cache and back.
//   Thread    run() on the main thread, before any other thread exists; it starts the cores and returns after they ended
//   Exit code as in the contract: 0 done, 1 failed, 3 the machine lacks something
#pragma once

#include <functional>
#include <string>

#include "base/config.h"
#include "node/outcome.h"

namespace blobcache::node {

struct RunOptions {
  // Called once the mounts answer, with the lines to show a person (transport and passthrough in force, memory plan). May
  // be empty.
  std::function<void(const std::string& summary)> on_ready;
  // Reads the configuration once more, for SIGHUP. Empty: there is nothing to read.
  std::function<Problems(Config& fresh)> load;
  // The configuration as load() gave it at the start: what a later one is compared with.
  const Config* written = nullptr;
  // The control socket's; empty: that of the first mount. Each mount has one of its own name beside it.
  std::string name;
  bool notify = false;  // the service manager, where there is one
};

// Mounts every volume of the configuration and serves until SIGTERM, SIGINT or until the last mount is gone.
Outcome run(const Config& config, const RunOptions& options);

}  // namespace blobcache::node
