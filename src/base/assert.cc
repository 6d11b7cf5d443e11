// The process is in a state nobody thought of: say where, and die so that the successor starts from what is on disk.
// Nothing here allocates or takes a lock; the heap may be what broke.
#include "base/assert.h"

#include <cstdio>
#include <cstdlib>

#include <unistd.h>

namespace blobcache {

void assert_failed(const char* expression, const char* file, int line) {
  char text[512];
  const int length =
      std::snprintf(text, sizeof text, "blobcache: assertion failed: %s (%s:%d)\n", expression, file, line);
  if (length > 0) {
    const size_t bytes = static_cast<size_t>(length) < sizeof text ? static_cast<size_t>(length) : sizeof text - 1;
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, bytes);
  }
  std::abort();
}

}  // namespace blobcache
