// Where the regions that outlive the process lie: at fixed addresses, because the kernel remembers the addresses of the
// FUSE entries across a restart, and a successor must map them where they were.
//   Chosen    far from where the loader, the heap and mmap put things on x86-64 and arm64 with 47-bit addresses.
//             ThreadSanitizer allows no application memory there: its builds use the low range it leaves free.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/limits.h"

namespace blobcache::fuse::address_space {

#if defined(__SANITIZE_THREAD__)
inline constexpr uintptr_t base = 0x10'0000'0000;
inline constexpr unsigned volumes_max = 4;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
inline constexpr uintptr_t base = 0x10'0000'0000;
inline constexpr unsigned volumes_max = 4;
#else
inline constexpr uintptr_t base = 0x6800'0000'0000;
inline constexpr unsigned volumes_max = 64;
#endif
#else
inline constexpr uintptr_t base = 0x6800'0000'0000;
inline constexpr unsigned volumes_max = 64;
#endif

inline constexpr size_t entries_stride = 16 * limits::GiB;
inline constexpr size_t inode_records_stride = 16 * limits::GiB;
inline constexpr size_t inode_keys_stride = 16 * limits::GiB;
inline constexpr size_t volume_stride = entries_stride + inode_records_stride + inode_keys_stride;

inline void* entries(unsigned volume) { return reinterpret_cast<void*>(base + volume * volume_stride); }
inline void* inode_records(unsigned volume) {
  return reinterpret_cast<void*>(base + volume * volume_stride + entries_stride);
}
inline void* inode_keys(unsigned volume) {
  return reinterpret_cast<void*>(base + volume * volume_stride + entries_stride + inode_records_stride);
}

}  // namespace blobcache::fuse::address_space
