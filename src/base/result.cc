#include "base/result.h"

namespace blobcache {

std::string_view code_name(Code code) {
  switch (code) {
    case Code::not_found: return "not_found";
    case Code::again: return "again";
    case Code::timeout: return "timeout";
    case Code::canceled: return "canceled";
    case Code::io: return "io";
    case Code::corrupt: return "corrupt";
    case Code::full: return "full";
    case Code::stale: return "stale";
    case Code::peer_down: return "peer_down";
    case Code::denied: return "denied";
    case Code::protocol: return "protocol";
    case Code::invalid: return "invalid";
    case Code::stopping: return "stopping";
  }
  return "unknown";
}

}  // namespace blobcache
