// Caller: whether the process behind a request is being killed.
//   Why       the kernel tells us by INTERRUPT only of waits that it can interrupt at that moment. Direct reads and readahead
//             wait without one, and on the uring transport a process that was killed before its request had reached us sends
//             none either (seen on Linux 6.18; docs/KERNEL.md). Without this such a process stays until the deadline.
//   Thread    any. Reads procfs, tens of microseconds: only for requests that have waited for a second already
#pragma once

#include <cstdint>

namespace blobcache::serve {

// pid as in fuse_in_header: a thread's, in our namespace; 0 (another namespace) is never known to be killed.
bool caller_is_killed(uint32_t pid);

}  // namespace blobcache::serve
