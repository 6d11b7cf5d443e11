// Ready means that every volume answers: each core turns, and no volume's connection to the kernel has ended. Neither the
// mount itself nor the origin is asked: a node whose origin is down still serves what it has, and all nodes would leave their
// balancer at once.
#include "node/endpoint.h"

#include <fmt/format.h>

#include "node/status.h"

namespace blobcache::node {

Endpoint::Endpoint(const NodeView& view)
    : view_(view),
      metrics_(view),
      reports_({.make = [this](ReportKind kind, Poster& poster) { return make(kind, poster); },
                .sample = [this] { metrics_.sample(); }}),
      routes_(reports_, view.shared->content),
      server_({.listen = view.config->http.listen, .secret_file = view.config->http.secret_file, .routes = &routes_}) {}

Outcome Endpoint::prepare() {
  std::string message;
  if (const Result<void> prepared = server_.prepare(&message); !prepared) return failed(message);
  return {};
}

Outcome Endpoint::open() {
  std::string message;
  if (const Result<void> opened = server_.open(&message); !opened) return failed(message);
  return {};
}

void Endpoint::start(const Reactor& home) {
  pings_ = std::make_unique<Pings>(*view_.cores);
  reports_.start(home);
}

Report Endpoint::make(ReportKind kind, Poster& poster) {
  switch (kind) {
    case ReportKind::metrics:
      return {.content_type = "text/plain; version=0.0.4; charset=utf-8", .text = metrics_.text()};
    case ReportKind::status:
      return {.content_type = "application/json",
              .text = status_json(*view_.config, *view_.plan, *view_.shared, *view_.cores)};
    case ReportKind::readiness: return readiness(poster);
  }
  return {};
}

Report Endpoint::readiness(Poster& poster) {
  const auto not_ready = [](std::string why) { return Report{.status = 503, .text = std::move(why)}; };
  if (draining_.load(std::memory_order_relaxed)) return not_ready("draining\n");
  for (const std::unique_ptr<serve::Volume>& volume : view_.shared->volumes) {
    if (volume->ended.load(std::memory_order_relaxed)) {
      return not_ready(fmt::format("the volume {} is not mounted any more\n", volume->config.name));
    }
  }
  if (const std::optional<unsigned> core = pings_->silent_core(poster)) {
    return not_ready(fmt::format("core {} does not answer\n", *core));
  }
  return {.text = "ready\n"};
}

}  // namespace blobcache::node
