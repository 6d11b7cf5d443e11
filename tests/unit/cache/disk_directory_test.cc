// A cache directory is taken only when it is ours, and refused in one sentence otherwise.
#include "cache/disk_directory.h"

#include <cerrno>
#include <cstring>

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <fmt/format.h>

#include "unit/cache/disk_fixture.h"

namespace blobcache {

using namespace test;

namespace {

// The code with which it is refused, having checked that the message is one sentence that names the directory and holds
// `what`, and that nothing in the directory has changed.
Code refused(const std::string& path, const std::string& what, const disk_format::Uuid& node = node_uuid) {
  const auto list = [&] {
    std::map<std::string, std::string> files;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path, ignored))
      files[entry.path()] = entry.is_regular_file() ? read_file(entry.path()) : "";
    return files;
  };
  const auto before = list();
  DiskDirectory directory;
  std::string message;
  const Result<void> done = directory.open({.path = path, .node = node}, &message);
  REQUIRE_FALSE(done);
  INFO(message);
  CHECK(message.find(path) != std::string::npos);
  CHECK(message.find(what) != std::string::npos);
  CHECK(message.find('\n') == std::string::npos);
  CHECK(message.find(':') != std::string::npos);
  CHECK(list() == before);
  return done.error().code;
}

void create(const std::string& path) {
  DiskDirectory directory;
  std::string message;
  const Result<void> done = directory.open({.path = path, .node = node_uuid}, &message);
  INFO(message);
  REQUIRE(done);
}

// Runs body in a mount namespace of its own. 0: it returned true; 1: false; 2: no such namespace here.
template <class Body>
int in_own_mounts(Body body) {
  const pid_t child = fork();
  if (child == 0) {
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) _exit(2);
    _exit(body());
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

}  // namespace

TEST_CASE("a cache directory is made, locked, and found again") {
  const TempFolder folder;
  const std::string path = folder / "cache";
  disk_format::Uuid disk;
  {
    DiskDirectory directory;
    std::string message;
    REQUIRE(directory.open({.path = path, .node = node_uuid}, &message));
    CHECK(directory.created());
    CHECK(directory.direct_alignment() >= 512);
    CHECK(directory.direct_alignment() <= 4096);
    disk = directory.disk();
    CHECK_FALSE(disk.is_null());
    struct stat status;
    REQUIRE(stat(path.c_str(), &status) == 0);
    CHECK((status.st_mode & 07777) == 0700);
    for (const char* name : {"objects/00", "objects/ff", "segments", "index"})
      CHECK(std::filesystem::is_directory(path + "/" + name));
    CHECK(std::filesystem::is_empty(path + "/index"));
    // A lock of the process, not of the descriptor, would let this one in.
    CHECK(refused(path, "in use by another process") == Code::again);
    const int other = in_own_mounts([&] {
      DiskDirectory second;
      std::string why;
      const Result<void> done = second.open({.path = path, .node = node_uuid}, &why);
      return !done && done.error().code == Code::again ? 0 : 1;
    });
    CHECK((other == 0 || other == 2));
  }
  DiskDirectory again;
  std::string message;
  REQUIRE(again.open({.path = path, .node = node_uuid}, &message));
  CHECK_FALSE(again.created());
  CHECK(again.disk() == disk);
}

TEST_CASE("what an unfinished creation left is finished") {
  const TempFolder folder;
  write_file(folder / "FORMAT.new", "blob");
  std::filesystem::create_directory(folder / "lost+found");
  create(folder.path());
  CHECK_FALSE(std::filesystem::exists(folder / "FORMAT.new"));
  std::filesystem::remove_all(folder / "index");
  create(folder.path());
  CHECK(std::filesystem::is_directory(folder / "index"));
}

TEST_CASE("what is not ours is refused and left alone") {
  const TempFolder folder;
  const std::string path = folder / "cache";
  create(path);
  CHECK(refused(path, "belongs to another node", {{9, 9}}) == Code::denied);
  const std::string good = read_file(path + "/FORMAT");

  std::string other = disk_format::print({.version = disk_format::version + 1, .node = node_uuid, .disk = disk_uuid});
  write_file(path + "/FORMAT", other);
  CHECK(refused(path, fmt::format("has format version {}", disk_format::version + 1)) == Code::invalid);

  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    if (disk_format::parse_format(bad)) FAIL("accepted a FORMAT with a flipped bit");
  }
  for (size_t bytes = 0; bytes < good.size(); ++bytes)
    if (disk_format::parse_format(good.substr(0, bytes))) FAIL("accepted a FORMAT that was cut");
  for (const std::string& bad : {std::string(), good.substr(0, 40), std::string(5000, 'x')}) {
    write_file(path + "/FORMAT", bad);
    CHECK(refused(path, "damaged") == Code::corrupt);
  }
  write_file(path + "/FORMAT", good);

  REQUIRE(chmod(path.c_str(), 0750) == 0);
  CHECK(refused(path, "chmod 700") == Code::denied);
  REQUIRE(chmod(path.c_str(), 0700) == 0);
  create(path);

  const TempFolder strange;
  write_file(strange / "thesis.txt", "the only copy");
  CHECK(refused(strange.path(), "not a cache directory") == Code::invalid);
  write_file(folder / "file", "");
  CHECK(refused(folder / "file", "Not a directory") == Code::io);
  CHECK(refused(folder / "no/such", "No such file") == Code::io);
}

TEST_CASE("a read-only filesystem is refused, a stacked one is named") {
  const TempFolder folder;
  const int read_only = in_own_mounts([&] {
    const std::string path = folder / "ro";
    create(path);
    if (mount(path.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) != 0) return 2;
    if (mount(nullptr, path.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr) != 0) return 2;
    DiskDirectory directory;
    std::string message;
    const Result<void> done = directory.open({.path = path, .node = node_uuid}, &message);
    return !done && message.find("read-only filesystem") != std::string::npos ? 0 : 1;
  });
  if (read_only == 2) MESSAGE("not tested: a read-only filesystem, because this user may not mount");
  CHECK(read_only != 1);

  const int stacked = in_own_mounts([&] {
    for (const char* name : {"lower", "upper", "work", "merged"}) mkdir((folder / name).c_str(), 0700);
    const std::string layers = fmt::format("lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work", folder.path());
    if (mount("overlay", (folder / "merged").c_str(), "overlay", 0, layers.c_str()) != 0) return 2;
    DiskDirectory directory;
    std::string message;
    const Result<void> done = directory.open({.path = folder / "merged/cache", .node = node_uuid}, &message);
    return done && directory.stacked() ? 0 : 1;
  });
  if (stacked == 2) MESSAGE("not tested: overlayfs, because it cannot be mounted here");
  CHECK(stacked != 1);
  DiskDirectory plain;
  std::string message;
  REQUIRE(plain.open({.path = folder / "plain", .node = node_uuid}, &message));
  CHECK_FALSE(plain.stacked());
}

TEST_CASE("a filesystem without direct I/O is refused") {
  const TempFolder folder;
  // ramfs has no O_DIRECT in any version; tmpfs has since 6.6.
  const int answer = in_own_mounts([&] {
    if (mount("none", folder.path().c_str(), "ramfs", 0, nullptr) != 0) return 2;
    DiskDirectory directory;
    std::string message;
    const Result<void> done = directory.open({.path = folder / "cache", .node = node_uuid}, &message);
    return !done && message.find("O_DIRECT") != std::string::npos ? 0 : 1;
  });
  if (answer == 2) MESSAGE("not tested: a filesystem without direct I/O, because this user may not mount");
  CHECK(answer != 1);
}

TEST_CASE("the stamp of a file changes with whatever is done to it") {
  const TempFolder folder;
  const Result<disk_format::Uuid> boot = boot_id();
  REQUIRE(boot);
  write_file(folder / "a", "1234");
  const int fd = open((folder / "a").c_str(), O_RDWR | O_CLOEXEC);
  const Result<disk_format::FileStamp> first = stamp_of_file(fd, *boot);
  REQUIRE(first);
  CHECK(*first != 0);
  CHECK(*stamp_of_file(fd, *boot) == *first);
  CHECK(*stamp_of_file(fd, {{boot->words[0], boot->words[1] + 1}}) != *first);
  REQUIRE(ftruncate(fd, 3) == 0);
  const disk_format::FileStamp shorter = *stamp_of_file(fd, *boot);
  CHECK(shorter != *first);
  // An old mtime put back leaves its trace in ctime.
  const timespec times[2] = {{1, 0}, {1, 0}};
  REQUIRE(futimens(fd, times) == 0);
  CHECK(*stamp_of_file(fd, *boot) != shorter);
  close(fd);
  write_file(folder / "b", "123");
  const int other = open((folder / "b").c_str(), O_RDWR | O_CLOEXEC);
  CHECK(*stamp_of_file(other, *boot) != *first);
  close(other);
}

}  // namespace blobcache
