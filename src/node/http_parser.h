// HttpParser: one HTTP/1 request out of bytes that come as they like. Boost.Beast does the parsing (docs/ARCHITECTURE.md,
// Dependencies); nothing else of Boost is seen outside http_parser.cc.
//   Thread    any; one at a time
//   Limits    head_bytes_max for request line and fields together, fields_max of them
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace blobcache::node {

struct HttpHead {
  std::string method;
  std::string target;                                       // path and query as they were sent
  std::vector<std::pair<std::string, std::string>> fields;  // names in lower case
  std::optional<uint64_t> content_length;                   // absent: no body, or a chunked one
  bool keep_alive = false;

  std::string_view path() const { return std::string_view(target).substr(0, target.find('?')); }
  std::string_view query() const;
  // Empty: it was not sent.
  std::string_view field(std::string_view name) const;
  bool is_head() const { return method == "HEAD"; }
};

class HttpParser {
 public:
  static constexpr size_t head_bytes_max = 8192;
  static constexpr size_t fields_max = 128;

  enum class Step : uint8_t {
    more,      // give what was not used again, with more behind it
    head,      // head() is complete
    body,      // piece() is the next piece of the body
    end,       // nothing of this request follows
    bad,       // this is no HTTP
    too_long,  // the head is longer than head_bytes_max, or has more than fields_max
  };

  HttpParser();
  ~HttpParser();
  // For the next request.
  void reset();
  // used: so many bytes at the front are done with, those of piece() included; piece() points into bytes.
  Step parse(std::string_view bytes, size_t* used);
  // Nothing of this request is to come.
  bool done() const;
  const HttpHead& head() const { return head_; }
  std::string_view piece() const { return piece_; }

 private:
  class Beast;
  std::unique_ptr<Beast> beast_;
  HttpHead head_;
  size_t head_bytes_ = 0;  // of it, used so far
  std::string_view piece_;
};

}  // namespace blobcache::node
