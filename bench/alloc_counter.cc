// alloc_counter: counts what a process asks of the allocator, so that "no allocation on a hit" is a number.
//
// Preloaded into the daemon (LD_PRELOAD), it stands in front of glibc's allocator and adds to counters in a shared file
// (BLOBCACHE_ALLOC_COUNTS), which the runner reads before and after the hits. operator new ends in malloc, so it is
// counted as well. glibc exports its own functions under __libc_ names: calling those needs no dlsym, which would itself
// allocate.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>

extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* memory, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void* memory);
}

namespace {

// The layout that the runner reads: two little-endian 64-bit numbers.
struct Counts {
  std::atomic<uint64_t> allocations;
  std::atomic<uint64_t> frees;
};
static_assert(sizeof(Counts) == 16);

Counts unshared;  // until the file is mapped, and when there is none
std::atomic<Counts*> counts{&unshared};

__attribute__((constructor)) void map_counts() {
  const char* path = std::getenv("BLOBCACHE_ALLOC_COUNTS");
  if (path == nullptr) return;
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void* memory = mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (memory != MAP_FAILED) counts.store(static_cast<Counts*>(memory));
}

void count_allocation() { counts.load(std::memory_order_relaxed)->allocations.fetch_add(1, std::memory_order_relaxed); }
void count_free() { counts.load(std::memory_order_relaxed)->frees.fetch_add(1, std::memory_order_relaxed); }

}  // namespace

extern "C" {

void* malloc(size_t bytes) {
  count_allocation();
  return __libc_malloc(bytes);
}

void* calloc(size_t count, size_t bytes) {
  count_allocation();
  return __libc_calloc(count, bytes);
}

void* realloc(void* memory, size_t bytes) {
  count_allocation();
  return __libc_realloc(memory, bytes);
}

void* memalign(size_t alignment, size_t bytes) {
  count_allocation();
  return __libc_memalign(alignment, bytes);
}

void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }

int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  *memory = memalign(alignment, bytes);
  return *memory == nullptr ? ENOMEM : 0;
}

void free(void* memory) {
  if (memory != nullptr) count_free();
  __libc_free(memory);
}
}
