#include "cache/blob_file.h"

#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ring/errno.h"

namespace blobcache {

FileFd::~FileFd() {
  if (fd_ >= 0) ::close(fd_);
}

int open_direct(int folder_fd, const char* name, int flags) {
  const int wanted = flags | O_CLOEXEC | O_NOFOLLOW;
  const int fd = openat(folder_fd, name, wanted | O_DIRECT, 0600);
  if (fd >= 0 || errno != EINVAL) return fd;
  return openat(folder_fd, name, wanted & ~O_EXCL, 0600);  // some filesystems create the file before they refuse
}

Result<void> read_exactly(int fd, std::span<std::byte> to, uint64_t offset) {
  while (!to.empty()) {
    const ssize_t count = pread(fd, to.data(), to.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return std::unexpected(error_from_errno(errno));
    if (count == 0) return fail(Code::io);
    to = to.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return {};
}

Result<CurrentSeal> read_seal(int fd, const BlobId& id) {
  struct stat status;
  if (fstat(fd, &status) != 0) return std::unexpected(error_from_errno(errno));
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size < blob_format::seals_bytes || size % limits::page_bytes != 0) return fail(Code::corrupt);
  PageBuffer pages(blob_format::seals_bytes);
  const Result<void> read = read_exactly(fd, pages.bytes(), size - blob_format::seals_bytes);
  if (!read) return std::unexpected(read.error());
  CurrentSeal current;
  bool found = false;
  for (unsigned slot = 0; slot < blob_format::seals; ++slot) {
    blob_format::Seal seal;
    std::memcpy(&seal, pages.data() + slot * sizeof seal, sizeof seal);
    if (!check(seal, id, slot) || blob_format::file_bytes(seal.bytes) != size) continue;
    if (found && seal.generation < current.seal.generation) continue;
    current = {.seal = seal, .slot = slot};
    found = true;
  }
  if (!found) return fail(Code::corrupt);
  return current;
}

}  // namespace blobcache
