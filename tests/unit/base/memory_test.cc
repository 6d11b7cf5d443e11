#include "base/memory.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include "base/limits.h"

namespace blobcache {
namespace {

// A place that nothing else takes: ASan's heap lies at 0x6000'0000'0000 (g++ 12) or 0x5000'0000'0000 (clang 19), and TSan
// keeps most of the address space for itself.
#if defined(__SANITIZE_THREAD__)
#define BLOBCACHE_TEST_UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BLOBCACHE_TEST_UNDER_TSAN 1
#endif
#endif
#if defined(BLOBCACHE_TEST_UNDER_TSAN)
constexpr uintptr_t region_base = 0x20'0000'0000;
#else
constexpr uintptr_t region_base = 0x6800'0000'0000;
#endif
void* const region_address = reinterpret_cast<void*>(region_base);

size_t resident_pages(std::span<std::byte> bytes) {
  std::vector<unsigned char> resident(bytes.size() / limits::page_bytes);
  REQUIRE(mincore(bytes.data(), bytes.size(), resident.data()) == 0);
  return static_cast<size_t>(std::ranges::count_if(resident, [](unsigned char page) { return (page & 1) != 0; }));
}

TEST_CASE("an arena is aligned to huge pages, rounded up to them, zeroed and writable to its end") {
  Arena arena;
  REQUIRE(arena.allocate(3 * limits::MiB).has_value());
  const std::span<std::byte> bytes = arena.bytes();
  CHECK(bytes.size() == 4 * limits::MiB);
  CHECK(reinterpret_cast<uintptr_t>(bytes.data()) % limits::huge_page_bytes == 0);
  bool zeroed = true;
  for (const std::byte byte : bytes) zeroed &= byte == std::byte{0};
  CHECK(zeroed);
  bytes.back() = std::byte{1};
  CHECK(resident_pages(bytes) == bytes.size() / limits::page_bytes);
  arena.free();
  CHECK(arena.bytes().empty());
  REQUIRE(arena.allocate(1).has_value());
  CHECK(arena.bytes().size() == 2 * limits::MiB);
}

TEST_CASE("an arena that several threads populate is resident to its last page") {
  Arena arena;
  REQUIRE(arena.allocate(386 * limits::MiB).has_value());  // parts of different sizes
  CHECK(resident_pages(arena.bytes()) == 386 * limits::MiB / limits::page_bytes);
}

TEST_CASE("a shared region lies where it was asked to, grows in place, and is the memfd's") {
  SharedRegion region;
  const SharedRegion::Options options{
      .name = "test", .address = region_address, .reserve_bytes = 64 * limits::MiB, .bytes = 5000, .populate = true};
  REQUIRE(region.create(options).has_value());
  CHECK(region.bytes().data() == region_address);
  CHECK(region.bytes().size() == 8192);
  std::memset(region.bytes().data(), 0x5a, 8192);
  REQUIRE(region.grow(limits::MiB).has_value());
  CHECK(region.bytes().data() == region_address);
  CHECK(region.bytes().size() == limits::MiB);
  CHECK(region.bytes()[8191] == std::byte{0x5a});
  CHECK(region.bytes()[8192] == std::byte{0});
  REQUIRE(region.grow(100).has_value());  // never smaller
  CHECK(region.bytes().size() == limits::MiB);
  const Result<void> beyond = region.grow(64 * limits::MiB + 1);
  REQUIRE(!beyond.has_value());
  CHECK(beyond.error().code == Code::full);

  region.bytes().back() = std::byte{0x77};
  void* elsewhere = mmap(nullptr, limits::MiB, PROT_READ, MAP_SHARED, region.fd(), 0);
  REQUIRE(elsewhere != MAP_FAILED);
  CHECK(std::memcmp(elsewhere, region.bytes().data(), limits::MiB) == 0);
  munmap(elsewhere, limits::MiB);
}

TEST_CASE("an address that is taken is refused and left alone") {
  SharedRegion first;
  const SharedRegion::Options options{
      .name = "first", .address = region_address, .reserve_bytes = limits::MiB, .bytes = 4096, .populate = false};
  REQUIRE(first.create(options).has_value());
  first.bytes()[0] = std::byte{1};
  SharedRegion second;
  CHECK(!second.create(options).has_value());
  CHECK(second.fd() == -1);
  CHECK(first.bytes()[0] == std::byte{1});
  first.free();
  CHECK(second.create(options).has_value());
  CHECK(second.bytes()[0] == std::byte{0});
}

TEST_CASE("the memory there is does not exceed the machine's") {
  const size_t machine = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  CHECK(memory_available_bytes() > 0);
  CHECK(memory_available_bytes() <= machine);
}

}  // namespace
}  // namespace blobcache
