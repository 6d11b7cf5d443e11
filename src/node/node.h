// Node: from a Config to a running cache and back.
//   Thread    run() on the main thread, before any other thread exists; it starts the cores and returns after they ended
//   Exit code as in the contract: 0 done, 1 failed, 3 the machine lacks something
#pragma once

#include <functional>
#include <string>

#include "base/config.h"

namespace blobcache::node {

struct Outcome {
  int exit_code = 0;
  std::string message;  // one sentence: what, why, what to do; empty when exit_code is 0
};

// Mounts every volume of the configuration, calls on_ready once the mounts answer, and serves until SIGTERM, SIGINT or
// until the last mount is gone. on_ready gets the lines to show a person (transport in force, memory plan).
Outcome run(const Config& config, const std::function<void(const std::string& summary)>& on_ready);

}  // namespace blobcache::node
