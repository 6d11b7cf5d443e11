// The names of FUSE's operations, for logs.
//   Thread    any
#pragma once

#include <cstdint>
#include <string_view>

namespace blobcache::serve {

// "read" for FUSE_READ; "operation" for what has no name here.
std::string_view operation_name(uint32_t opcode);

}  // namespace blobcache::serve
