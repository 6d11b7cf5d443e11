// What a request that failed is told of with: one sentence that names the thing, the cause and the remedy.
//   Thread  any
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "origin/http_client.h"

namespace blobcache {

// `doing`: "reading a/b of s3://bucket". `said`: the server's own word for it, such as "SlowDown", or empty. Empty: the failure
// needs no words (not found, replaced, stopping).
std::string failure_sentence(const HttpRequest& request, const HttpOptions& options, std::string_view doing,
                             std::string_view said);

// A server that is down fails every reader: one line a second is enough to say so.
class LinePerSecond {
 public:
  // True: say it. *left_unsaid: how many were not since the last one that was.
  bool may_say(uint64_t now_ns, uint64_t* left_unsaid);

 private:
  std::atomic<uint64_t> next_ns_{0};
  std::atomic<uint64_t> left_unsaid_{0};
};

}  // namespace blobcache
