// libfuse3 does what needs privilege and cunning (mount(2) as root, fusermount3 otherwise); it is never asked to read a
// request. Its messages are caught so that the user gets one sentence.
#include "fuse/session.h"

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <fstream>
#include <vector>

#define FUSE_USE_VERSION 312
#include <fcntl.h>
#include <fmt/format.h>
#include <fuse_lowlevel.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/features.h"
#include "base/limits.h"
#include "fuse/abi.h"
#include "fuse/mountinfo.h"
#include "ring/errno.h"

extern char** environ;

namespace blobcache::fuse {
namespace {

std::string last_libfuse_message;

void catch_libfuse_message(fuse_log_level, const char* format, va_list arguments) {
  char text[512];
  std::vsnprintf(text, sizeof text, format, arguments);
  last_libfuse_message = text;
  while (!last_libfuse_message.empty() && last_libfuse_message.back() == '\n') last_libfuse_message.pop_back();
}

// libfuse splits options at commas; a backslash keeps one.
std::string escape_option(const std::string& value) {
  std::string escaped;
  for (const char c : value) {
    if (c == ',' || c == '\\') escaped.push_back('\\');
    escaped.push_back(c);
  }
  return escaped;
}

std::string mount_options(const SessionOptions& options) {
  std::string text = "ro,nosuid,nodev,default_permissions,subtype=blobcache,fsname=" + escape_option(options.source);
  if (options.allow_other) text += ",allow_other";
  return text;
}

}  // namespace

uint32_t kernel_max_request_bytes() {
  std::ifstream file("/proc/sys/fs/fuse/max_pages_limit");
  uint32_t pages = 0;
  // Before Linux 6.13 the limit was not settable.
  if (!(file >> pages)) pages = 256;
  return static_cast<uint32_t>(std::min<uint64_t>(uint64_t{pages} * limits::page_bytes, limits::request_bytes_max));
}

bool uring_fuse_enabled() {
  if (pretended_absent(Feature::uring_fuse)) return false;
  std::ifstream file("/sys/module/fuse/parameters/enable_uring");
  char value = 'N';
  return (file >> value) && (value == 'Y' || value == '1');
}

Session::~Session() { close_device(); }

Result<void> Session::mount(const SessionOptions& options, std::string* message_out) {
  BC_ASSERT(session_ == nullptr);
  options_ = options;
  fuse_set_log_func(&catch_libfuse_message);
  last_libfuse_message.clear();

  fuse_args arguments = FUSE_ARGS_INIT(0, nullptr);
  const std::string option_text = mount_options(options_);
  BC_ASSERT(fuse_opt_add_arg(&arguments, "blobcache") == 0 && fuse_opt_add_arg(&arguments, "-o") == 0 &&
            fuse_opt_add_arg(&arguments, option_text.c_str()) == 0);
  const fuse_lowlevel_ops no_operations{};
  session_ = fuse_session_new(&arguments, &no_operations, sizeof no_operations, nullptr);
  fuse_opt_free_args(&arguments);
  if (session_ == nullptr) {
    *message_out = fmt::format("cannot prepare the mount of {}: {}", options_.mountpoint, last_libfuse_message);
    return fail(Code::invalid);
  }
  if (fuse_session_mount(session_, options_.mountpoint.c_str()) != 0) {
    const int os_errno = errno;
    *message_out =
        fmt::format("cannot mount on {}: {}; choose an empty directory that this user owns, or mount as root",
                    options_.mountpoint, last_libfuse_message.empty() ? std::strerror(os_errno) : last_libfuse_message);
    fuse_session_destroy(session_);
    session_ = nullptr;
    return fail(Code::denied, os_errno);
  }
  fd_ = fuse_session_fd(session_);
  return {};
}

Result<void> Session::negotiate(std::string* message_out) {
  std::vector<std::byte> buffer(limits::request_bytes_min + limits::page_bytes);
  ssize_t bytes = 0;
  do {
    bytes = read(fd_, buffer.data(), buffer.size());
  } while (bytes < 0 && errno == EINTR);
  const auto& header = *reinterpret_cast<const fuse_in_header*>(buffer.data());
  const auto& in = *reinterpret_cast<const fuse_init_in*>(buffer.data() + sizeof header);
  if (bytes < static_cast<ssize_t>(sizeof header + 16) || header.opcode != FUSE_INIT || in.major != 7 ||
      in.minor < 31) {
    *message_out = "the kernel's FUSE is older than 7.31 (Linux 5.4); blobcache needs Linux 6.1";
    return fail(Code::protocol);
  }
  const uint64_t offered = in.flags | ((in.flags & FUSE_INIT_EXT) != 0 ? uint64_t{in.flags2} << 32 : 0);
  uint64_t wanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_PARALLEL_DIROPS | FUSE_DO_READDIRPLUS |
                    FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_INIT_EXT |
                    abi::init_direct_io_allow_mmap | abi::init_no_export_support;
  if (options_.want_uring) {
    wanted |= abi::init_over_io_uring;
  } else {
    wanted |= abi::init_has_resend;
  }
  if (options_.want_passthrough) wanted |= abi::init_passthrough;
  const uint64_t taken = wanted & offered;

  facts_.minor = std::min<uint32_t>(in.minor, abi::minor_version);
  facts_.uring = (taken & abi::init_over_io_uring) != 0;
  facts_.passthrough = (taken & abi::init_passthrough) != 0;
  facts_.resend = (taken & abi::init_has_resend) != 0;
  facts_.max_request = std::min(options_.max_request, kernel_max_request_bytes());

  struct {
    fuse_out_header header;
    abi::InitOut init;
  } reply{};
  reply.header = {.len = sizeof reply, .error = 0, .unique = header.unique};
  reply.init.major = 7;
  reply.init.minor = facts_.minor;
  // The kernel takes the smaller of this and its own 128 KiB; larger windows are set on the bdi.
  reply.init.max_readahead = in.max_readahead;
  reply.init.flags = static_cast<uint32_t>(taken);
  reply.init.flags2 = static_cast<uint32_t>(taken >> 32);
  reply.init.max_background = static_cast<uint16_t>(std::min<uint32_t>(options_.max_background, 65535));
  reply.init.congestion_threshold = static_cast<uint16_t>(reply.init.max_background / 4 * 3);
  // Nothing is ever written, and reads from /dev/fuse must offer max_write: the least the kernel takes.
  reply.init.max_write = limits::page_bytes;
  reply.init.time_gran = 1;
  reply.init.max_pages = static_cast<uint16_t>(facts_.max_request / limits::page_bytes);
  reply.init.max_stack_depth = facts_.passthrough ? 1 : 0;
  if (write(fd_, &reply, sizeof reply) != static_cast<ssize_t>(sizeof reply)) {
    const int os_errno = errno;
    *message_out = fmt::format("the kernel refused our INIT: {}", std::strerror(os_errno));
    return fail(Code::protocol, os_errno);
  }
  const int flags = fcntl(fd_, F_GETFL);
  if (fcntl(fd_, F_SETFL, flags | O_NONBLOCK) != 0) return std::unexpected(error_from_errno(errno));
  if (const Result<std::vector<MountEntry>> mounts = read_mountinfo(); mounts) {
    if (const MountEntry* mount = find_mount(*mounts, options_.mountpoint); mount != nullptr) {
      facts_.device_minor = mount->minor;
    }
  }
  return {};
}

void Session::detach() {
  if (umount2(options_.mountpoint.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0 || geteuid() == 0) return;
  const char* arguments[] = {"fusermount3", "-u", "-z", "-q", "--", options_.mountpoint.c_str(), nullptr};
  pid_t child = 0;
  if (posix_spawnp(&child, arguments[0], nullptr, nullptr, const_cast<char**>(arguments), environ) != 0) return;
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
}

// The session itself is kept until the process ends: libfuse 3.14 gives back the name of the mount point only while it
// unmounts by that name, where somebody else may have mounted by now.
void Session::close_device() {
  if (session_ == nullptr) return;
  if (ended_count_ < address_space::volumes_max) ended_[ended_count_++] = session_;
  close(fd_);
  session_ = nullptr;
  fd_ = -1;
}

}  // namespace blobcache::fuse
