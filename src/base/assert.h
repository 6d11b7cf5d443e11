// BC_ASSERT: an invariant of our own code, checked in every build.
//   Thread    any
//   Use       pre- and postconditions, and pairs (at submit and at CQE). Never for what a disk, a peer, an origin or a
//             user may do: those are Results.
#pragma once

namespace blobcache {

[[noreturn]] void assert_failed(const char* expression, const char* file, int line);

}  // namespace blobcache

#define BC_ASSERT(condition)                                      \
  do {                                                            \
    if (!(condition)) [[unlikely]]                                \
      ::blobcache::assert_failed(#condition, __FILE__, __LINE__); \
  } while (false)
