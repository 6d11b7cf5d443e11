// What a directory origin does on its helper threads, since no opcode exists for it: getdents, readlink, statfs.
//
// A listing is one getdents64 a call, into 32 KiB at most, so that a call ends soon however large the directory; the
// kernel's d_off after each name is the cookie to go on from, and any cookie works with any open descriptor of that
// directory for as long as the directory lives.
//
// There is no pread of a directory: lseek, then getdents64, on a position that all users of the descriptor share. A lock
// keeps the two together (one of a few, picked by descriptor, since descriptors are many and calls at a time few). Tried
// in thought and left: opening "." anew for each call needs search permission on a directory that may only be readable,
// and throws away what NFS and ext4 keep with the descriptor.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/limits.h"
#include "origin/posix_origin.h"
#include "ring/errno.h"

namespace blobcache {
namespace {

// linux_dirent64: d_ino, d_off, d_reclen, d_type, then the name, padded to 8 bytes.
constexpr size_t record_bytes_max = 280;
constexpr size_t record_bytes_typical = 32;
constexpr size_t names_bytes_max = 32 * limits::KiB;

// A buffer much larger than entries_max needs would read names only to throw them away and seek back.
size_t names_bytes_for(uint32_t entries_max) {
  return std::clamp(size_t{entries_max} * record_bytes_typical, record_bytes_max, names_bytes_max);
}

bool is_dot_or_dotdot(const std::string& name) { return name == "." || name == ".."; }

PosixOrigin& origin_of(OriginCall& call) { return static_cast<PosixOrigin&>(*call.origin); }

OriginCall& origin_call_of(BlockingCall& call) { return *static_cast<OriginCall::Blocking&>(call).call; }

void keep_outcome(OriginCall& call, const Result<void>& outcome) {
  call.failed = !outcome.has_value();
  if (call.failed) call.error = outcome.error();
}

}  // namespace

void PosixOrigin::begin_blocking(OriginCall& call, void (*run)(BlockingCall& call)) {
  call.blocking.call = &call;
  call.blocking.run = run;
  call.blocking.handler = &on_blocking_done;
  if (const Result<void> begun = blocking_.begin(*call.home, call.blocking); !begun) call.finish_failed(begun.error());
}

void PosixOrigin::on_blocking_done(Op& op, int32_t, uint32_t) { static_cast<OriginCall::Blocking&>(op).call->finish(); }

void PosixOrigin::begin_list(Reactor& home, ListCall& call) {
  BC_ASSERT(call.fd >= 0 && call.entries_max > 0);
  call.entries.clear();
  if (begin_call(home, call, "")) begin_blocking(call, &run_list);
}

void PosixOrigin::begin_readlink(Reactor& home, ReadlinkCall& call) {
  call.target.clear();
  if (begin_call(home, call, call.key)) begin_blocking(call, &run_readlink);
}

void PosixOrigin::begin_statfs(Reactor& home, StatfsCall& call) {
  if (begin_call(home, call, "")) begin_blocking(call, &run_statfs);
}

void PosixOrigin::run_list(BlockingCall& blocking) {
  auto& call = static_cast<ListCall&>(origin_call_of(blocking));
  keep_outcome(call, origin_of(call).list(call));
}

void PosixOrigin::run_readlink(BlockingCall& blocking) {
  auto& call = static_cast<ReadlinkCall&>(origin_call_of(blocking));
  keep_outcome(call, origin_of(call).readlink(call));
}

void PosixOrigin::run_statfs(BlockingCall& blocking) {
  auto& call = static_cast<StatfsCall&>(origin_call_of(blocking));
  keep_outcome(call, origin_of(call).statfs(call));
}

Result<size_t> PosixOrigin::read_names(int fd, uint64_t offset, std::span<char> names) {
  const std::lock_guard lock(list_locks_[static_cast<unsigned>(fd) % list_locks_count]);
  const auto position = static_cast<off_t>(offset);
  if (::lseek(fd, 0, SEEK_CUR) != position && ::lseek(fd, position, SEEK_SET) < 0) {
    return std::unexpected(error_from_errno(errno));
  }
  const long bytes = ::syscall(SYS_getdents64, fd, names.data(), names.size());
  if (bytes >= 0) return static_cast<size_t>(bytes);
  // A directory that was removed while open has no names any more.
  if (errno == ENOENT) return size_t{0};
  return std::unexpected(error_from_errno(errno));
}

Result<void> PosixOrigin::list(ListCall& call) {
  struct statx directory;
  if (::statx(call.fd, "", AT_EMPTY_PATH, STATX_TYPE, &directory) != 0) return std::unexpected(error_from_errno(errno));
  alignas(dirent64) char names[names_bytes_max];
  const Result<size_t> read = read_names(call.fd, call.offset, {names, names_bytes_for(call.entries_max)});
  if (!read) return std::unexpected(read.error());

  size_t at = 0;
  while (at < *read && call.entries.size() < call.entries_max) {
    const auto* record = reinterpret_cast<const dirent64*>(names + at);
    at += record->d_reclen;
    DirectoryEntry& entry = call.entries.emplace_back();
    entry.name = record->d_name;
    entry.ino = shown_ino(device_of(directory), record->d_ino, root_.dev);
    entry.type = record->d_type;
    entry.next_offset = static_cast<uint64_t>(record->d_off);
    // ".." of the root lies outside of it.
    if (!call.with_info || is_dot_or_dotdot(entry.name)) continue;
    struct statx stat;
    const int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
    // It may have vanished since its name was read, or be on a file server that is gone: the name alone is still right.
    if (::statx(call.fd, entry.name.c_str(), flags, posix_statx_mask, &stat) != 0) continue;
    entry.has_info = true;
    entry.info = posix_info(stat, info_options());
    entry.ino = entry.info.attributes.ino;
  }
  return {};
}

Result<void> PosixOrigin::readlink(ReadlinkCall& call) const {
  open_how how{.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .mode = 0, .resolve = posix_resolve};
  const long fd = ::syscall(SYS_openat2, root_.fd, posix_path(call.key), &how, sizeof how);
  if (fd < 0) return std::unexpected(error_from_errno(errno));
  // One byte more than the longest target, so that a cut one would show.
  char target[limits::path_bytes_max + 1];
  const ssize_t bytes = ::readlinkat(static_cast<int>(fd), "", target, sizeof target);
  const int os_errno = errno;
  ::close(static_cast<int>(fd));
  // readlinkat(2): ENOENT is what an empty path gets when the descriptor is not a symlink's.
  if (bytes < 0) return std::unexpected(error_from_errno(os_errno == ENOENT ? EINVAL : os_errno));
  if (static_cast<size_t>(bytes) == sizeof target) return fail(Code::invalid, ENAMETOOLONG);
  call.target.assign(target, static_cast<size_t>(bytes));
  return {};
}

Result<void> PosixOrigin::statfs(StatfsCall& call) const {
  struct statfs found;
  if (::fstatfs(root_.fd, &found) != 0) return std::unexpected(error_from_errno(errno));
  // Blocks are counted in f_frsize where the filesystem has one.
  call.block_bytes = static_cast<uint32_t>(found.f_frsize > 0 ? found.f_frsize : found.f_bsize);
  call.blocks = found.f_blocks;
  call.blocks_free = found.f_bfree;
  call.blocks_available = found.f_bavail;
  call.files = found.f_files;
  call.files_free = found.f_ffree;
  call.name_bytes_max = static_cast<uint32_t>(found.f_namelen);
  return {};
}

}  // namespace blobcache
