#include "cli/disk_probe.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/limits.h"
#include "cli/bounded.h"
#include "cli/cached_file.h"
#include "fuse/mountinfo.h"

namespace blobcache::cli {
namespace {

constexpr int probe_ms = 10'000;
constexpr size_t write_bytes = limits::MiB;
constexpr uint64_t probe_bytes = 256 * limits::MiB;
constexpr uint64_t phase_ns = 400'000'000;

uint64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// Bytes a second of whole writes or reads from the start of the file, until one of the limits; 0 when the first fails.
template <class Step>
uint64_t time_steps(uint64_t bytes_max, uint64_t* bytes_out, Step&& step) {
  const uint64_t start_ns = now_ns();
  uint64_t bytes = 0;
  while (bytes + write_bytes <= bytes_max && now_ns() - start_ns < phase_ns) {
    if (step(static_cast<off_t>(bytes)) != static_cast<ssize_t>(write_bytes)) break;
    bytes += write_bytes;
  }
  *bytes_out = bytes;
  return bytes * 1'000'000'000 / std::max<uint64_t>(1, now_ns() - start_ns);
}

// A file that is gone when it is closed.
int open_probe(const std::string& folder) {
  int fd = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | O_DIRECT, 0600);
  if (fd >= 0 || errno != EOPNOTSUPP) return fd;
  std::string name = folder + "/.blobcache-probe-XXXXXX";
  fd = mkostemp(name.data(), O_CLOEXEC | O_DIRECT);
  if (fd >= 0) unlink(name.c_str());
  return fd;
}

// Numbers, in the order of DiskFacts.
int try_out(const std::string& folder, int output_fd) {
  struct statvfs status{};
  if (statvfs(folder.c_str(), &status) != 0) return errno;
  const uint64_t free_bytes = uint64_t{status.f_bavail} * status.f_frsize;
  const int fd = open_probe(folder);
  // What has no O_DIRECT at all says so while opening.
  if (fd < 0 && errno != EINVAL) return errno;
  const std::unique_ptr<void, decltype(&std::free)> memory(std::aligned_alloc(4096, write_bytes), &std::free);
  if (memory == nullptr) return ENOMEM;
  auto* bytes = static_cast<char*>(memory.get());
  // Bytes that no filesystem compresses away.
  uint64_t state = 0x9e3779b97f4a7c15;
  for (size_t i = 0; i < write_bytes; i += sizeof state) {
    state = state * 6364136223846793005 + 1442695040888963407;
    std::memcpy(bytes + i, &state, sizeof state);
  }
  uint64_t written = 0;
  uint64_t read_back = 0;
  const uint64_t write_rate = fd < 0 ? 0
                                     : time_steps(
                                           std::min(probe_bytes, free_bytes / 2), &written,
                                           [&](off_t at) { return pwrite(fd, bytes, write_bytes, at); });
  const int write_errno = errno;
  if (fd >= 0 && written == 0 && write_errno != EINVAL) return write_errno != 0 ? write_errno : ENOSPC;
  const uint64_t read_rate =
      fd < 0 ? 0 : time_steps(written, &read_back, [&](off_t at) { return pread(fd, bytes, write_bytes, at); });
  uint32_t alignment = 0;
  for (const uint32_t wanted : {4096u, 2048u, 1024u, 512u}) {
    if (written > 0 && pread(fd, bytes, wanted, wanted) == static_cast<ssize_t>(wanted)) alignment = wanted;
  }
  if (fd >= 0) close(fd);
  write_all(output_fd, fmt::format("{} {} {} {}", alignment, free_bytes, write_rate, read_rate));
  return 0;
}

std::string filesystem_of(const std::string& folder) {
  char resolved[PATH_MAX];
  if (realpath(folder.c_str(), resolved) == nullptr) return "";
  const auto mounts = fuse::read_mountinfo();
  const fuse::MountEntry* mount = mounts ? find_mount_above(*mounts, resolved) : nullptr;
  return mount != nullptr ? mount->type : "";
}

}  // namespace

DiskFacts probe_disk(const std::string& path) {
  DiskFacts facts{.path = path};
  std::string folder = path;
  while (folder.size() > 1 && access(folder.c_str(), F_OK) != 0 && errno == ENOENT) {
    folder.resize(std::max<size_t>(1, folder.rfind('/')));
  }
  const auto result = run_bounded(probe_ms, [&](int output_fd) { return try_out(folder, output_fd); });
  facts.os_errno = result ? result->exit_code : ETIMEDOUT;
  if (facts.os_errno != 0) return facts;
  facts.filesystem = filesystem_of(folder);
  const std::array<uint64_t*, 3> rest{&facts.free_bytes, &facts.write_bytes_s, &facts.read_bytes_s};
  const char* end = result->output.data() + result->output.size();
  auto at = std::from_chars(result->output.data(), end, facts.direct_alignment);
  for (uint64_t* number : rest) {
    if (at.ptr != end) at = std::from_chars(at.ptr + 1, end, *number);
  }
  return facts;
}

}  // namespace blobcache::cli
