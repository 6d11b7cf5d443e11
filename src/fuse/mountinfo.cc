// A line of mountinfo, fields apart by one space, special bytes as \ooo:
//   36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//   id parent major:minor root mountpoint options optional-fields... - type source super-options
#include "fuse/mountinfo.h"

#include <algorithm>
#include <cerrno>
#include <charconv>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace blobcache::fuse {
namespace {

constexpr const char* connections = "/sys/fs/fuse/connections";
constexpr size_t text_bytes_max = 64u << 20;

bool is_octal(char c) { return c >= '0' && c <= '7'; }

std::string unescape(std::string_view field) {
  std::string out;
  for (size_t i = 0; i < field.size(); ++i) {
    if (field[i] == '\\' && i + 3 < field.size() && is_octal(field[i + 1]) && is_octal(field[i + 2]) &&
        is_octal(field[i + 3])) {
      out += static_cast<char>((field[i + 1] - '0') * 64 + (field[i + 2] - '0') * 8 + (field[i + 3] - '0'));
      i += 3;
    } else {
      out += field[i];
    }
  }
  return out;
}

std::string_view next_field(std::string_view& rest) {
  const std::string_view field = rest.substr(0, rest.find(' '));
  rest.remove_prefix(std::min(rest.size(), field.size() + 1));
  return field;
}

template <class Number>
bool read_number(std::string_view text, Number& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

bool is_control_filesystem() {
  constexpr auto fuse_ctl_super_magic = 0x65735543;  // linux/magic.h
  struct statfs status{};
  return statfs(connections, &status) == 0 && status.f_type == fuse_ctl_super_magic;
}

std::optional<MountEntry> parse_line(std::string_view line) {
  MountEntry entry;
  bool valid = read_number(next_field(line), entry.id) && read_number(next_field(line), entry.parent_id);
  const std::string_view device = next_field(line);
  const size_t colon = device.find(':');
  valid = valid && colon != std::string_view::npos && read_number(device.substr(0, colon), entry.major) &&
          read_number(device.substr(colon + 1), entry.minor);
  next_field(line);  // the root within the filesystem
  entry.mountpoint = unescape(next_field(line));
  entry.options = next_field(line);
  while (!line.empty() && next_field(line) != "-") {
  }
  entry.type = unescape(next_field(line));
  entry.source = unescape(next_field(line));
  entry.super_options = next_field(line);
  if (!valid || entry.mountpoint.empty() || entry.type.empty()) return std::nullopt;
  return entry;
}

}  // namespace

std::optional<uint32_t> MountEntry::owner_uid() const {
  constexpr std::string_view name = "user_id=";
  for (std::string_view rest = super_options; !rest.empty();) {
    const std::string_view option = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), option.size() + 1));
    uint32_t uid = 0;
    if (option.starts_with(name) && read_number(option.substr(name.size()), uid)) return uid;
  }
  return std::nullopt;
}

std::vector<MountEntry> parse_mountinfo(std::string_view text) {
  std::vector<MountEntry> mounts;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (std::optional<MountEntry> entry = parse_line(line)) mounts.push_back(std::move(*entry));
  }
  return mounts;
}

Result<std::vector<MountEntry>> read_mountinfo() {
  const int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail(Code::io, errno);
  std::string text;
  int os_errno = 0;
  while (text.size() < text_bytes_max) {
    char buffer[1 << 15];
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) os_errno = errno;
    if (got <= 0) break;
    text.append(buffer, static_cast<size_t>(got));
  }
  close(fd);
  if (os_errno != 0) return fail(Code::io, os_errno);
  return parse_mountinfo(text);
}

const MountEntry* find_mount(const std::vector<MountEntry>& mounts, std::string_view path) {
  // Mounts on one path are stacked: each has the one below as its parent, so the topmost is nobody's parent there. The
  // order of lines says nothing.
  const MountEntry* top = nullptr;
  for (const MountEntry& entry : mounts) {
    if (entry.mountpoint != path) continue;
    const bool covered = std::any_of(mounts.begin(), mounts.end(), [&](const MountEntry& other) {
      return other.mountpoint == path && other.parent_id == entry.id && other.id != entry.id;
    });
    if (!covered) top = &entry;
  }
  return top;
}

Result<void> abort_connection(unsigned minor) {
  const std::string path = std::string(connections) + "/" + std::to_string(minor) + "/abort";
  int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT && !is_control_filesystem()) {
    if (mount("fusectl", connections, "fusectl", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0 && errno != EBUSY) {
      return errno == EPERM ? fail(Code::denied, errno) : fail(Code::not_found, errno);
    }
    fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  }
  if (fd < 0) return errno == ENOENT ? fail(Code::not_found, errno) : fail(Code::denied, errno);
  const ssize_t wrote = write(fd, "1", 1);
  const int os_errno = errno;
  close(fd);
  if (wrote != 1) return fail(Code::denied, os_errno);
  return {};
}

}  // namespace blobcache::fuse
