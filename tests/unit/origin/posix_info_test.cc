// Keys, inode numbers, versions and age, without a file.
#include <doctest/doctest.h>

#include <cerrno>
#include <climits>
#include <set>
#include <string>

#include "origin/posix_info.h"

using namespace blobcache;

namespace {

struct statx file_stat() {
  struct statx stat = {};
  stat.stx_mask = posix_statx_mask;
  stat.stx_mode = S_IFREG | 0644;
  stat.stx_dev_major = 8;
  stat.stx_dev_minor = 1;
  stat.stx_ino = 1234;
  stat.stx_nlink = 1;
  stat.stx_size = 5678;
  stat.stx_mtime = {.tv_sec = 1000, .tv_nsec = 500, .__reserved = 0};
  stat.stx_ctime = {.tv_sec = 2000, .tv_nsec = 600, .__reserved = 0};
  return stat;
}

}  // namespace

TEST_CASE("keys") {
  for (const char* key : {"", "a", "a/b", "...", "a/..b", " ", "a\nb", "\xff"}) CHECK(check_posix_key(key).has_value());
  CHECK(check_posix_key(std::string(PATH_MAX - 1, 'a')).has_value());
  CHECK(check_posix_key(std::string(PATH_MAX, 'a')).error() == Error{Code::invalid, ENAMETOOLONG});
  for (const char* key : {"/", "/a", "a/", "a//b", ".", "..", "./a", "a/..", "a/./b"}) {
    CAPTURE(key);
    REQUIRE(!check_posix_key(key).has_value());
    CHECK(check_posix_key(key).error() == Error{Code::invalid, EINVAL});
  }
  CHECK(!check_posix_key(std::string_view("a\0b", 3)).has_value());
}

TEST_CASE("inode numbers: the root's own filesystem keeps them, others are mixed apart") {
  CHECK(shown_ino(7, 42, 7) == 42);
  std::set<uint64_t> numbers;
  for (uint64_t dev = 8; dev < 40; ++dev) {
    for (uint64_t ino = 1; ino < 100; ++ino) {
      numbers.insert(shown_ino(dev, ino, 7));
      CHECK((shown_ino(dev, ino, 7) >> 63) == 1);
    }
  }
  CHECK(numbers.size() == 32 * 99);
}

TEST_CASE("every field is in the version, and no other") {
  const struct statx stat = file_stat();
  const FileVersion version = posix_version(stat);
  CHECK(is_version_of(version, stat));
  const auto differs = [&](auto change) {
    struct statx other = stat;
    change(other);
    CHECK(!(posix_version(other) == version));
    return !is_version_of(version, other);
  };
  CHECK(differs([](struct statx& other) { ++other.stx_dev_major; }));
  CHECK(differs([](struct statx& other) { ++other.stx_dev_minor; }));
  CHECK(differs([](struct statx& other) { ++other.stx_ino; }));
  CHECK(differs([](struct statx& other) { ++other.stx_size; }));
  CHECK(differs([](struct statx& other) { ++other.stx_mtime.tv_sec; }));
  CHECK(differs([](struct statx& other) { ++other.stx_mtime.tv_nsec; }));
  CHECK(differs([](struct statx& other) { ++other.stx_ctime.tv_sec; }));
  CHECK(differs([](struct statx& other) { ++other.stx_ctime.tv_nsec; }));
  struct statx other = stat;
  other.stx_atime.tv_sec = 1;
  other.stx_blocks = 1;
  CHECK(posix_version(other) == version);
  CHECK(!is_version_of(FileVersion{}, stat));
}

TEST_CASE("the last name gone: a new ctime is forgiven, nothing else is") {
  const FileVersion version = posix_version(file_stat());
  struct statx unlinked = file_stat();
  unlinked.stx_nlink = 0;
  unlinked.stx_ctime.tv_sec += 100;
  CHECK(is_version_of(version, unlinked));
  ++unlinked.stx_mtime.tv_nsec;
  CHECK(!is_version_of(version, unlinked));
  struct statx renamed = file_stat();
  renamed.stx_ctime.tv_sec += 100;
  CHECK(!is_version_of(version, renamed));
}

TEST_CASE("young") {
  struct statx stat = file_stat();
  const auto young = [&](uint64_t young_ns, TimePoint now) {
    return is_young(posix_version(stat), {.young_ns = young_ns, .now = now});
  };
  constexpr uint64_t second = 1'000'000'000;
  CHECK(young(second, {2000, 700}));
  CHECK(young(second, {2001, 599}));
  CHECK(!young(second, {2001, 600}));
  CHECK(!young(second, {3000, 0}));
  CHECK(young(second, {1500, 0}));  // the server's clock is ahead
  CHECK(young(3 * second + 1, {2003, 600}));
  CHECK(!young(3 * second + 1, {2003, 601}));
  stat.stx_mtime = {.tv_sec = 2500, .tv_nsec = 0, .__reserved = 0};  // mtime counts as ctime does
  CHECK(young(second, {2001, 600}));
  CHECK(is_young(FileVersion{}, {.young_ns = 0, .now = {3000, 0}}));
}
