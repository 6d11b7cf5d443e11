// Reload: what SIGHUP changes in a node that serves.
//   Thread    the main thread
#pragma once

#include "base/config.h"
#include "node/core.h"

namespace blobcache::node {

// problems: what reading `fresh` told. With none: takes its reloadable values over into config (in force) and written (what
// was read), and says in the log of every change what becomes of it. Otherwise nothing is changed, and the log says why.
// Returns the problems, those of the whole included.
Problems reload(Problems problems, const Config& fresh, Config& config, Config& written);

// Gives the reloadable values to those who use them. Also at the start.
void apply_live(const Config& config, SharedState& shared);

}  // namespace blobcache::node
