// What replies are made of: attributes in the kernel's forms, and errors as errno.
//   Thread    any; pure
#pragma once

#include <cstdint>

#include "base/file_info.h"
#include "base/result.h"
#include "fuse/abi.h"

namespace blobcache::fuse {

// Code -> errno, once. An errno that the origin gave and that users know from a plain directory passes as it is.
int errno_of(const Error& error);

struct Timeout {
  uint64_t seconds = 0;
  uint32_t nanoseconds = 0;
};
Timeout timeout_of_ns(uint64_t ns);

void fill_attributes(const FileAttributes& from, fuse_attr& to);
void fill_statx(const FileAttributes& from, abi::Statx& to);

}  // namespace blobcache::fuse
