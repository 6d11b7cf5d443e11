#include "cli/checks.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "base/features.h"
#include "base/limits.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/command.h"

namespace blobcache::cli {
namespace {

// Registered buffers count as locked memory: below this the cache's would not fit whatever its size.
constexpr uint64_t memlock_bytes_min = 64 * limits::MiB;
constexpr uint64_t memory_bytes_min = 256 * limits::MiB;
constexpr uint64_t disk_free_bytes_min = limits::GiB;
constexpr uint64_t disk_read_bytes_s_min = 500'000'000;  // what a SATA SSD does; a network is as fast
constexpr uint64_t source_slow_ns = 20'000'000;  // a spinning disk's seek twice; a file server nearby takes 1 ms

Check ok(std::string_view name, std::string detail) { return {name, State::ok, std::move(detail), ""}; }

Check check_kernel(const Facts& facts) {
  const std::string detail = fmt::format("Linux {}", facts.kernel_release);
  if (facts.kernel >= KernelVersion{6, 14}) return ok("kernel", detail);
  if (facts.kernel >= KernelVersion{6, 1}) {
    return {"kernel", State::slow, detail, "6.9 brings passthrough, 6.14 requests over io_uring: use a newer kernel"};
  }
  return {"kernel", State::missing, detail, "use Linux 6.1 or newer"};
}

Check check_io_uring(const Facts& facts) {
  if (!facts.uring.available) return {"io_uring", State::missing, "not available", io_uring_remedy(facts)};
  if (!facts.uring.all_opcodes) {
    return {"io_uring", State::missing, "operations are missing", "use Linux 6.1 or newer"};
  }
  if (!facts.uring.defer_taskrun) return {"io_uring", State::slow, "no DEFER_TASKRUN", "use Linux 6.1 or newer"};
  return ok("io_uring", "available");
}

Check check_dev_fuse(const Facts& facts) {
  if (facts.dev_fuse_errno == 0) return ok("/dev/fuse", "can be opened");
  const bool denied = facts.dev_fuse_errno == EACCES || facts.dev_fuse_errno == EPERM;
  return {"/dev/fuse", State::missing, std::strerror(facts.dev_fuse_errno),
          denied ? "give it mode 0666; in a container add --device /dev/fuse"
                 : "run `modprobe fuse`; in a container add --device /dev/fuse"};
}

Check check_enable_uring(const Facts& facts) {
  if (offers_uring_fuse(facts)) return ok("enable_uring", "requests come over io_uring");
  if (pretended_absent(Feature::uring_fuse)) {
    return {"enable_uring", State::off, "hidden", "BLOBCACHE_PRETEND_ABSENT hides it; unset that variable"};
  }
  if (!facts.enable_uring || facts.kernel < KernelVersion{6, 14}) {
    return {"enable_uring", State::off, "not in this kernel", "use Linux 6.14 or newer with CONFIG_FUSE_IO_URING"};
  }
  return {"enable_uring", State::off, "switched off",
          "run `echo 1 > /sys/module/fuse/parameters/enable_uring` as root, before mounting"};
}

Check check_passthrough(const Facts& facts) {
  if (offers_passthrough(facts)) return ok("passthrough", "whole files can be read by the kernel itself");
  if (pretended_absent(Feature::passthrough)) {
    return {"passthrough", State::off, "hidden", "BLOBCACHE_PRETEND_ABSENT hides it; unset that variable"};
  }
  if (facts.kernel < KernelVersion{6, 9})
    return {"passthrough", State::off, "not in this kernel", "use Linux 6.9 or newer"};
  return {"passthrough", State::off, "no CAP_SYS_ADMIN", "run as root"};
}

Check check_memlock(const Facts& facts) {
  if (facts.capability_ipc_lock || !facts.memlock_bytes) return ok("memlock", "no limit");
  const std::string detail = fmt::format("{} may be locked", format_bytes_short(*facts.memlock_bytes));
  if (*facts.memlock_bytes >= memlock_bytes_min) return ok("memlock", detail);
  return {"memlock", State::slow, detail, "set LimitMEMLOCK=infinity in the service, or `ulimit -l unlimited`"};
}

Check check_huge_pages(const Facts& facts) {
  if (offers_huge_pages(facts)) {
    return ok("hugepages",
              fmt::format("transparent: {}, reserved: {}", facts.huge_pages.empty() ? "none" : facts.huge_pages,
                          facts.huge_pages_reserved));
  }
  return {"hugepages", State::slow, facts.huge_pages.empty() ? "none" : facts.huge_pages,
          "run `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled` as root"};
}

Check check_request_size(const Facts& facts) {
  constexpr uint64_t pages_default = 256;  // 1 MiB; also the kernel's own before it had the setting
  const uint64_t pages = facts.max_pages_limit.value_or(pages_default);
  const std::string detail = fmt::format("requests up to {}", format_bytes_short(pages * limits::page_bytes));
  if (pages >= pages_default) return ok("max_pages_limit", detail);
  return {"max_pages_limit", State::slow, detail, "run `sysctl fs.fuse.max_pages_limit=256` as root"};
}

Check check_read_ahead(const Facts& facts) {
  if (facts.root) return ok("read-ahead", "is set for each mount");
  return {"read-ahead", State::slow, "the kernel's 128 KiB stay",
          "run as root, or write /sys/class/bdi/0:N/read_ahead_kb as root after mounting"};
}

Check check_memory(const Facts& facts) {
  const std::string detail = fmt::format("{} for this process", format_bytes_short(facts.memory_bytes));
  if (facts.memory_bytes >= memory_bytes_min) return ok("memory", detail);
  return {"memory", State::slow, detail, "raise the memory limit of the control group or the container"};
}

void check_user(const Facts& facts, std::vector<Check>* checks) {
  if (facts.root) return;
  checks->push_back(facts.fusermount.empty()
                        ? Check{"fusermount3", State::missing, "not found", "install the package fuse3"}
                        : ok("fusermount3", facts.fusermount));
  checks->push_back(facts.user_allow_other ? ok("user_allow_other", "others may use the mount")
                                           : Check{"user_allow_other", State::off, "only you can use the mount",
                                                   "add the line user_allow_other to /etc/fuse.conf as root"});
}

std::string duration_short(uint64_t ns) {
  if (ns < 1'000'000) return fmt::format("{:.1f} us", static_cast<double>(ns) / 1e3);
  return fmt::format("{:.1f} ms", static_cast<double>(ns) / 1e6);
}

}  // namespace

std::string_view state_name(State state) {
  switch (state) {
    case State::ok: return "ok";
    case State::slow: return "slow";
    case State::missing: return "missing";
    case State::off: return "off";
  }
  return "?";
}

std::vector<Check> check_facts(const Facts& facts) {
  std::vector<Check> checks{check_kernel(facts),       check_io_uring(facts),     check_dev_fuse(facts),
                            check_enable_uring(facts), check_passthrough(facts),  check_memlock(facts),
                            check_huge_pages(facts),   check_request_size(facts), check_read_ahead(facts),
                            check_memory(facts)};
  check_user(facts, &checks);
  return checks;
}

Check check_source(const std::string& source, int os_errno, uint64_t median_ns, uint64_t worst_ns) {
  if (os_errno == ETIMEDOUT) {
    return {"source", State::missing, source + " does not answer", "check the file server behind it"};
  }
  if (os_errno != 0) {
    return {"source", State::missing, fmt::format("{}: {}", source, std::strerror(os_errno)),
            "give a directory that this user may read"};
  }
  const std::string detail =
      fmt::format("{} answers in {}, at worst {}", source, duration_short(median_ns), duration_short(worst_ns));
  if (median_ns < source_slow_ns) return ok("source", detail);
  return {"source", State::slow, detail,
          "raise fuse.entry_timeout and fuse.attr_timeout, so that it is asked less often"};
}

Check check_disk(const DiskFacts& disk) {
  if (disk.os_errno == ETIMEDOUT) {
    return {"disk", State::missing, disk.path + " does not answer", "check the disk, or choose another directory"};
  }
  if (disk.os_errno != 0) {
    return {"disk", State::missing, fmt::format("{}: {}", disk.path, std::strerror(disk.os_errno)),
            "choose a directory that this user may write to, on a disk with room"};
  }
  if (disk.direct_alignment == 0) {
    return {"disk", State::missing, fmt::format("{} on {} has no direct I/O (O_DIRECT)", disk.path, disk.filesystem),
            "choose a directory on ext4, xfs or btrfs"};
  }
  const std::string detail =
      fmt::format("{} on {}: read {}/s, written {}/s, direct I/O in {} bytes, {} free", disk.path, disk.filesystem,
                  format_bytes_short(disk.read_bytes_s), format_bytes_short(disk.write_bytes_s), disk.direct_alignment,
                  format_bytes_short(disk.free_bytes));
  if (disk.free_bytes < disk_free_bytes_min) {
    return {"disk", State::slow, detail, "make room, or choose a larger disk"};
  }
  if (disk.filesystem == "overlay" || disk.filesystem == "ecryptfs") {
    return {"disk", State::slow, detail + ", no passthrough",
            "choose a directory on ext4, xfs or btrfs; in a container mount a volume there"};
  }
  if (disk.read_bytes_s < disk_read_bytes_s_min) {
    return {"disk", State::slow, detail, "choose a directory on a local NVMe disk"};
  }
  return ok("disk", detail);
}

std::string render_checks(const std::vector<Check>& checks) {
  size_t name_bytes = 0;
  for (const Check& check : checks) name_bytes = std::max(name_bytes, check.name.size());
  std::string out;
  for (const Check& check : checks) {
    out += fmt::format("{:<{}}  {:<7}  {}{}{}\n", check.name, name_bytes, state_name(check.state), check.detail,
                       check.remedy.empty() ? "" : ": ", check.remedy);
  }
  return out;
}

std::string render_checks_json(const std::vector<Check>& checks) {
  std::string out = "{\"checks\":[";
  for (const Check& check : checks) {
    out += fmt::format("{}{{\"name\":{},\"state\":{},\"detail\":{},\"remedy\":{}}}", &check == checks.data() ? "" : ",",
                       json_string(check.name), json_string(state_name(check.state)), json_string(check.detail),
                       json_string(check.remedy));
  }
  return out + "]}\n";
}

}  // namespace blobcache::cli
