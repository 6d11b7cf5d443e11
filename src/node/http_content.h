// ContentRoutes: the content store over HTTP.
//   PUT /v1/blobs             the body is stored; 201 (200: it was known) and its SHA-256 when it is on disk. Fields:
//                             Blobcache-Expect (its SHA-256: 422 when it has another), Blobcache-TTL ("7d"), Blobcache-Pin ("yes")
//   GET|HEAD /v1/blobs/ID     its bytes; Range with one range
//   DELETE /v1/blobs/ID       it is removed; a pinned one with ?pinned=yes only
//   Owner     NodeRoutes.   Thread  the core that the endpoint lives on; what waits for a disk goes to Content's helpers
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "node/http_server.h"
#include "serve/content.h"

namespace blobcache::node {

class ContentRoutes {
 public:
  static constexpr std::string_view path = "/v1/blobs";

  explicit ContentRoutes(serve::Content& content) : content_(content) {}
  static bool takes(std::string_view target_path) {
    return target_path.starts_with(path) && (target_path.size() == path.size() || target_path[path.size()] == '/');
  }
  // takes(head.path())
  HttpRoutes::Answer route(const HttpHead& head);

 private:
  serve::Content& content_;
  unsigned downloads_ = 0;
};

// Of a representation of `bytes` bytes. A field that is no range, or asks for several, asks for all of it.
struct HttpRange {
  enum class Kind : uint8_t { whole, part, none };  // none: it lies outside
  Kind kind = Kind::whole;
  uint64_t begin = 0;
  uint64_t end = 0;  // the first byte behind it
};
HttpRange parse_range(std::string_view field, uint64_t bytes);

}  // namespace blobcache::node
