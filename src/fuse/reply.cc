#include "fuse/reply.h"

#include <cerrno>

#include <sys/stat.h>

namespace blobcache::fuse {

int errno_of(const Error& error) {
  switch (error.os_errno) {
    case ENOENT:
    case ENOTDIR:
    case EACCES:
    case EPERM:
    case ENAMETOOLONG:
    case ELOOP:
    case EMFILE:
    case ENFILE:
    case ENOMEM: return error.os_errno;
    default: break;
  }
  switch (error.code) {
    case Code::not_found: return ENOENT;
    case Code::again: return EAGAIN;
    case Code::canceled: return EINTR;
    case Code::stale: return ESTALE;
    case Code::denied: return EACCES;
    case Code::full: return ENOSPC;
    case Code::invalid: return EINVAL;
    case Code::timeout:
    case Code::io:
    case Code::corrupt:
    case Code::peer_down:
    case Code::protocol:
    case Code::stopping: return EIO;
  }
  return EIO;
}

Timeout timeout_of_ns(uint64_t ns) {
  return Timeout{.seconds = ns / 1'000'000'000, .nanoseconds = static_cast<uint32_t>(ns % 1'000'000'000)};
}

void fill_attributes(const FileAttributes& from, fuse_attr& to) {
  to.ino = from.ino;
  to.size = from.size;
  to.blocks = from.blocks;
  to.atime = static_cast<uint64_t>(from.atime.seconds);
  to.mtime = static_cast<uint64_t>(from.mtime.seconds);
  to.ctime = static_cast<uint64_t>(from.ctime.seconds);
  to.atimensec = from.atime.nanoseconds;
  to.mtimensec = from.mtime.nanoseconds;
  to.ctimensec = from.ctime.nanoseconds;
  to.mode = from.mode;
  to.nlink = from.nlink;
  to.uid = from.uid;
  to.gid = from.gid;
  to.rdev = from.rdev;
  to.blksize = from.block_size;
}

namespace {

abi::StatxTime statx_time(const TimePoint& time) {
  return abi::StatxTime{.seconds = time.seconds, .nanoseconds = time.nanoseconds, .reserved = 0};
}

}  // namespace

void fill_statx(const FileAttributes& from, abi::Statx& to) {
  to.mask = STATX_BASIC_STATS;
  if (from.btime != TimePoint{}) to.mask |= STATX_BTIME;
  to.blksize = from.block_size;
  to.nlink = from.nlink;
  to.uid = from.uid;
  to.gid = from.gid;
  to.mode = static_cast<uint16_t>(from.mode);
  to.ino = from.ino;
  to.size = from.size;
  to.blocks = from.blocks;
  to.atime = statx_time(from.atime);
  to.btime = statx_time(from.btime);
  to.ctime = statx_time(from.ctime);
  to.mtime = statx_time(from.mtime);
  to.rdev_major = (from.rdev >> 8) & 0xfff;
  to.rdev_minor = (from.rdev & 0xff) | ((from.rdev >> 12) & 0xfff00);
}

}  // namespace blobcache::fuse
