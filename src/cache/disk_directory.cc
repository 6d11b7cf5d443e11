// Opening a cache directory. A directory is ours when its FORMAT says so; one without FORMAT is made ours only when it is
// empty (a fresh ext4 has lost+found). FORMAT comes into being complete, by renaming a file written before, so a process
// that dies in between leaves an empty directory or a whole one; the folders are made after it, each time they lack.
//
// Not a lock file with a pid: those outlive their owners. Not F_SETLK: it is lost when any descriptor of the file closes.
#include "cache/disk_directory.h"

#include <cerrno>
#include <cstdlib>
#include <memory>

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/assert.h"

namespace blobcache {
namespace {

constexpr const char* format_name = "FORMAT";
constexpr const char* new_format_name = "FORMAT.new";
constexpr long overlayfs_magic = 0x794c7630;  // linux/magic.h
constexpr long ecryptfs_magic = 0xf15f;

std::unexpected<Error> refuse(Code code, std::string* message_out, std::string message, int os_errno = 0) {
  *message_out = std::move(message);
  return fail(code, os_errno);
}

std::unexpected<Error> refuse_errno(std::string* message_out, const std::string& path, std::string_view what) {
  const int error = errno;
  if (error == EROFS) {
    return refuse(
        Code::io, message_out,
        fmt::format("cache directory {} is on a read-only filesystem: remount it read-write or choose another", path),
        error);
  }
  const std::string reason = strerror(error);
  return refuse(error == EACCES || error == EPERM ? Code::denied : Code::io, message_out,
                fmt::format("cannot {} in cache directory {}: {}; choose another directory or repair this one", what,
                            path, reason),
                error);
}

// Errors: io, not_found.
Result<std::string> read_text(int fd) {
  std::string text(disk_format::format_bytes_max + 1, '\0');
  const ssize_t count = pread(fd, text.data(), text.size(), 0);
  if (count < 0) return fail(Code::io, errno);
  text.resize(static_cast<size_t>(count));
  return text;
}

// 1: nothing in it but what mkfs and an unfinished creation leave; 0: something else; -1: errno.
int is_empty(int root_fd) {
  const int fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -1;
  DIR* folder = fdopendir(fd);
  if (folder == nullptr) {
    ::close(fd);
    return -1;
  }
  int empty = 1;
  while (const dirent* entry = readdir(folder)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != ".." && name != "lost+found" && name != new_format_name) empty = 0;
  }
  closedir(folder);
  return empty;
}

bool write_and_sync(int fd, std::string_view text) {
  return pwrite(fd, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()) && fsync(fd) == 0;
}

// 0: O_DIRECT does not work with this alignment.
bool try_direct(int fd, size_t alignment) {
  const std::unique_ptr<void, decltype(&std::free)> memory(std::aligned_alloc(4096, 8192), &std::free);
  BC_ASSERT(memory != nullptr);
  auto* page = static_cast<char*>(memory.get());
  memset(page, 0x5a, 8192);
  const auto bytes = static_cast<ssize_t>(alignment);
  if (pwrite(fd, page + alignment % 4096, alignment, static_cast<off_t>(alignment)) != bytes) return false;
  memset(page, 0, 8192);
  return pread(fd, page + alignment % 4096, alignment, static_cast<off_t>(alignment)) == bytes &&
         page[alignment % 4096] == 0x5a;
}

}  // namespace

Result<void> DiskDirectory::open(const DiskDirectoryOptions& options, std::string* message_out) {
  BC_ASSERT(root_fd_ < 0 && !options.node.is_null());
  path_ = options.path;
  Result<void> done = open_root(message_out);
  if (done) done = open_format(options.node, message_out);
  if (done) done = open_folders(message_out);
  if (done) done = probe_direct(message_out);
  if (!done) close();
  return done;
}

void DiskDirectory::close() {
  for (int* fd : {&index_fd_, &format_fd_, &root_fd_}) {
    if (*fd >= 0) ::close(*fd);
    *fd = -1;
  }
  created_ = stacked_ = false;
}

Result<void> DiskDirectory::open_root(std::string* message_out) {
  if (mkdir(path_.c_str(), 0700) != 0 && errno != EEXIST) return refuse_errno(message_out, path_, "make a folder");
  root_fd_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (root_fd_ < 0) return refuse_errno(message_out, path_, "open the folder");
  struct statfs filesystem;
  struct stat status;
  if (fstatfs(root_fd_, &filesystem) != 0 || fstat(root_fd_, &status) != 0)
    return refuse_errno(message_out, path_, "look at the folder");
  stacked_ = filesystem.f_type == overlayfs_magic || filesystem.f_type == ecryptfs_magic;
  if (status.st_uid != geteuid()) {
    return refuse(
        Code::denied, message_out,
        fmt::format("cache directory {} belongs to user {}, not to the one blobcache runs as ({}): chown it or "
                    "choose another",
                    path_, status.st_uid, geteuid()));
  }
  return {};
}

Result<void> DiskDirectory::open_format(const disk_format::Uuid& node, std::string* message_out) {
  format_fd_ = openat(root_fd_, format_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (format_fd_ < 0 && errno == ENOENT) {
    const Result<void> created = create_format(node, message_out);
    if (!created) return created;
    format_fd_ = openat(root_fd_, format_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  }
  if (format_fd_ < 0) return refuse_errno(message_out, path_, "open FORMAT");
  if (flock(format_fd_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return refuse_errno(message_out, path_, "lock FORMAT");
    return refuse(
        Code::again, message_out,
        fmt::format("cache directory {} is in use by another process: stop it or choose another directory", path_));
  }
  const Result<std::string> text = read_text(format_fd_);
  if (!text) return refuse_errno(message_out, path_, "read FORMAT");
  const Result<disk_format::FormatFile> format = disk_format::parse_format(*text);
  if (!format) {
    return refuse(
        Code::corrupt, message_out,
        fmt::format("{}/FORMAT is damaged or not blobcache's: choose another directory, or empty this one", path_));
  }
  if (format->version != disk_format::version) {
    return refuse(
        Code::invalid, message_out,
        fmt::format("cache directory {} has format version {}, this program knows version {}: use the program "
                    "that made it, choose another directory, or empty this one",
                    path_, format->version, disk_format::version));
  }
  if (format->node != node) {
    return refuse(
        Code::denied, message_out,
        fmt::format("cache directory {} belongs to another node ({}, this one is {}): choose another directory, "
                    "or empty this one",
                    path_, to_text(format->node), to_text(node)));
  }
  disk_ = format->disk;
  struct stat status;
  if (fstat(root_fd_, &status) != 0) return refuse_errno(message_out, path_, "look at the folder");
  if ((status.st_mode & 077) != 0) {
    return refuse(Code::denied, message_out,
                  fmt::format("cache directory {} is open to other users (mode {:o}), who could read or change what is "
                              "cached: chmod 700 it",
                              path_, status.st_mode & 07777));
  }
  return {};
}

Result<void> DiskDirectory::create_format(const disk_format::Uuid& node, std::string* message_out) {
  // Two processes may be here at once: the one that waited finds the other's FORMAT.
  if (flock(root_fd_, LOCK_EX) != 0) return refuse_errno(message_out, path_, "lock the folder");
  Result<void> done;
  if (faccessat(root_fd_, format_name, F_OK, AT_SYMLINK_NOFOLLOW) != 0) done = create_format_locked(node, message_out);
  flock(root_fd_, LOCK_UN);
  return done;
}

Result<void> DiskDirectory::create_format_locked(const disk_format::Uuid& node, std::string* message_out) {
  const int empty = is_empty(root_fd_);
  if (empty < 0) return refuse_errno(message_out, path_, "list the folder");
  if (empty == 0) {
    return refuse(
        Code::invalid, message_out,
        fmt::format("{} is not a cache directory (no FORMAT) but holds files: choose an empty or a new one", path_));
  }
  disk_format::FormatFile format{.version = disk_format::version, .node = node, .disk = {}};
  while (format.disk.is_null()) {
    if (getrandom(&format.disk, sizeof format.disk, 0) != sizeof format.disk)
      return refuse_errno(message_out, path_, "make a name");
  }
  if (fchmod(root_fd_, 0700) != 0) return refuse_errno(message_out, path_, "set mode 0700");
  if (unlinkat(root_fd_, new_format_name, 0) != 0 && errno != ENOENT)
    return refuse_errno(message_out, path_, "remove FORMAT.new");
  const int fd = openat(root_fd_, new_format_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return refuse_errno(message_out, path_, "create FORMAT");
  const bool written = write_and_sync(fd, disk_format::print(format));
  const int error = errno;
  ::close(fd);
  errno = error;
  if (!written) return refuse_errno(message_out, path_, "write FORMAT");
  if (renameat(root_fd_, new_format_name, root_fd_, format_name) != 0)
    return refuse_errno(message_out, path_, "name FORMAT");
  created_ = true;
  if (fsync(root_fd_) != 0) return refuse_errno(message_out, path_, "sync the folder");
  return {};
}

Result<void> DiskDirectory::open_folders(std::string* message_out) {
  for (const char* name : {"objects", "segments", "index"}) {
    if (mkdirat(root_fd_, name, 0700) != 0 && errno != EEXIST)
      return refuse_errno(message_out, path_, fmt::format("make {}/", name));
  }
  // All 256 every time: a fraction of a millisecond when they are there, and no marker that could lie.
  for (unsigned i = 0; i < disk_format::fan_out; ++i) {
    const std::string name = fmt::format("objects/{:02x}", i);
    if (mkdirat(root_fd_, name.c_str(), 0700) != 0 && errno != EEXIST)
      return refuse_errno(message_out, path_, fmt::format("make {}/", name));
  }
  index_fd_ = openat(root_fd_, "index", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (index_fd_ < 0) return refuse_errno(message_out, path_, "open index/");
  return {};
}

Result<void> DiskDirectory::probe_direct(std::string* message_out) {
  constexpr const char* name = "index/probe";
  const int fd = openat(root_fd_, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_DIRECT, 0600);
  if (fd < 0 && errno != EINVAL) return refuse_errno(message_out, path_, "create a file");
  const std::string no_direct = fmt::format(
      "the filesystem of cache directory {} has no direct I/O (O_DIRECT) in units of 4096 bytes or less: choose "
      "another one",
      path_);
  if (fd < 0) {
    unlinkat(root_fd_, name, 0);  // tmpfs before 6.6 creates the file and then refuses to open it
    return refuse(Code::invalid, message_out, no_direct, EINVAL);
  }
  errno = 0;
  direct_alignment_ = 0;
  for (const uint32_t alignment : {512u, 1024u, 2048u, 4096u}) {
    if (direct_alignment_ == 0 && try_direct(fd, alignment)) direct_alignment_ = alignment;
  }
  const int error = errno;
  ::close(fd);
  unlinkat(root_fd_, name, 0);
  if (direct_alignment_ != 0) return {};
  if (error == ENOSPC || error == EDQUOT || error == EIO || error == EROFS) {
    errno = error;
    return refuse_errno(message_out, path_, "write a page");
  }
  return refuse(Code::invalid, message_out, no_direct, error);
}

Result<disk_format::Uuid> boot_id() {
  const int fd = ::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail(Code::io, errno);
  char text[64];
  const ssize_t count = read(fd, text, sizeof text);
  ::close(fd);
  // "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx\n"; its 32 digits as two words.
  disk_format::Uuid uuid;
  unsigned digits = 0;
  for (ssize_t i = 0; i < count && digits < 32; ++i) {
    if (text[i] == '-') continue;
    const char digit[2] = {text[i], '\0'};
    char* end = nullptr;
    const unsigned long value = strtoul(digit, &end, 16);
    if (end == digit) return fail(Code::io);
    uint64_t& word = uuid.words[digits++ / 16];
    word = word << 4 | value;
  }
  if (digits != 32 || uuid.is_null()) return fail(Code::io);
  return uuid;
}

Result<disk_format::FileStamp> stamp_of_file(int fd, const disk_format::Uuid& boot) {
  struct stat status;
  if (fstat(fd, &status) != 0) return fail(Code::io, errno);
  return disk_format::file_stamp({.boot = boot,
                                  .inode = status.st_ino,
                                  .size = static_cast<uint64_t>(status.st_size),
                                  .mtime_s = status.st_mtim.tv_sec,
                                  .ctime_s = status.st_ctim.tv_sec,
                                  .mtime_ns = static_cast<uint32_t>(status.st_mtim.tv_nsec),
                                  .ctime_ns = static_cast<uint32_t>(status.st_ctim.tv_nsec)});
}

}  // namespace blobcache
