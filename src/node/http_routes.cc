#include "node/http_routes.h"

#include <array>

namespace blobcache::node {
namespace {

// A text, whole.
class TextExchange : public HttpExchange {
 public:
  explicit TextExchange(Report report) : report_(std::move(report)) {}
  void start(HttpConnection& connection) override { answer(connection); }
  void on_over() override { delete this; }

 protected:
  TextExchange() = default;
  void answer(HttpConnection& connection) {
    connection.begin_response({.status = report_.status,
                               .content_type = report_.content_type,
                               .content_length = report_.text.size(),
                               .fields = "Cache-Control: no-store\r\n"});
    connection.send(connection.head().is_head() ? std::string_view() : std::string_view(report_.text), true);
  }
  Report report_;
};

class ReportExchange final : public TextExchange, public ReportWaiter {
 public:
  ReportExchange(Reports& reports, ReportKind kind) : reports_(reports), kind_(kind) {}
  void start(HttpConnection& connection) override {
    connection_ = &connection;
    reports_.begin(kind_, *this);
  }
  void on_report(const Report& report) override {
    report_ = report;
    answer(*connection_);
  }
  void on_over() override {
    if (linked()) unlink();
    delete this;
  }

 private:
  Reports& reports_;
  const ReportKind kind_;
  HttpConnection* connection_ = nullptr;
};

struct Page {
  std::string_view path;
  ReportKind kind{};
};
constexpr std::array pages{Page{"/metrics", ReportKind::metrics}, Page{"/v1/status", ReportKind::status},
                           Page{"/readyz", ReportKind::readiness}};

}  // namespace

HttpRoutes::Answer NodeRoutes::route(const HttpHead& head) {
  const std::string_view path = head.path();
  if (ContentRoutes::takes(path)) return content_.route(head);
  std::unique_ptr<HttpExchange> exchange;
  // It is a core that answers, so the node lives.
  if (path == "/healthz") exchange = std::make_unique<TextExchange>(Report{.text = "ok\n"});
  for (const Page& page : pages) {
    if (path == page.path) exchange = std::make_unique<ReportExchange>(reports_, page.kind);
  }
  if (exchange == nullptr) return {};
  if (head.method != "GET" && !head.is_head()) return {.status = 405, .why = "it can only be read: GET or HEAD"};
  return {.exchange = std::move(exchange)};
}

}  // namespace blobcache::node
