// Node: from a Config to a running cache and back.
//   Thread    run() on the main thread, before any other thread exists; it starts the cores and returns after they ended
//   Exit code as in the contract: 0 done, 1 failed, 3 the machine lacks something
#pragma once

#include <functional>
#include <string>

#include "base/config.h"
#include "node/outcome.h"

namespace blobcache::node {

// Mounts every volume of the configuration, calls on_ready once the mounts answer, and serves until SIGTERM, SIGINT or
// until the last mount is gone. on_ready gets the lines to show a person (transport and passthrough in force, memory plan).
Outcome run(const Config& config, const std::function<void(const std::string& summary)>& on_ready);

}  // namespace blobcache::node
