// Facts: what this machine and its kernel offer, read once from /proc and /sys.
//   Thread    any; a plain value, so that what is made of it can be tested with the facts of any machine
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "ring/uring.h"

namespace blobcache::cli {

struct KernelVersion {
  unsigned major = 0;
  unsigned minor = 0;
  friend auto operator<=>(const KernelVersion&, const KernelVersion&) = default;
};

// "6.18.44-generic" -> 6.18; 0.0 when it is no version.
KernelVersion parse_kernel_version(const std::string& release);

struct Facts {
  std::string kernel_release;
  KernelVersion kernel;
  bool root = false;
  UringProbe uring;
  std::optional<uint64_t> io_uring_disabled;  // sysctl kernel.io_uring_disabled
  bool seccomp = false;                       // a filter is in force, as in containers
  int dev_fuse_errno = 0;                     // of opening /dev/fuse
  std::optional<bool> enable_uring;           // of the fuse module; none: the kernel has no such switch
  bool capability_admin = false;
  bool capability_ipc_lock = false;
  std::optional<uint64_t> memlock_bytes;  // none: no limit
  std::string huge_pages;                 // "always", "madvise", "never", "": the kernel has none
  uint64_t huge_pages_reserved = 0;       // free ones of vm.nr_hugepages
  std::optional<uint64_t> max_pages_limit;
  std::string fusermount;         // path of fusermount3; empty: none
  bool user_allow_other = false;  // in /etc/fuse.conf
  uint64_t memory_bytes = 0;      // that this process may use
};

Facts read_facts();

// One clause: why io_uring does not work here, and what to do.
std::string io_uring_remedy(const Facts& facts);

bool offers_uring_fuse(const Facts& facts);
bool offers_passthrough(const Facts& facts);
bool offers_huge_pages(const Facts& facts);

// The path of a program found by PATH; empty: none.
std::string find_program(const std::string& name);

}  // namespace blobcache::cli
