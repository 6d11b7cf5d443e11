// From statx to what the rest of the program knows of a file. No system call but the clock.
//
// The version is (dev, ino, size, mtime, ctime). ctime is in it because it is the one time that a program cannot set:
// whoever writes into a file and puts its mtime back (rsync --inplace --times, cp --preserve) still moves the ctime. The
// price: chmod, link and rename move it as well, and the file then counts as a new version with the same bytes.
//
// The kernel's st_dev of NFS, btrfs, overlay and device-mapper is given out at mount time, so on those a version does
// not survive a restart of the machine: what was cached is then read again, never taken for something else.
#include "origin/posix_info.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>

#include <endian.h>
#include <sys/sysmacros.h>

namespace blobcache {
namespace {

struct VersionFields {
  uint64_t dev = 0;
  uint64_t ino = 0;
  uint64_t size = 0;
  TimePoint mtime;
  TimePoint ctime;
  friend bool operator==(const VersionFields&, const VersionFields&) = default;
};
constexpr uint8_t version_bytes = 48;

TimePoint time_of(const struct statx_timestamp& stamp) { return {stamp.tv_sec, stamp.tv_nsec}; }

VersionFields fields_of(const struct statx& stat) {
  return {device_of(stat), stat.stx_ino, stat.stx_size, time_of(stat.stx_mtime), time_of(stat.stx_ctime)};
}

void put_u64(char*& to, uint64_t value) {
  value = htole64(value);
  std::memcpy(to, &value, sizeof value);
  to += sizeof value;
}
void put_u32(char*& to, uint32_t value) {
  value = htole32(value);
  std::memcpy(to, &value, sizeof value);
  to += sizeof value;
}
uint64_t take_u64(const char*& from) {
  uint64_t value = 0;
  std::memcpy(&value, from, sizeof value);
  from += sizeof value;
  return le64toh(value);
}
uint32_t take_u32(const char*& from) {
  uint32_t value = 0;
  std::memcpy(&value, from, sizeof value);
  from += sizeof value;
  return le32toh(value);
}

// False when the version is not one of ours.
bool unpack(const FileVersion& version, VersionFields* fields_out) {
  if (version.length != version_bytes) return false;
  const char* from = version.bytes;
  fields_out->dev = take_u64(from);
  fields_out->ino = take_u64(from);
  fields_out->size = take_u64(from);
  fields_out->mtime.seconds = static_cast<int64_t>(take_u64(from));
  fields_out->mtime.nanoseconds = take_u32(from);
  fields_out->ctime.seconds = static_cast<int64_t>(take_u64(from));
  fields_out->ctime.nanoseconds = take_u32(from);
  return true;
}

TimePoint minus(TimePoint time, uint64_t ns) {
  constexpr uint64_t ns_per_s = 1'000'000'000;
  TimePoint earlier{time.seconds - static_cast<int64_t>(ns / ns_per_s), time.nanoseconds};
  const auto rest_ns = static_cast<uint32_t>(ns % ns_per_s);
  if (earlier.nanoseconds < rest_ns) {
    --earlier.seconds;
    earlier.nanoseconds += static_cast<uint32_t>(ns_per_s);
  }
  earlier.nanoseconds -= rest_ns;
  return earlier;
}

}  // namespace

Result<void> check_posix_key(std::string_view key) {
  if (key.empty()) return {};
  if (key.size() >= PATH_MAX) return fail(Code::invalid, ENAMETOOLONG);
  if (key.find('\0') != std::string_view::npos) return fail(Code::invalid, EINVAL);
  size_t begin = 0;
  while (begin <= key.size()) {
    const size_t end = std::min(key.find('/', begin), key.size());
    const std::string_view part = key.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return fail(Code::invalid, EINVAL);
    begin = end + 1;
  }
  return {};
}

uint64_t device_of(const struct statx& stat) { return makedev(stat.stx_dev_major, stat.stx_dev_minor); }

uint64_t device_of(const FileVersion& version) {
  VersionFields fields;
  return unpack(version, &fields) ? fields.dev : 0;
}

uint64_t shown_ino(uint64_t dev, uint64_t ino, uint64_t root_dev) {
  if (dev == root_dev) return ino;
  // The finalizer of splitmix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
  uint64_t mixed = ino + dev * 0x9e3779b97f4a7c15ull;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ull;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebull;
  return (mixed ^ (mixed >> 31)) | (uint64_t{1} << 63);
}

FileVersion posix_version(const struct statx& stat) {
  const VersionFields fields = fields_of(stat);
  FileVersion version;
  static_assert(version_bytes <= sizeof version.bytes);
  char* to = version.bytes;
  put_u64(to, fields.dev);
  put_u64(to, fields.ino);
  put_u64(to, fields.size);
  put_u64(to, static_cast<uint64_t>(fields.mtime.seconds));
  put_u32(to, fields.mtime.nanoseconds);
  put_u64(to, static_cast<uint64_t>(fields.ctime.seconds));
  put_u32(to, fields.ctime.nanoseconds);
  version.length = version_bytes;
  return version;
}

bool is_version_of(const FileVersion& version, const struct statx& stat) {
  VersionFields expected;
  if (!unpack(version, &expected)) return false;
  const VersionFields found = fields_of(stat);
  if (stat.stx_nlink == 0) expected.ctime = found.ctime;
  return expected == found;
}

TimePoint realtime_now() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return {now.tv_sec, static_cast<uint32_t>(now.tv_nsec)};
}

bool is_young(const FileVersion& version, AgeLimit limit) {
  VersionFields fields;
  if (!unpack(version, &fields)) return true;
  return std::max(fields.mtime, fields.ctime) > minus(limit.now, limit.young_ns);
}

FileInfo posix_info(const struct statx& stat, InfoOptions options) {
  FileInfo info;
  FileAttributes& shown = info.attributes;
  shown.ino = shown_ino(device_of(stat), stat.stx_ino, options.root_dev);
  shown.size = stat.stx_size;
  shown.blocks = stat.stx_blocks;
  shown.mode = stat.stx_mode;
  shown.nlink = stat.stx_nlink;
  shown.uid = stat.stx_uid;
  shown.gid = stat.stx_gid;
  shown.rdev = (stat.stx_rdev_minor & 0xff) | (stat.stx_rdev_major << 8) | ((stat.stx_rdev_minor & ~0xffu) << 12);
  shown.block_size = stat.stx_blksize;
  shown.atime = time_of(stat.stx_atime);
  shown.mtime = time_of(stat.stx_mtime);
  shown.ctime = time_of(stat.stx_ctime);
  if ((stat.stx_mask & STATX_BTIME) != 0) shown.btime = time_of(stat.stx_btime);
  info.version = posix_version(stat);
  info.young = is_young(info.version, {.young_ns = options.young_ns, .now = realtime_now()});
  info.key_in_identity = !S_ISREG(stat.stx_mode);
  return info;
}

}  // namespace blobcache
