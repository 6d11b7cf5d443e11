#include "cli/facts.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/features.h"
#include "base/memory.h"

namespace blobcache::cli {
namespace {

constexpr KernelVersion kernel_with_passthrough{6, 9};
constexpr KernelVersion kernel_with_uring_fuse{6, 14};

std::string read_text(const char* path) {
  std::string text;
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  char buffer[4096];
  ssize_t got = 0;
  while (text.size() < (1u << 16) && (got = read(fd, buffer, sizeof buffer)) > 0) {
    text.append(buffer, static_cast<size_t>(got));
  }
  close(fd);
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

std::optional<uint64_t> read_number(const char* path) {
  const std::string text = read_text(path);
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// The value of "Name:\tvalue" in /proc/self/status.
std::string status_field(const std::string& status, std::string_view name) {
  const size_t start = status.find(fmt::format("\n{}:\t", name));
  if (start == std::string::npos) return "";
  const size_t value = start + name.size() + 3;
  return status.substr(value, status.find('\n', value) - value);
}

bool has_capability(uint64_t mask, unsigned capability) { return (mask >> capability & 1) != 0; }

// "always [madvise] never" -> "madvise"
std::string chosen_word(const std::string& text) {
  const size_t open_at = text.find('[');
  const size_t close_at = text.find(']', open_at + 1);
  if (open_at == std::string::npos || close_at == std::string::npos) return "";
  return text.substr(open_at + 1, close_at - open_at - 1);
}

bool fuse_conf_allows_other() {
  const std::string text = "\n" + read_text("/etc/fuse.conf") + "\n";
  return text.find("\nuser_allow_other\n") != std::string::npos;
}

void read_process_facts(Facts* facts) {
  const std::string status = read_text("/proc/self/status");
  const uint64_t capabilities = std::strtoull(status_field(status, "CapEff").c_str(), nullptr, 16);
  facts->capability_admin = has_capability(capabilities, CAP_SYS_ADMIN);
  facts->capability_ipc_lock = has_capability(capabilities, CAP_IPC_LOCK);
  facts->seccomp = status_field(status, "Seccomp") == "2";
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) facts->memlock_bytes = limit.rlim_cur;
  const int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  facts->dev_fuse_errno = fd < 0 ? errno : 0;
  if (fd >= 0) close(fd);
}

}  // namespace

KernelVersion parse_kernel_version(const std::string& release) {
  KernelVersion version;
  const char* end = release.data() + release.size();
  const auto major = std::from_chars(release.data(), end, version.major);
  if (major.ec != std::errc() || major.ptr == end || *major.ptr != '.') return {};
  if (std::from_chars(major.ptr + 1, end, version.minor).ec != std::errc()) return {};
  return version;
}

Facts read_facts() {
  Facts facts;
  utsname name{};
  if (uname(&name) == 0) facts.kernel_release = name.release;
  facts.kernel = parse_kernel_version(facts.kernel_release);
  facts.root = geteuid() == 0;
  facts.uring = probe_uring();
  facts.io_uring_disabled = read_number("/proc/sys/kernel/io_uring_disabled");
  const std::string enable_uring = read_text("/sys/module/fuse/parameters/enable_uring");
  if (!enable_uring.empty()) facts.enable_uring = enable_uring == "Y" || enable_uring == "1";
  facts.huge_pages = chosen_word(read_text("/sys/kernel/mm/transparent_hugepage/enabled"));
  facts.huge_pages_reserved = read_number("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").value_or(0);
  facts.max_pages_limit = read_number("/proc/sys/fs/fuse/max_pages_limit");
  facts.fusermount = find_program("fusermount3");
  facts.user_allow_other = fuse_conf_allows_other();
  facts.memory_bytes = memory_available_bytes();
  read_process_facts(&facts);
  return facts;
}

std::string io_uring_remedy(const Facts& facts) {
  if (pretended_absent(Feature::io_uring)) return "BLOBCACHE_PRETEND_ABSENT hides it; unset that variable";
  const uint64_t disabled = facts.io_uring_disabled.value_or(0);
  if (disabled == 2) return "kernel.io_uring_disabled is 2; run `sysctl kernel.io_uring_disabled=0` as root";
  if (disabled == 1 && !facts.root) {
    return "kernel.io_uring_disabled is 1, which leaves it to root; run `sysctl kernel.io_uring_disabled=0` as root";
  }
  if (facts.kernel < KernelVersion{6, 1})
    return fmt::format("Linux {} is too old; use 6.1 or newer", facts.kernel_release);
  if (facts.seccomp) {
    return "a seccomp filter blocks it, as container runtimes do by default; allow io_uring_setup, io_uring_enter and "
           "io_uring_register in the profile (Docker: --security-opt seccomp=FILE)";
  }
  return fmt::format("io_uring_setup failed ({}); use a kernel built with CONFIG_IO_URING",
                     std::strerror(facts.uring.os_errno));
}

bool offers_uring_fuse(const Facts& facts) {
  return facts.enable_uring.value_or(false) && facts.kernel >= kernel_with_uring_fuse &&
         !pretended_absent(Feature::uring_fuse);
}

bool offers_passthrough(const Facts& facts) {
  return facts.kernel >= kernel_with_passthrough && facts.capability_admin && !pretended_absent(Feature::passthrough);
}

bool offers_huge_pages(const Facts& facts) {
  const bool transparent = facts.huge_pages == "always" || facts.huge_pages == "madvise";
  return (transparent || facts.huge_pages_reserved > 0) && !pretended_absent(Feature::hugepages);
}

std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::string_view rest = path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin";
  while (!rest.empty()) {
    const std::string_view directory = rest.substr(0, rest.find(':'));
    rest.remove_prefix(std::min(rest.size(), directory.size() + 1));
    const std::string candidate = fmt::format("{}/{}", directory, name);
    if (!directory.empty() && access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return "";
}

}  // namespace blobcache::cli
