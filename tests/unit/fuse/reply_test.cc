// What the kernel is told: errors as errno, attributes in its forms.
#include <doctest/doctest.h>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>

#include "fuse/reply.h"

namespace blobcache::fuse {
namespace {

TEST_CASE("reply: every code has an errno, and what users know from a directory passes as it is") {
  CHECK(errno_of({Code::not_found}) == ENOENT);
  CHECK(errno_of({Code::not_found, ENOTDIR}) == ENOTDIR);
  CHECK(errno_of({Code::denied, EPERM}) == EPERM);
  CHECK(errno_of({Code::denied, EROFS}) == EACCES);
  CHECK(errno_of({Code::stale}) == ESTALE);
  CHECK(errno_of({Code::canceled}) == EINTR);
  CHECK(errno_of({Code::invalid, ENAMETOOLONG}) == ENAMETOOLONG);
  for (const Code code : {Code::timeout, Code::io, Code::corrupt, Code::peer_down, Code::protocol, Code::stopping}) {
    CHECK(errno_of({code, ECONNRESET}) == EIO);
  }
}

TEST_CASE("reply: timeouts keep their nanoseconds") {
  const Timeout timeout = timeout_of_ns(5'250'000'000);
  CHECK(timeout.seconds == 5);
  CHECK(timeout.nanoseconds == 250'000'000);
}

TEST_CASE("reply: attributes in both forms, device numbers too") {
  FileAttributes from;
  from.ino = 42;
  from.size = 1ull << 40;
  from.mode = S_IFCHR | 0600;
  from.nlink = 3;
  from.mtime = {-1, 999'999'999};  // before 1970
  const unsigned major_number = 259;
  const unsigned minor_number = 0x12345;
  from.rdev = (minor_number & 0xff) | major_number << 8 | (minor_number & ~0xffu) << 12;
  fuse_attr attributes{};
  fill_attributes(from, attributes);
  CHECK(attributes.ino == 42);
  CHECK(attributes.size == 1ull << 40);
  CHECK(static_cast<int64_t>(attributes.mtime) == -1);
  CHECK(attributes.mtimensec == 999'999'999);
  CHECK(attributes.rdev == from.rdev);
  abi::Statx statx_form{};
  fill_statx(from, statx_form);
  CHECK(statx_form.rdev_major == major_number);
  CHECK(statx_form.rdev_minor == minor_number);
  CHECK((statx_form.mask & STATX_BTIME) == 0);
  from.btime = {1, 0};
  fill_statx(from, statx_form);
  CHECK((statx_form.mask & STATX_BTIME) != 0);
}

}  // namespace
}  // namespace blobcache::fuse
