// What the parts of the content store do with a blob's file.
//   Thread    any; may block on the disk
#pragma once

#include <cstdlib>
#include <memory>
#include <span>
#include <utility>

#include "base/assert.h"
#include "cache/blob_format.h"

namespace blobcache {

// Whole pages of memory, for files that are open with O_DIRECT.
class PageBuffer {
 public:
  // bytes: a multiple of a page.
  explicit PageBuffer(size_t bytes)
      : memory_(static_cast<std::byte*>(std::aligned_alloc(limits::page_bytes, bytes))), bytes_(bytes) {
    BC_ASSERT(memory_ != nullptr);
  }
  std::span<std::byte> bytes() { return {memory_.get(), bytes_}; }
  std::byte* data() { return memory_.get(); }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  size_t bytes_;
};

// A descriptor that is closed with it.
class FileFd {
 public:
  explicit FileFd(int fd = -1) : fd_(fd) {}
  ~FileFd();
  FileFd(const FileFd&) = delete;
  FileFd& operator=(const FileFd&) = delete;
  FileFd(FileFd&& other) noexcept : fd_(other.release()) {}
  FileFd& operator=(FileFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// Past the page cache where the filesystem can; -1: errno.
int open_direct(int folder_fd, const char* name, int flags);

// Exactly so many bytes. Errors: io (os_errno 0: the file ends before).
Result<void> read_exactly(int fd, std::span<std::byte> to, uint64_t offset);

struct CurrentSeal {
  blob_format::Seal seal;
  unsigned slot = 0;
};
// The seal that counts, of a file that is open past the page cache or not. Errors: corrupt (none is valid, or the file is not
// as long as it says), io.
Result<CurrentSeal> read_seal(int fd, const BlobId& id);

}  // namespace blobcache
