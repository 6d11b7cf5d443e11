#include "base/memory.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <fstream>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/features.h"
#include "base/limits.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif

namespace blobcache {
namespace {

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

bool file_contains(const char* path, const char* word) {
  std::ifstream file(path);
  std::string text;
  return std::getline(file, text) && text.find(word) != std::string::npos;
}

size_t cgroup_limit_bytes() {
  size_t limit = ~size_t{0};
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    // "0::/path" (v2) or "4:memory:/path" (v1)
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    const bool v2 = controllers.empty();
    if (!v2 && controllers.find("memory") == std::string::npos) continue;
    while (true) {
      const std::string file =
          (v2 ? "/sys/fs/cgroup" + path + "/memory.max" : "/sys/fs/cgroup/memory" + path + "/memory.limit_in_bytes");
      std::ifstream limit_file(file);
      size_t value = 0;
      if (limit_file >> value && value < limit) limit = value;
      if (path.empty() || path == "/") break;
      path.resize(path.rfind('/'));
    }
  }
  return limit;
}

constexpr size_t populate_part_bytes_min = 128 * limits::MiB;

// By all processors that this process may use: clearing pages is most of a start with much memory. 0 or the errno.
int populate(std::byte* data, size_t bytes) {
  const size_t parts_max = std::max<size_t>(1, bytes / populate_part_bytes_min);
  const size_t parts = std::clamp<size_t>(std::thread::hardware_concurrency(), 1, parts_max);
  const size_t part_bytes = round_up((bytes + parts - 1) / parts, limits::huge_page_bytes);
  std::atomic<int> os_errno{0};
  const auto populate_part = [&](size_t offset) {
    const size_t size = std::min(part_bytes, bytes - offset);
    // EINVAL: the kernel does not know it, and pages come when they are touched.
    if (madvise(data + offset, size, MADV_POPULATE_WRITE) != 0 && errno != EINVAL) os_errno.store(errno);
  };
  {
    std::vector<std::jthread> others;
    for (size_t offset = part_bytes; offset < bytes; offset += part_bytes) {
      try {
        others.emplace_back(populate_part, offset);
      } catch (const std::system_error&) {  // RLIMIT_NPROC: it only takes longer
        populate_part(offset);
      }
    }
    populate_part(0);
  }
  return os_errno.load();
}

}  // namespace

Result<void> Arena::allocate(size_t bytes) {
  BC_ASSERT(data_ == nullptr && bytes > 0);
  size_ = round_up(bytes, limits::huge_page_bytes);
  // Over-map to align, then give back both ends.
  const size_t mapped = size_ + limits::huge_page_bytes;
  void* memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return fail(Code::again, errno);
  auto* begin = static_cast<std::byte*>(memory);
  data_ = reinterpret_cast<std::byte*>(round_up(reinterpret_cast<uintptr_t>(begin), limits::huge_page_bytes));
  const auto head = static_cast<size_t>(data_ - begin);
  if (head > 0) munmap(begin, head);
  if (mapped - head > size_) munmap(data_ + size_, mapped - head - size_);

  const bool never = file_contains("/sys/kernel/mm/transparent_hugepage/enabled", "[never]");
  on_huge_pages_ = !never && !pretended_absent(Feature::hugepages) && madvise(data_, size_, MADV_HUGEPAGE) == 0;
  if (!on_huge_pages_) madvise(data_, size_, MADV_NOHUGEPAGE);
  if (const int os_errno = populate(data_, size_); os_errno != 0) {
    free();
    return fail(Code::again, os_errno);
  }
  return {};
}

void Arena::free() {
  if (data_ != nullptr) munmap(data_, size_);
  data_ = nullptr;
  size_ = 0;
}

Result<void> LazyMemory::reserve(size_t bytes) {
  BC_ASSERT(mapping_ == nullptr);
  const size_t wanted = round_up(bytes, limits::huge_page_bytes) + limits::huge_page_bytes;
  void* mapping = mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return fail(Code::again, errno);
  mapping_ = static_cast<std::byte*>(mapping);
  mapped_bytes_ = wanted;
  const auto address = reinterpret_cast<uintptr_t>(mapping);
  data_ = mapping_ + (round_up(address, limits::huge_page_bytes) - address);
  // A random look-up in 4 KiB pages walks page tables that are not in the processor's caches either, and under a hypervisor
  // one in thirty waited for 12 us (5 MiB, the buckets of 1 M objects).
  if (bytes >= 2 * limits::huge_page_bytes && !pretended_absent(Feature::hugepages))
    madvise(data_, round_up(bytes, limits::huge_page_bytes), MADV_HUGEPAGE);
  return {};
}

void LazyMemory::free() {
  if (mapping_ != nullptr) munmap(mapping_, mapped_bytes_);
  mapping_ = nullptr;
  data_ = nullptr;
}

Result<void> SharedRegion::create(const Options& options) {
  BC_ASSERT(data_ == nullptr && options.bytes <= options.reserve_bytes);
  fd_ = memfd_create(options.name, MFD_CLOEXEC);
  if (fd_ < 0) return fail(Code::again, errno);
  reserved_ = round_up(options.reserve_bytes, limits::page_bytes);
  populate_ = options.populate;
  void* memory = mmap(options.address, reserved_, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, fd_, 0);
  if (memory == MAP_FAILED || memory != options.address) {
    const int os_errno = errno;
    if (memory != MAP_FAILED) munmap(memory, reserved_);
    close(fd_);
    fd_ = -1;
    return fail(Code::again, os_errno);
  }
  data_ = static_cast<std::byte*>(memory);
  return grow(options.bytes);
}

Result<void> SharedRegion::grow(size_t bytes) {
  const size_t wanted = round_up(bytes, limits::page_bytes);
  if (wanted <= size_) return {};
  if (wanted > reserved_) return fail(Code::full, ENOSPC);
  if (ftruncate(fd_, static_cast<off_t>(wanted)) != 0) return fail(Code::again, errno);
  if (populate_ && madvise(data_ + size_, wanted - size_, MADV_POPULATE_WRITE) != 0 && errno != EINVAL) {
    return fail(Code::again, errno);
  }
  size_ = wanted;
  return {};
}

void SharedRegion::free() {
  if (data_ != nullptr) munmap(data_, reserved_);
  if (fd_ >= 0) close(fd_);
  data_ = nullptr;
  size_ = 0;
  fd_ = -1;
}

size_t memory_available_bytes() {
  const auto machine = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t group = cgroup_limit_bytes();
  return group < machine ? group : machine;
}

}  // namespace blobcache
