// Files: reads, writes, registered buffers and files, paths.
#include <cstring>

#include <fcntl.h>
#include <linux/openat2.h>

#include <doctest/doctest.h>

#include "base/limits.h"
#include "ring_conformance/worlds.h"

namespace blobcache_test {
namespace {

using namespace blobcache;  // NOLINT: prep_*

std::string pattern(size_t bytes) {
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>('a' + i % 23);
  return text;
}

template <class World>
int32_t open_at(World& world, Ring& ring, const char* path, uint64_t flags, uint64_t resolve) {
  const open_how how{.flags = flags, .mode = 0, .resolve = resolve};
  return run_one(ring, [&](Sqe& sqe) { prep_openat2(sqe, world.root(), path, &how); });
}

TEST_CASE_TEMPLATE("READ: whole, short at the end, nothing beyond it", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  const std::string bytes = pattern(10'000);
  world.add_file("file", bytes);
  const FileRef file = FileRef::fd(world.open("file", O_RDONLY));
  std::string to(10'000, '?');
  auto read = [&](uint64_t offset, uint32_t count) {
    to.assign(10'000, '?');
    return run_one(*ring, [&](Sqe& sqe) { prep_read(sqe, file, to.data(), {.offset = offset, .bytes = count}); });
  };
  CHECK(read(0, 10'000) == 10'000);
  CHECK(to == bytes);
  CHECK(read(4096, 100) == 100);
  CHECK(to.substr(0, 101) == bytes.substr(4096, 100) + "?");
  CHECK(read(9'000, 10'000) == 1'000);
  CHECK(to.substr(0, 1'001) == bytes.substr(9'000) + "?");
  CHECK(read(10'000, 1) == 0);
  CHECK(read(1'000'000, 4096) == 0);
  CHECK(read(0, 0) == 0);
  world.close(file.number);
}

TEST_CASE_TEMPLATE("READ and WRITE refuse what cannot be", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  world.add_file("file", "text");
  char to[16];
  auto read = [&](FileRef file) {
    return run_one(*ring, [&](Sqe& sqe) { prep_read(sqe, file, to, {.offset = 0, .bytes = sizeof to}); });
  };
  auto write = [&](FileRef file) {
    return run_one(*ring, [&](Sqe& sqe) { prep_write(sqe, file, "x", {.offset = 0, .bytes = 1}); });
  };
  const int write_only = world.open("file", O_WRONLY);
  const int read_only = world.open("file", O_RDONLY);
  const int path_only = world.open("file", O_PATH);
  CHECK(read(FileRef::fd(write_only)) == -EBADF);
  CHECK(write(FileRef::fd(read_only)) == -EBADF);
  CHECK(read(FileRef::fd(path_only)) == -EBADF);
  CHECK(read(FileRef::fd(world.root())) == -EISDIR);
  CHECK(read(FileRef::fd(999'999)) == -EBADF);
  CHECK(read(FileRef::fixed(3)) == -EBADF);
  CHECK(read(FileRef::fixed(limits::ring_files_max)) == -EBADF);
  world.close(write_only);
  world.close(read_only);
  world.close(path_only);
  CHECK(read(FileRef::fd(read_only)) == -EBADF);
}

TEST_CASE_TEMPLATE("WRITE, WRITEV and READV move the bytes they say", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  world.add_file("file", "");
  const FileRef file = FileRef::fd(world.open("file", O_RDWR));
  CHECK(run_one(*ring, [&](Sqe& sqe) { prep_write(sqe, file, "0123456789", {.offset = 0, .bytes = 10}); }) == 10);
  CHECK(run_one(*ring, [&](Sqe& sqe) { prep_write(sqe, file, "end", {.offset = 13, .bytes = 3}); }) == 3);
  CHECK(world.content("file") == std::string("0123456789\0\0\0end", 16));
  char first[] = "AB";
  char second[] = "CDE";
  const iovec from[] = {{first, 2}, {second, 3}};
  CHECK(run_one(*ring, [&](Sqe& sqe) { prep_writev(sqe, file, from, 4); }) == 5);
  CHECK(world.content("file") == std::string("0123ABCDE9\0\0\0end", 16));
  char head[3] = {};
  char tail[20] = {};
  const iovec to[] = {{head, 3}, {tail, 20}};
  CHECK(run_one(*ring, [&](Sqe& sqe) { prep_readv(sqe, file, to, 3); }) == 13);
  CHECK(std::string(head, 3) == "3AB");
  CHECK(std::string(tail, 10) == std::string("CDE9\0\0\0end", 10));
  world.close(file.number);
}

TEST_CASE_TEMPLATE("registered buffers are used within their bounds only", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  const std::string bytes = pattern(20'000);
  world.add_file("file", bytes);
  const FileRef file = FileRef::fd(world.open("file", O_RDWR));
  alignas(4096) static char memory[4 * 4096];
  std::memset(memory, '?', sizeof memory);
  char* const buffer = memory + 4096;
  REQUIRE(ring->register_buffer(5, {buffer, 8192}).has_value());
  auto read = [&](char* to, uint32_t count, unsigned index) {
    return run_one(*ring, [&](Sqe& sqe) { prep_read_fixed(sqe, file, to, {.offset = 100, .bytes = count}, index); });
  };
  CHECK(read(buffer, 8192, 5) == 8192);
  CHECK(std::string(buffer, 8192) == bytes.substr(100, 8192));
  CHECK(read(buffer + 8000, 192, 5) == 192);
  CHECK(read(buffer + 8000, 193, 5) == -EFAULT);
  CHECK(read(buffer - 1, 10, 5) == -EFAULT);
  CHECK(read(buffer + 8192, 1, 5) == -EFAULT);
  CHECK(read(buffer, 10, 6) == -EFAULT);
  CHECK(read(buffer, 10, limits::ring_buffers_max) == -EFAULT);
  CHECK(memory[4095] == '?');
  CHECK(memory[4096 + 8192] == '?');
  auto write = [&](uint32_t count) {
    return run_one(*ring, [&](Sqe& sqe) { prep_write_fixed(sqe, file, buffer, {.offset = 0, .bytes = count}, 5); });
  };
  CHECK(write(8193) == -EFAULT);
  CHECK(write(50) == 50);
  CHECK(world.content("file") == bytes.substr(100, 50) + bytes.substr(50));
  world.close(file.number);
}

TEST_CASE_TEMPLATE("a registered file stays open when its descriptor is closed", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  world.add_file("file", "bytes");
  const int fd = world.open("file", O_RDONLY);
  REQUIRE(ring->register_file(9, fd).has_value());
  world.close(fd);
  char to[8] = {};
  auto read = [&] {
    return run_one(*ring, [&](Sqe& sqe) { prep_read(sqe, FileRef::fixed(9), to, {.offset = 0, .bytes = 8}); });
  };
  CHECK(read() == 5);
  CHECK(std::string(to, 5) == "bytes");
  REQUIRE(ring->register_file(9, -1).has_value());
  CHECK(read() == -EBADF);
  CHECK(ring->register_file(10, fd).error().os_errno == EBADF);
}

TEST_CASE_TEMPLATE("RESOLVE_BENEATH: nothing leads out of the tree", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  world.add_file("outside", "secret");
  world.add_directory("tree");
  world.add_directory("tree/sub");
  world.add_file("tree/file", "in");
  world.add_symlink("tree/up", "../outside");
  world.add_symlink("tree/sub/far", "../../outside");
  world.add_symlink("tree/sub/near", "../file");
  world.add_symlink("tree/absolute", world.absolute("tree/file"));
  const open_how tree_how{.flags = O_RDONLY | O_DIRECTORY, .mode = 0, .resolve = 0};
  const int tree = run_one(*ring, [&](Sqe& sqe) { prep_openat2(sqe, world.root(), "tree", &tree_how); });
  REQUIRE(tree >= 0);
  auto open_beneath = [&](const std::string& path) {
    const open_how how{.flags = O_RDONLY, .mode = 0, .resolve = RESOLVE_BENEATH};
    const int fd = run_one(*ring, [&](Sqe& sqe) { prep_openat2(sqe, tree, path.c_str(), &how); });
    if (fd < 0) return fd;
    world.close(fd);
    return 0;
  };
  CHECK(open_beneath("file") == 0);
  CHECK(open_beneath("sub/../file") == 0);
  CHECK(open_beneath("sub/near") == 0);
  CHECK(open_beneath(".") == 0);
  CHECK(open_beneath("..") == -EXDEV);
  CHECK(open_beneath("../outside") == -EXDEV);
  CHECK(open_beneath("../tree/file") == -EXDEV);
  CHECK(open_beneath("sub/../../outside") == -EXDEV);
  CHECK(open_beneath("up") == -EXDEV);
  CHECK(open_beneath("sub/far") == -EXDEV);
  CHECK(open_beneath("absolute") == -EXDEV);
  CHECK(open_beneath(world.absolute("tree/file")) == -EXDEV);
  CHECK(open_beneath("/") == -EXDEV);
  world.close(tree);
}

TEST_CASE_TEMPLATE("OPENAT2: what each flag refuses", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  world.add_directory("sub");
  world.add_file("file", "text");
  world.add_symlink("link", "file");
  world.add_symlink("to_sub", "sub");
  world.add_symlink("loop", "loop");
  world.add_symlink("dangling", "nowhere");
  auto open = [&](const char* path, uint64_t flags, uint64_t resolve = 0) {
    const int fd = open_at(world, *ring, path, flags, resolve);
    if (fd < 0) return fd;
    world.close(fd);
    return 0;
  };
  CHECK(open("file", O_RDONLY) == 0);
  CHECK(open("link", O_RDONLY) == 0);
  CHECK(open("sub", O_RDONLY | O_DIRECTORY) == 0);
  CHECK(open("to_sub/", O_RDONLY) == 0);
  CHECK(open("", O_RDONLY) == -ENOENT);
  CHECK(open("missing", O_RDONLY) == -ENOENT);
  CHECK(open("missing/file", O_RDONLY) == -ENOENT);
  CHECK(open("dangling", O_RDONLY) == -ENOENT);
  CHECK(open("file/below", O_RDONLY) == -ENOTDIR);
  CHECK(open("file/", O_RDONLY) == -ENOTDIR);
  CHECK(open("file", O_RDONLY | O_DIRECTORY) == -ENOTDIR);
  CHECK(open("sub", O_RDWR) == -EISDIR);
  CHECK(open("link", O_RDONLY | O_NOFOLLOW) == -ELOOP);
  CHECK(open("link", O_PATH | O_NOFOLLOW) == 0);
  CHECK(open("loop", O_RDONLY) == -ELOOP);
  CHECK(open("link", O_RDONLY, RESOLVE_NO_SYMLINKS) == -ELOOP);
  CHECK(open("to_sub/.", O_RDONLY, RESOLVE_NO_SYMLINKS) == -ELOOP);
  CHECK(open(std::string(256, 'n').c_str(), O_RDONLY) == -ENAMETOOLONG);
  CHECK(open(std::string(255, 'n').c_str(), O_RDONLY) == -ENOENT);
  CHECK(open(std::string(5000, 'n').c_str(), O_RDONLY) == -ENAMETOOLONG);
  CHECK(open("file", O_RDONLY, uint64_t{1} << 40) == -EINVAL);
  const open_how how{.flags = O_RDONLY, .mode = 0, .resolve = 0};
  CHECK(run_one(*ring, [&](Sqe& sqe) { prep_openat2(sqe, 999'999, "file", &how); }) == -EBADF);
  const int file = world.open("file", O_RDONLY);
  CHECK(run_one(*ring, [&](Sqe& sqe) { prep_openat2(sqe, file, "file", &how); }) == -ENOTDIR);
  world.close(file);
}

TEST_CASE_TEMPLATE("OPENAT2 creates, truncates, and then CLOSE ends the descriptor", World, KernelWorld,
                   SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  world.add_file("old", "text");
  const open_how exclusive{.flags = O_RDWR | O_CREAT | O_EXCL, .mode = 0600, .resolve = RESOLVE_BENEATH};
  auto create = [&](const char* path) {
    return run_one(*ring, [&](Sqe& sqe) { prep_openat2(sqe, world.root(), path, &exclusive); });
  };
  CHECK(create("old") == -EEXIST);
  const int made = create("new");
  REQUIRE(made >= 0);
  CHECK(run_one(*ring, [&](Sqe& sqe) { prep_write(sqe, FileRef::fd(made), "n", {.offset = 0, .bytes = 1}); }) == 1);
  CHECK(world.content("new") == "n");
  const int truncated = open_at(world, *ring, "old", O_WRONLY | O_TRUNC, 0);
  REQUIRE(truncated >= 0);
  CHECK(world.content("old").empty());
  for (const int fd : {made, truncated}) {
    CHECK(run_one(*ring, [&](Sqe& sqe) { prep_close(sqe, fd); }) == 0);
    CHECK(run_one(*ring, [&](Sqe& sqe) { prep_close(sqe, fd); }) == -EBADF);
  }
}

TEST_CASE_TEMPLATE("STATX of names, links and descriptors", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  world.add_directory("sub");
  world.add_file("sub/file", "12345");
  world.add_symlink("link", "sub/file");
  struct statx out{};
  auto statx_of = [&](int directory, const char* path, int flags) {
    std::memset(&out, 0, sizeof out);
    const StatxArguments arguments{.directory_fd = directory, .path = path, .flags = flags, .mask = STATX_BASIC_STATS};
    return run_one(*ring, [&](Sqe& sqe) { prep_statx(sqe, arguments, &out); });
  };
  CHECK(statx_of(world.root(), "sub/file", 0) == 0);
  CHECK(out.stx_size == 5);
  CHECK((out.stx_mode & S_IFMT) == S_IFREG);
  CHECK(out.stx_nlink == 1);
  CHECK((out.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
  const uint64_t inode = out.stx_ino;
  CHECK(statx_of(world.root(), "link", 0) == 0);
  CHECK(out.stx_ino == inode);
  CHECK(statx_of(world.root(), "link", AT_SYMLINK_NOFOLLOW) == 0);
  CHECK((out.stx_mode & S_IFMT) == S_IFLNK);
  CHECK(out.stx_size == 8);
  CHECK(statx_of(world.root(), "sub", 0) == 0);
  CHECK((out.stx_mode & S_IFMT) == S_IFDIR);
  const int fd = world.open("sub/file", O_RDONLY);
  CHECK(statx_of(fd, "", AT_EMPTY_PATH) == 0);
  CHECK(out.stx_ino == inode);
  CHECK(statx_of(fd, "below", 0) == -ENOTDIR);
  world.close(fd);
  CHECK(statx_of(fd, "", AT_EMPTY_PATH) == -EBADF);
  CHECK(statx_of(world.root(), "", 0) == -ENOENT);
  CHECK(statx_of(world.root(), "missing", 0) == -ENOENT);
  CHECK(statx_of(999'999, "missing", 0) == -EBADF);
}

}  // namespace
}  // namespace blobcache_test
