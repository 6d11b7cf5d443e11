#include "base/features.h"

#include <cstdlib>

namespace blobcache {
namespace {

uint32_t read_mask() {
  const char* list = std::getenv("BLOBCACHE_PRETEND_ABSENT");
  if (list == nullptr) return 0;
  uint32_t mask = 0;
  std::string_view rest(list);
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    const std::string_view name = rest.substr(0, comma);
    for (unsigned i = 0; i < feature_count; ++i) {
      if (name == feature_name(static_cast<Feature>(i))) mask |= 1u << i;
    }
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(comma + 1);
  }
  return mask;
}

}  // namespace

std::string_view feature_name(Feature feature) {
  switch (feature) {
    case Feature::io_uring: return "io_uring";
    case Feature::defer_taskrun: return "defer_taskrun";
    case Feature::uring_fuse: return "uring_fuse";
    case Feature::passthrough: return "passthrough";
    case Feature::hugepages: return "hugepages";
    case Feature::memlock: return "memlock";
    case Feature::notify_prune: return "notify_prune";
    case Feature::linked_reads: return "linked_reads";
  }
  return "unknown";
}

bool pretended_absent(Feature feature) {
  static const uint32_t mask = read_mask();
  return (mask & (1u << static_cast<unsigned>(feature))) != 0;
}

}  // namespace blobcache
