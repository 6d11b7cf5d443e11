// The ways a request ends at the kernel, each seen by its tracepoints (a linked reply is disk_read.cc's).
//   Thread    the slot's core
#pragma once

#include <cstdint>

#include "fuse/slot.h"

namespace blobcache::serve {

void send_reply(fuse::Slot& slot, uint32_t bytes);
void send_error(fuse::Slot& slot, int os_errno);
// What the kernel waits for no answer to.
void send_nothing(fuse::Slot& slot);

}  // namespace blobcache::serve
