// NodeRoutes: what the HTTP endpoint answers.
//   Owner     Node.   Thread  the core that the endpoint lives on
#pragma once

#include "node/http_server.h"
#include "node/reports.h"

namespace blobcache::node {

class NodeRoutes final : public HttpRoutes {
 public:
  explicit NodeRoutes(Reports& reports) : reports_(reports) {}
  Answer route(const HttpHead& head) override;

 private:
  Reports& reports_;
};

}  // namespace blobcache::node
