#include "node/http_routes.h"

#include <array>

#include <fmt/format.h>

#include "node/page.h"

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

// The page. It is a part of the program, so it is the same until the node is another one: a browser asks each time and keeps
// none. It loads nothing but itself, whoever wrote the names that it shows, and stands in nobody's frame.
class PageExchange final : public HttpExchange {
 public:
  void start(HttpConnection& connection) override {
    connection.begin_response(
        {.content_type = "text/html; charset=utf-8",
         .content_length = page_html.size(),
         .fields = fmt::format("Cache-Control: no-store\r\nContent-Security-Policy: {}\r\n"
                               "X-Frame-Options: DENY\r\n"
                               "Referrer-Policy: no-referrer\r\nCross-Origin-Opener-Policy: same-origin\r\n",
                               page_security_policy)});
    connection.send(connection.head().is_head() ? std::string_view() : page_html, true);
  }
  void on_over() override { delete this; }
};

struct Text {
  std::string_view path;
  ReportKind kind{};
};
constexpr std::array texts{Text{"/metrics", ReportKind::metrics}, Text{"/v1/status", ReportKind::status},
                           Text{"/readyz", ReportKind::readiness}};
constexpr std::string_view page_path = "/";

}  // namespace

bool NodeRoutes::is_public(const HttpHead& head) const { return head.path() == page_path; }

HttpRoutes::Answer NodeRoutes::route(const HttpHead& head) {
  const std::string_view path = head.path();
  if (ContentRoutes::takes(path)) return content_.route(head);
  std::unique_ptr<HttpExchange> exchange;
  // It is a core that answers, so the node lives.
  if (path == "/healthz") exchange = std::make_unique<TextExchange>(Report{.text = "ok\n"});
  if (path == page_path) exchange = std::make_unique<PageExchange>();
  for (const Text& text : texts) {
    if (path == text.path) exchange = std::make_unique<ReportExchange>(reports_, text.kind);
  }
  if (exchange == nullptr) return {};
  if (head.method != "GET" && !head.is_head()) return {.status = 405, .why = "it can only be read: GET or HEAD"};
  return {.exchange = std::move(exchange)};
}

}  // namespace blobcache::node
