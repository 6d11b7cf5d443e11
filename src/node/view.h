// NodeView: a running node, for who tells of it.
#pragma once

#include <memory>
#include <vector>

#include "base/config.h"
#include "node/core.h"
#include "node/plan.h"

namespace blobcache::node {

struct NodeView {
  const Config* config = nullptr;
  const Plan* plan = nullptr;
  SharedState* shared = nullptr;
  const std::vector<std::unique_ptr<Core>>* cores = nullptr;
};

}  // namespace blobcache::node
