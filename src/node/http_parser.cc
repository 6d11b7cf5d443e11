#include "node/http_parser.h"

#include <limits>

#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/rfc7230.hpp>

#include "base/text.h"

namespace blobcache::node {
namespace {

namespace http = boost::beast::http;
using boost::beast::error_code;
using Text = boost::beast::string_view;

}  // namespace

std::string_view HttpHead::query() const {
  const size_t mark = target.find('?');
  return mark == std::string::npos ? std::string_view() : std::string_view(target).substr(mark + 1);
}

std::string_view HttpHead::field(std::string_view name) const {
  for (const auto& [field_name, value] : fields) {
    if (field_name == name) return value;
  }
  return {};
}

// Beast's own message types keep a whole body; this hands on what comes.
class HttpParser::Beast final : public http::basic_parser<true> {
 public:
  explicit Beast(HttpParser& parser) : parser_(parser) {
    // Of what one put() is given: in 1.74 what was used before does not count, so parse() counts too.
    header_limit(head_bytes_max);
    // As much as there is: whoever takes it counts. (Beast 1.74 takes "none" for 0.)
    body_limit(std::numeric_limits<uint64_t>::max());
  }

 private:
  void on_request_impl(http::verb, Text method, Text target, int, error_code& error) override {
    parser_.head_.method.assign(method.data(), method.size());
    parser_.head_.target.assign(target.data(), target.size());
    error = {};
  }
  void on_response_impl(int, Text, int, error_code& error) override { error = http::error::bad_version; }
  void on_field_impl(http::field, Text name, Text value, error_code& error) override {
    error = {};
    if (parser_.head_.fields.size() >= fields_max) {
      error = http::error::header_limit;
      return;
    }
    parser_.head_.fields.emplace_back(ascii_lower({name.data(), name.size()}), std::string(value.data(), value.size()));
  }
  void on_header_impl(error_code& error) override { error = {}; }
  void on_body_init_impl(const boost::optional<uint64_t>&, error_code& error) override { error = {}; }
  std::size_t on_body_impl(Text body, error_code& error) override {
    parser_.piece_ = {body.data(), body.size()};
    error = {};
    return body.size();
  }
  void on_chunk_header_impl(uint64_t, Text, error_code& error) override { error = {}; }
  std::size_t on_chunk_body_impl(uint64_t, Text body, error_code& error) override { return on_body_impl(body, error); }
  void on_finish_impl(error_code& error) override { error = {}; }

  HttpParser& parser_;
};

HttpParser::HttpParser() { reset(); }
HttpParser::~HttpParser() = default;

void HttpParser::reset() {
  head_ = {};
  head_bytes_ = 0;
  piece_ = {};
  beast_ = std::make_unique<Beast>(*this);
}

bool HttpParser::done() const { return beast_->is_done(); }

HttpParser::Step HttpParser::parse(std::string_view bytes, size_t* used) {
  *used = 0;
  piece_ = {};
  if (beast_->is_done()) return Step::end;
  const bool had_head = beast_->is_header_done();
  while (!bytes.empty()) {
    error_code error;
    const size_t step = beast_->put(boost::asio::const_buffer(bytes.data(), bytes.size()), error);
    *used += step;
    bytes.remove_prefix(step);
    if (error == http::error::header_limit) return Step::too_long;
    if (!had_head) {
      head_bytes_ += step;
      const size_t unfinished = beast_->is_header_done() ? 0 : bytes.size();
      if (head_bytes_ + unfinished > head_bytes_max) return Step::too_long;
    }
    if (error == http::error::need_more) return Step::more;
    if (error) return Step::bad;
    if (!had_head && beast_->is_header_done()) {
      if (const auto length = beast_->content_length()) head_.content_length = *length;
      head_.keep_alive = beast_->keep_alive();
      return Step::head;
    }
    if (!piece_.empty()) return Step::body;
    if (beast_->is_done()) return Step::end;
  }
  return Step::more;
}

}  // namespace blobcache::node
