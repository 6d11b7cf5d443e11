#include "cli/cached_file.h"

#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <cstring>

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/limits.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/command.h"
#include "cli/mountpoint.h"

namespace blobcache::cli {
namespace {

constexpr uint64_t room_percent = 85;  // cache.disk.low_watermark, unless it was changed

// A file by its name, or open already: what is asked of an open one is said of the version that was opened.
struct Target {
  const std::string* path = nullptr;
  int fd = -1;

  int attribute(const char* name, std::string* out) const {
    char value[1 << 16];
    const std::string full = fmt::format("user.blobcache.{}", name);
    const ssize_t length = path != nullptr ? getxattr(path->c_str(), full.c_str(), value, sizeof value)
                                           : fgetxattr(fd, full.c_str(), value, sizeof value);
    if (length < 0) return errno;
    out->assign(value, static_cast<size_t>(length));
    return 0;
  }
};

int read_tiers(const Target& target, std::vector<TierBytes>* out) {
  std::string text;
  if (const int os_errno = target.attribute("tiers", &text); os_errno != 0) return os_errno;
  auto tiers = parse_tiers(text);
  if (!tiers) return EPROTO;
  // The daemon may name the whole beside its parts.
  std::erase_if(*tiers, [](const TierBytes& tier) { return tier.tier == "size"; });
  *out = std::move(*tiers);
  return 0;
}

std::optional<uint64_t> number_at(std::string_view text, std::string_view key, size_t from) {
  const size_t at = text.find(key, from);
  uint64_t number = 0;
  if (at == std::string_view::npos) return std::nullopt;
  const char* start = text.data() + at + key.size();
  if (std::from_chars(start, text.data() + text.size(), number).ec != std::errc()) return std::nullopt;
  return number;
}

int read_all(const Target& target, CachedFile* out) {
  struct stat status{};
  const int failed = target.path != nullptr ? stat(target.path->c_str(), &status) : fstat(target.fd, &status);
  if (failed != 0) return errno;
  out->size = static_cast<uint64_t>(status.st_size);
  int os_errno = target.attribute("id", &out->id);
  if (os_errno == 0) os_errno = target.attribute("source", &out->source);
  if (os_errno == 0) os_errno = target.attribute("version", &out->version);
  if (os_errno == 0) os_errno = read_tiers(target, &out->tiers);
  out->pinned = bytes_of(out->tiers, "pinned") > 0;
  std::erase_if(out->tiers, [](const TierBytes& tier) { return tier.tier == "pinned"; });
  if (os_errno == 0) os_errno = target.attribute("path", &out->backing_path);
  // Only files with a backing file have that one.
  return os_errno == ENODATA && !out->id.empty() ? 0 : os_errno;
}

}  // namespace

int read_cached_file(const std::string& path, CachedFile* out) { return read_all(Target{.path = &path}, out); }

int read_cached_file(int fd, CachedFile* out) { return read_all(Target{.fd = fd}, out); }

int read_id(const std::string& path, std::string* out) { return Target{.path = &path}.attribute("id", out); }

int read_tiers(const std::string& path, std::vector<TierBytes>* out) { return read_tiers(Target{.path = &path}, out); }

std::string file_problem(std::string_view path, int os_errno) {
  if (os_errno == ENODATA || os_errno == EOPNOTSUPP) {
    return fmt::format("{} is no file on a blobcache mount; give one below a mount point", path);
  }
  if (os_errno == EPROTO) {
    return fmt::format("{} has tiers that this version does not understand; use the daemon's own version", path);
  }
  return fmt::format("{} cannot be looked at: {}; check the path", path, std::strerror(os_errno));
}

std::string backing_problem(std::string_view path, const CachedFile& file) {
  const uint64_t disk = bytes_of(file.tiers, "disk");
  if (disk < file.size) {
    return fmt::format("{} is not whole on disk ({} of {}); read it, for example with `blobcache warm {}`", path,
                       format_bytes_short(disk), format_bytes_short(file.size), path);
  }
  const bool verified = bytes_of(file.tiers, "disk_verified") >= file.size;
  if (verified || file.size < limits::chunk_bytes_min) {
    return fmt::format("{} has no file of its own on disk: objects smaller than cache.chunk_size share theirs; copy it",
                       path);
  }
  return fmt::format("{} is on disk, but was not read back and verified yet; repeat in a moment", path);
}

const fuse::MountEntry* find_mount_above(const std::vector<fuse::MountEntry>& mounts, std::string_view path) {
  const fuse::MountEntry* best = nullptr;
  for (const fuse::MountEntry& mount : mounts) {
    const bool closer = best == nullptr || mount.mountpoint.size() >= best->mountpoint.size();
    if (is_within(path, mount.mountpoint) && closer) best = &mount;
  }
  return best;
}

std::optional<fuse::MountEntry> mount_of(const std::string& path) {
  char resolved[PATH_MAX];
  if (realpath(path.c_str(), resolved) == nullptr) return std::nullopt;
  const auto mounts = fuse::read_mountinfo();
  if (!mounts) return std::nullopt;
  const fuse::MountEntry* mount = find_mount_above(*mounts, resolved);
  if (mount == nullptr || !mount->is_blobcache()) return std::nullopt;
  return *mount;
}

bool says_passthrough(std::string_view status_json, std::string_view mountpoint) {
  const size_t volume = status_json.find(fmt::format("\"mountpoint\":{}", json_string(mountpoint)));
  if (volume == std::string_view::npos) return false;
  constexpr std::string_view key = "\"passthrough\":";
  const size_t at = status_json.find(key, volume);
  return at != std::string_view::npos && status_json.substr(at + key.size()).starts_with("true");
}

std::optional<uint64_t> disk_room(std::string_view status_json) {
  const size_t disk = status_json.find("\"disk\":{\"used\":");
  if (disk == std::string_view::npos || status_json.find("\"disks\":[{") == std::string_view::npos) return std::nullopt;
  const std::optional<uint64_t> used = number_at(status_json, "\"used\":", disk);
  const std::optional<uint64_t> limit = number_at(status_json, "\"limit\":", disk);
  if (!used || !limit) return std::nullopt;
  const uint64_t usable = *limit * room_percent / 100;
  return usable > *used ? usable - *used : 0;
}

}  // namespace blobcache::cli
