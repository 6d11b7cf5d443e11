// Status: what the node is doing, as JSON.
//   Thread    the main thread; reads the cores' counters while they count
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/config.h"
#include "node/core.h"

namespace blobcache::node {

std::string status_json(const Config& config, const Plan& plan, const SharedState& shared,
                        const std::vector<std::unique_ptr<Core>>& cores);

}  // namespace blobcache::node
