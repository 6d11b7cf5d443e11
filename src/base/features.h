// Features: what a kernel may lack, and the one switch that lets CI run every fallback on the one kernel it has.
//   BLOBCACHE_PRETEND_ABSENT=uring_fuse,passthrough,...  names what to treat as missing.
//   Thread    any; read once, at first use
#pragma once

#include <cstdint>
#include <string_view>

namespace blobcache {

enum class Feature : uint8_t {
  io_uring,       // io_uring_setup works at all
  defer_taskrun,  // IORING_SETUP_SINGLE_ISSUER | DEFER_TASKRUN, kernel 6.1
  uring_fuse,     // FUSE over io_uring, kernel 6.14 and enable_uring=1
  passthrough,    // FUSE backing files, kernel 6.9
  hugepages,      // transparent or reserved 2 MiB pages
  memlock,        // pages may be pinned beyond RLIMIT_MEMLOCK
  notify_prune,   // FUSE_NOTIFY_PRUNE, kernel 6.18
  linked_reads,   // what is fetched ahead from disk goes out as linked reads; every kernel has it: to measure its worth
};
inline constexpr unsigned feature_count = 8;

std::string_view feature_name(Feature feature);
bool pretended_absent(Feature feature);

}  // namespace blobcache
