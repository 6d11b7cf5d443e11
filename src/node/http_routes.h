// NodeRoutes: what the HTTP endpoint answers.
//   Owner     Node.   Thread  the core that the endpoint lives on
#pragma once

#include "node/http_content.h"
#include "node/http_server.h"
#include "node/reports.h"

namespace blobcache::node {

class NodeRoutes final : public HttpRoutes {
 public:
  NodeRoutes(Reports& reports, serve::Content& content) : reports_(reports), content_(content) {}
  Answer route(const HttpHead& head) override;
  bool is_public(const HttpHead& head) const override;

 private:
  Reports& reports_;
  ContentRoutes content_;
};

}  // namespace blobcache::node
