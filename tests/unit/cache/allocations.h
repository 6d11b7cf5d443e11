// How often this thread has asked for memory by operator new; counted in memory_tier_test.cc.
//   Thread    any
#pragma once

#include <cstdint>

// Sanitizers bring an operator new of their own, and clang links it statically: nothing is counted there.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BC_TEST_COUNTS_ALLOCATIONS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define BC_TEST_COUNTS_ALLOCATIONS 0
#endif
#endif
#ifndef BC_TEST_COUNTS_ALLOCATIONS
#define BC_TEST_COUNTS_ALLOCATIONS 1
#endif

#if BC_TEST_COUNTS_ALLOCATIONS
namespace blobcache::test {
uint64_t allocation_count();
}  // namespace blobcache::test
#endif
