// The FUSE ABI: linux/fuse.h as the distribution has it (7.38 on Debian 12), and what is newer, under names of our own so
// that a newer header does not clash.
//   Thread    constants and layouts
//   Source    include/uapi/linux/fuse.h of Linux 6.18 (7.45)
#pragma once

#include <cstddef>
#include <cstdint>

#include <linux/fuse.h>
#include <sys/ioctl.h>

namespace blobcache::abi {

// INIT flags above bit 31 travel in flags2.
inline constexpr uint64_t init_direct_io_allow_mmap = 1ull << 36;
inline constexpr uint64_t init_passthrough = 1ull << 37;
inline constexpr uint64_t init_no_export_support = 1ull << 38;
inline constexpr uint64_t init_has_resend = 1ull << 39;
inline constexpr uint64_t init_over_io_uring = 1ull << 41;

inline constexpr uint32_t op_statx = 52;
inline constexpr uint32_t open_noflush = 1u << 5;
inline constexpr uint32_t open_passthrough = 1u << 7;

// struct fuse_open_out of 7.40.
struct OpenOut {
  uint64_t fh;
  uint32_t open_flags;
  int32_t backing_id;
};
static_assert(sizeof(OpenOut) == sizeof(fuse_open_out) && offsetof(OpenOut, backing_id) == 12);

// The minor version that we speak at most.
inline constexpr uint32_t minor_version = 45;

// struct fuse_init_out of 7.40; older kernels read the part that they know.
struct InitOut {
  uint32_t major;
  uint32_t minor;
  uint32_t max_readahead;
  uint32_t flags;
  uint16_t max_background;
  uint16_t congestion_threshold;
  uint32_t max_write;
  uint32_t time_gran;
  uint16_t max_pages;
  uint16_t map_alignment;
  uint32_t flags2;
  uint32_t max_stack_depth;
  uint16_t unused[12];
};
static_assert(sizeof(InitOut) == 64 && offsetof(InitOut, max_stack_depth) == 36);

struct StatxTime {
  int64_t seconds;
  uint32_t nanoseconds;
  int32_t reserved;
};
struct Statx {
  uint32_t mask;
  uint32_t blksize;
  uint64_t attributes;
  uint32_t nlink;
  uint32_t uid;
  uint32_t gid;
  uint16_t mode;
  uint16_t spare0;
  uint64_t ino;
  uint64_t size;
  uint64_t blocks;
  uint64_t attributes_mask;
  StatxTime atime;
  StatxTime btime;
  StatxTime ctime;
  StatxTime mtime;
  uint32_t rdev_major;
  uint32_t rdev_minor;
  uint32_t dev_major;
  uint32_t dev_minor;
  uint64_t spare2[14];
};
static_assert(sizeof(Statx) == 256 && offsetof(Statx, mtime) == 112);
struct StatxIn {
  uint32_t getattr_flags;
  uint32_t reserved;
  uint64_t fh;
  uint32_t sx_flags;
  uint32_t sx_mask;
};
struct StatxOut {
  uint64_t attr_valid;
  uint32_t attr_valid_nsec;
  uint32_t flags;
  uint64_t spare[2];
  Statx stat;
};
static_assert(sizeof(StatxOut) == 288);

// FUSE over io_uring: what a REGISTERed entry's header buffer holds.
struct UringEntryInOut {
  uint64_t flags;
  uint64_t commit_id;
  uint32_t payload_bytes;
  uint32_t padding;
  uint64_t reserved;
};
struct UringHeader {
  char in_out[128];  // fuse_in_header, then over it fuse_out_header
  char op_in[128];   // the operation's own header
  UringEntryInOut entry;
};
static_assert(sizeof(UringHeader) == 288 && offsetof(UringHeader, entry) == 256);
static_assert(offsetof(fuse_in_header, unique) == 8 && offsetof(fuse_out_header, unique) == 8);

inline constexpr uint32_t uring_cmd_register = 1;
inline constexpr uint32_t uring_cmd_commit_and_fetch = 2;
// In the SQE's command area.
struct UringCommand {
  uint64_t flags;
  uint64_t commit_id;
  uint16_t queue;
  uint8_t padding[6];
};
static_assert(sizeof(UringCommand) == 24);

// Passthrough: what FUSE_DEV_IOC_BACKING_OPEN takes, and the two requests (Linux 6.9).
struct BackingMap {
  int32_t fd;
  uint32_t flags;
  uint64_t padding;
};
static_assert(sizeof(BackingMap) == 16);
inline constexpr unsigned long ioctl_backing_open = _IOW(229, 1, BackingMap);
inline constexpr unsigned long ioctl_backing_close = _IOW(229, 2, uint32_t);
static_assert(ioctl_backing_open == 0x4010e501 && ioctl_backing_close == 0x4004e502);

// FUSE_NOTIFY_PRUNE (7.45): this, then `count` node ids.
inline constexpr int32_t notify_prune = 9;
struct NotifyPrune {
  uint32_t count;
  uint32_t padding;
  uint64_t spare;
};
static_assert(sizeof(NotifyPrune) == 16);

// The smallest buffer the kernel lets us read requests with: FUSE_MIN_READ_BUFFER, or header + write header + max_write.
inline constexpr size_t read_buffer_bytes_min = 8192;

}  // namespace blobcache::abi
