// UringRing: the kernel's ring behind the seam.
//   Thread    create() on the thread that will use it (SINGLE_ISSUER)
//   Errors    denied: io_uring is switched off (kernel.io_uring_disabled, seccomp); invalid: kernel too old
#pragma once

#include <memory>

#include "ring/ring.h"

namespace blobcache {

struct UringOptions {
  unsigned sqes = 0;
  unsigned cqes = 0;
};

Result<std::unique_ptr<Ring>> create_uring(UringOptions options);

struct UringProbe {
  bool available = false;
  int os_errno = 0;            // why not
  bool defer_taskrun = false;  // kernel 6.1
  bool all_opcodes = false;    // every opcode that ring/sqe.h prepares
};
// Makes a ring of four entries, asks, and closes it.
UringProbe probe_uring();

}  // namespace blobcache
