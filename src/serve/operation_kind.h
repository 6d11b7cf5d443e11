// OperationKind: FUSE's operations as latencies are counted.
//   Thread    any
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "fuse/abi.h"

namespace blobcache::serve {

enum class OperationKind : uint8_t { read, lookup, getattr, open, readdir, release, other };
inline constexpr unsigned operation_kinds = 7;

inline OperationKind operation_kind(uint32_t opcode) {
  switch (opcode) {
    case FUSE_READ: return OperationKind::read;
    case FUSE_LOOKUP: return OperationKind::lookup;
    case FUSE_GETATTR:
    case abi::op_statx: return OperationKind::getattr;
    case FUSE_OPEN:
    case FUSE_OPENDIR: return OperationKind::open;
    case FUSE_READDIR:
    case FUSE_READDIRPLUS: return OperationKind::readdir;
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR: return OperationKind::release;
    default: return OperationKind::other;
  }
}

inline std::string_view operation_kind_name(OperationKind kind) {
  constexpr std::array<std::string_view, operation_kinds> names{"read",    "lookup",  "getattr", "open",
                                                                "readdir", "release", "other"};
  return names[static_cast<unsigned>(kind)];
}

}  // namespace blobcache::serve
