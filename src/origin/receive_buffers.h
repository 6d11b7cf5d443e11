// ReceiveBuffers: the memory that libcurl receives into, one piece for each transfer.
//   Owner     the process, from set_up_libcurl on
//   Thread    any
//   Limits    count_max at a time; memory is taken when it is first used, and kept: as much as transfers ran at a time
// libcurl takes its buffer when a transfer begins and frees it when that ends. glibc would give so large a piece back to the
// kernel, and each transfer would find pages that have to be cleared again: 2 to 4 faults for a block of 64 KiB, and a third
// of the processor time of cold random reads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/limits.h"
#include "base/memory.h"
#include "base/result.h"
#include "base/spinlock.h"

namespace blobcache {

// As it is given to libcurl, which adds a byte.
inline constexpr size_t http_receive_buffer_bytes = 256 * limits::KiB;

class ReceiveBuffers {
 public:
  static constexpr unsigned count_max = 1024;
  static constexpr size_t bytes = http_receive_buffer_bytes + limits::page_bytes;

  // Errors: again (no address space).
  Result<void> reserve() { return memory_.reserve(count_max * bytes); }
  // One of `bytes` bytes, that which was given back last; null: all are in use.
  void* try_take();
  bool owns(const void* memory) const;
  void give_back(void* buffer);
  // The most that were out at a time.
  unsigned taken_at_most() const;

 private:
  LazyMemory memory_;
  mutable Spinlock lock_;
  unsigned count_ = 0;  // of those ever taken
  unsigned free_count_ = 0;
  std::array<uint16_t, count_max> free_;
};

// Once in the process, before libcurl is used.
void set_up_libcurl();
// libcurl's.
const ReceiveBuffers& receive_buffers();

}  // namespace blobcache
