// Which of the running nodes a command speaks to.
//   Thread    main
#pragma once

#include <string>

#include "node/outcome.h"

namespace blobcache::cli {

// The control socket of the node `name` (node.name, or one of its mount points); of the only one that runs when name is empty.
// Otherwise one sentence.
node::Outcome choose_node(const std::string& name, std::string* socket_out);

}  // namespace blobcache::cli
