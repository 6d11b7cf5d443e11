// Endpoint: the HTTP server of a node, and what it tells of the node.
//   Owner     Node.   Thread  the main thread; the server lives on a core, its texts are made on a thread of their own
//   Lifetime  prepare() -> open() -> guest() is given to a core -> start() with the cores ready -> stop() after the cores ended
#pragma once

#include <atomic>
#include <memory>

#include "node/http_routes.h"
#include "node/http_server.h"
#include "node/metrics.h"
#include "node/outcome.h"
#include "node/pings.h"
#include "node/reports.h"

namespace blobcache::node {

class Endpoint {
 public:
  explicit Endpoint(const NodeView& view);

  // prepare() finds what can be found before anything is taken; open() listens.
  Outcome prepare();
  Outcome open();
  Guest& guest() { return server_; }
  void start(const Reactor& home);
  // Not ready any more.
  void drain() { draining_.store(true, std::memory_order_relaxed); }
  // False: it still looks at a tier that hangs.
  bool stop(unsigned patience_ms) { return reports_.stop(patience_ms); }

 private:
  Report make(ReportKind kind, Poster& poster);
  Report readiness(Poster& poster);

  const NodeView view_;
  Metrics metrics_;
  std::unique_ptr<Pings> pings_;
  std::atomic<bool> draining_{false};
  Reports reports_;
  NodeRoutes routes_;
  HttpServer server_;
};

}  // namespace blobcache::node
