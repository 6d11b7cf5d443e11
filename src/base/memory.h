// Memory: the arena and shared regions, taken at start and populated, so that no first touch happens under a reader.
//   Thread    allocation on the main thread, which has helpers meanwhile; the memory on any
//   Lifetime  until free() or destruction; nothing is given back in between
//   Cost      measured here: 4 KiB pages 2.8 s/GiB to populate, 2 MiB pages 0.1 s/GiB; as registered buffers 6 MiB of
//             kernel memory per GiB and ring against about none
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/result.h"

namespace blobcache {

// Anonymous memory, 2 MiB-aligned, on huge pages where the system gives them.
class Arena {
 public:
  Arena() = default;
  ~Arena() { free(); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // bytes is rounded up to 2 MiB. Errors: again (no memory).
  Result<void> allocate(size_t bytes);
  void free();
  std::span<std::byte> bytes() const { return {data_, size_}; }
  bool on_huge_pages() const { return on_huge_pages_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  bool on_huge_pages_ = false;
};

// Zero pages that are taken when they are first touched: tables that grow. On huge pages when it is worth one.
class LazyMemory {
 public:
  LazyMemory() = default;
  ~LazyMemory() { free(); }
  LazyMemory(const LazyMemory&) = delete;
  LazyMemory& operator=(const LazyMemory&) = delete;

  // Errors: again (no address space).
  Result<void> reserve(size_t bytes);
  void free();
  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;  // 2 MiB-aligned
  std::byte* mapping_ = nullptr;
  size_t mapped_bytes_ = 0;
};

// A memfd mapped shared at a fixed address: what must outlive the process (FUSE entries, inode table).
class SharedRegion {
 public:
  SharedRegion() = default;
  ~SharedRegion() { free(); }
  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;

  struct Options {
    const char* name = "";
    void* address = nullptr;   // where it must lie
    size_t reserve_bytes = 0;  // address space it may grow into
    size_t bytes = 0;          // from the start
    bool populate = true;
  };
  Result<void> create(const Options& options);
  // Makes the first `bytes` usable. Errors: full (beyond reserve_bytes), again (no memory).
  Result<void> grow(size_t bytes);
  void free();
  int fd() const { return fd_; }
  std::span<std::byte> bytes() const { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t reserved_ = 0;
  int fd_ = -1;
  bool populate_ = false;
};

// The memory this process may use: the smallest limit of its cgroups (v2 or v1), or the machine's.
size_t memory_available_bytes();

}  // namespace blobcache
