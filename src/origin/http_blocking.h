// One small request that blocks: for credentials, on a thread that may wait.
//   Thread    any but a core's
//   Limits    answers of at most 1 MiB, timeout_ms in all
#pragma once

#include <string>
#include <vector>

namespace blobcache {

struct BlockingHttp {
  std::string verb = "GET";
  std::string url;
  std::vector<std::string> headers;
  long timeout_ms = 5000;
  bool through_proxy = true;  // metadata services are never behind one
  std::string ca_file;
};
struct BlockingAnswer {
  long status = 0;  // 0: no answer
  std::string body;
};
BlockingAnswer ask_blocking(const BlockingHttp& request);

}  // namespace blobcache
