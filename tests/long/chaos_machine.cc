// open() and fstat() of this program: definitions here come before those of the C library for all that is linked into it.
#include "long/chaos_machine.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace blobcache::chaos {

std::vector<HeldTimes> held_times;

namespace {

uint64_t boot_pretended = 0;

int open_boot_id() {
  char text[64];
  const int length = std::snprintf(text, sizeof text, "%08x-0000-4000-8000-%012llx\n",
                                   0xb0070000u + static_cast<unsigned>(boot_pretended),
                                   static_cast<unsigned long long>(boot_pretended));
  const int fd = memfd_create("boot_id", MFD_CLOEXEC);
  if (fd >= 0 && (write(fd, text, static_cast<size_t>(length)) != length || lseek(fd, 0, SEEK_SET) != 0)) {
    close(fd);
    return -1;
  }
  return fd;
}

}  // namespace

void pretend_boot(uint64_t boot) { boot_pretended = boot; }

bool real_status(int fd, struct stat* out) { return fstatat(fd, "", out, AT_EMPTY_PATH) == 0; }

}  // namespace blobcache::chaos

extern "C" {

int open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & (O_CREAT | __O_TMPFILE)) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, mode_t);
    va_end(arguments);
  }
  if (blobcache::chaos::boot_pretended != 0 && std::strcmp(path, "/proc/sys/kernel/random/boot_id") == 0)
    return blobcache::chaos::open_boot_id();
  return openat(AT_FDCWD, path, flags, mode);
}

int fstat(int fd, struct stat* out) noexcept {
  if (!blobcache::chaos::real_status(fd, out)) return -1;
  for (const blobcache::chaos::HeldTimes& held : blobcache::chaos::held_times) {
    if (held.inode != out->st_ino || !blobcache::chaos::same_time(held.real_ctime, out->st_ctim)) continue;
    out->st_mtim = held.mtime;
    out->st_ctim = held.ctime;
  }
  return 0;
}

}  // extern "C"
