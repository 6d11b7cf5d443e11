// The refusals of the backing ioctls; what they do on a mounted connection is for the mount tests.
#include <doctest/doctest.h>

#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include "fuse/passthrough.h"

namespace blobcache::fuse {
namespace {

TEST_CASE("passthrough: what is no FUSE connection is refused with its errno") {
  const int null_device = open("/dev/null", O_RDONLY | O_CLOEXEC);
  REQUIRE(null_device >= 0);
  CHECK(open_backing(null_device, null_device) == -ENOTTY);
  CHECK(open_backing(-1, null_device) == -EBADF);
  close_backing(null_device, 1);  // says nothing: there is nobody to tell
  close(null_device);
}

TEST_CASE("passthrough: a connection that nothing is mounted on yet has no backing files") {
  const int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (device < 0) {
    MESSAGE("not tested: /dev/fuse cannot be opened here");
    return;
  }
  CHECK(open_backing(device, device) < 0);
  close(device);
}

}  // namespace
}  // namespace blobcache::fuse
