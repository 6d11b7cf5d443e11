// Lookup, open and close on real files through the kernel's ring.
#include <doctest/doctest.h>

#include <climits>
#include <cstring>

#include <poll.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include "unit/origin/posix_fixture.h"

using namespace blobcache_test;

namespace {

bool fails_with(const OriginCall& call, Code code, int os_errno) {
  return call.failed && call.error == Error{code, os_errno};
}

void make_socket(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  require(path.size() < sizeof address.sun_path, "socket path");
  std::memcpy(address.sun_path, path.data(), path.size());
  require(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "bind");
  ::close(fd);
}

// Counts opens for reading or writing of the entries of a directory; O_PATH is none.
class OpenWatch {
 public:
  explicit OpenWatch(const std::string& directory) : fd_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    require(::inotify_add_watch(fd_, directory.c_str(), IN_OPEN) >= 0, "inotify_add_watch");
  }
  ~OpenWatch() { ::close(fd_); }
  OpenWatch(const OpenWatch&) = delete;
  OpenWatch& operator=(const OpenWatch&) = delete;

  std::vector<std::string> opened() const {
    std::vector<std::string> names;
    alignas(inotify_event) char events[4096];
    for (ssize_t bytes = 0; (bytes = ::read(fd_, events, sizeof events)) > 0;) {
      for (ssize_t at = 0; at < bytes;) {
        const auto* event = reinterpret_cast<const inotify_event*>(events + at);
        if (event->len > 0) names.emplace_back(event->name);
        at += static_cast<ssize_t>(sizeof *event + event->len);
      }
    }
    return names;
  }

 private:
  int fd_;
};

}  // namespace

TEST_CASE("lookup shows what lstat shows") {
  const Tree tree;
  tree.write("plain", "twelve bytes");
  require(::chmod(tree.at("plain").c_str(), 04751) == 0, "chmod");
  tree.make_directory("directory");
  tree.write("directory/inner", "x");
  require(::symlink("nowhere/at all", tree.at("link").c_str()) == 0, "symlink");
  require(::mkfifo(tree.at("fifo").c_str(), 0640) == 0, "mkfifo");
  make_socket(tree.at("socket"));
  std::vector<std::string> keys{"", "plain", "directory", "directory/inner", "link", "fifo", "socket"};
  if (::mknod(tree.at("device").c_str(), S_IFCHR | 0600, makedev(0x1ab, 0x2cdef)) == 0) {
    keys.emplace_back("device");
  } else {
    MESSAGE("not tested: device nodes, for lack of CAP_MKNOD");
  }

  Machine machine(tree.path());
  for (const std::string& key : keys) {
    CAPTURE(key);
    const auto call = machine.lookup(key);
    REQUIRE(!call->failed);
    CHECK(call->times_done == 1);
    const FileAttributes& shown = call->info.attributes;
    const struct stat expected = tree.stat(key);
    CHECK(shown.ino == expected.st_ino);
    CHECK(shown.size == static_cast<uint64_t>(expected.st_size));
    CHECK(shown.blocks == static_cast<uint64_t>(expected.st_blocks));
    CHECK(shown.mode == expected.st_mode);
    CHECK(shown.nlink == expected.st_nlink);
    CHECK(shown.uid == expected.st_uid);
    CHECK(shown.gid == expected.st_gid);
    CHECK(shown.block_size == static_cast<uint32_t>(expected.st_blksize));
    CHECK(shown.atime == TimePoint{expected.st_atim.tv_sec, static_cast<uint32_t>(expected.st_atim.tv_nsec)});
    CHECK(shown.mtime == TimePoint{expected.st_mtim.tv_sec, static_cast<uint32_t>(expected.st_mtim.tv_nsec)});
    CHECK(shown.ctime == TimePoint{expected.st_ctim.tv_sec, static_cast<uint32_t>(expected.st_ctim.tv_nsec)});
    CHECK(call->info.key_in_identity == !S_ISREG(expected.st_mode));
    CHECK(call->info.version.length > 0);
    if (key == "device") CHECK(shown.rdev == (0xefu | (0x1abu << 8) | (0x2cd00u << 12)));
  }
}

TEST_CASE("lookup of what is not there") {
  const Tree tree;
  tree.write("file", "x");
  Machine machine(tree.path());
  CHECK(fails_with(*machine.lookup("missing"), Code::not_found, ENOENT));
  CHECK(fails_with(*machine.lookup("file/below"), Code::not_found, ENOTDIR));
  CHECK(fails_with(*machine.open("missing"), Code::not_found, ENOENT));
}

TEST_CASE("keys that are none, and nothing outside of the root") {
  const Tree tree;
  tree.make_directory("root");
  tree.make_directory("root/a");
  tree.write("root/a/file", "x");
  tree.write("secret", "outside");
  Machine machine(tree.at("root"));
  const std::string nul("a\0b", 3);
  for (const std::string& key :
       {std::string(".."), std::string("../secret"), std::string("a/../../secret"), std::string("a/.."),
        std::string("a/../a/file"), std::string("."), std::string("./a"), std::string("a/."), std::string("/"),
        std::string("/etc"), std::string("a//file"), std::string("a/"), nul}) {
    CAPTURE(key);
    CHECK(fails_with(*machine.lookup(key), Code::invalid, EINVAL));
    CHECK(fails_with(*machine.open(key), Code::invalid, EINVAL));
  }
  for (const std::string& key : {std::string("..."), std::string("a/..b"), std::string(".a")}) {
    CHECK(fails_with(*machine.lookup(key), Code::not_found, ENOENT));
  }
}

TEST_CASE("symlinks are shown, never followed") {
  const Tree tree;
  tree.make_directory("root");
  tree.make_directory("root/real");
  tree.write("root/real/file", "inside");
  tree.write("secret", "outside");
  require(::symlink("real", tree.at("root/middle").c_str()) == 0, "symlink");
  require(::symlink("..", tree.at("root/up").c_str()) == 0, "symlink");
  require(::symlink("real/file", tree.at("root/last").c_str()) == 0, "symlink");
  Machine machine(tree.at("root"));
  for (const char* key : {"middle/file", "up/secret"}) {
    CAPTURE(key);
    CHECK(fails_with(*machine.lookup(key), Code::invalid, ELOOP));
    CHECK(fails_with(*machine.open(key), Code::invalid, ELOOP));
  }
  CHECK(S_ISLNK(machine.lookup("last")->info.attributes.mode));
  CHECK(fails_with(*machine.open("last"), Code::invalid, ELOOP));
  CHECK(!machine.lookup("real/file")->failed);
}

TEST_CASE("long names and long paths") {
  const Tree tree;
  const std::string name_max(NAME_MAX, 'n');
  tree.write(name_max, "x");
  Machine machine(tree.path());
  CHECK(!machine.lookup(name_max)->failed);
  CHECK(fails_with(*machine.lookup(name_max + "n"), Code::invalid, ENAMETOOLONG));
  std::string path;
  while (path.size() < PATH_MAX) path += path.empty() ? "d" : "/d";
  CHECK(fails_with(*machine.lookup(path), Code::invalid, ENAMETOOLONG));
  CHECK(fails_with(*machine.open(path), Code::invalid, ENAMETOOLONG));
  path.resize(PATH_MAX - 1);
  CHECK(fails_with(*machine.lookup(path), Code::not_found, ENOENT));
}

TEST_CASE("names are bytes") {
  const Tree tree;
  Machine machine(tree.path());
  for (const char* name : {"line\nbreak", "\xff\xfe invalid \xc3", " ", "\\", "-rf *", "\x01\x7f"}) {
    tree.write(name, name);
    const auto opened = machine.open(name);
    REQUIRE(!opened->failed);
    const auto read = machine.read(*opened, {.offset = 0, .bytes = static_cast<uint32_t>(std::strlen(name))});
    CHECK(!read->call.failed);
    CHECK(read->bytes == name);
    machine.close(*opened);
  }
}

TEST_CASE("hard links share version and inode number") {
  const Tree tree;
  tree.write("one", "same bytes");
  tree.make_directory("directory");
  require(::link(tree.at("one").c_str(), tree.at("directory/two").c_str()) == 0, "link");
  tree.write("other", "same bytes");
  Machine machine(tree.path());
  const auto one = machine.lookup("one");
  const auto two = machine.lookup("directory/two");
  const auto other = machine.lookup("other");
  CHECK(one->info.version == two->info.version);
  CHECK(one->info.attributes.ino == two->info.attributes.ino);
  CHECK(one->info.attributes.nlink == 2);
  CHECK(!one->info.key_in_identity);
  CHECK(!(one->info.version == other->info.version));
}

TEST_CASE("inode numbers of another filesystem below the root do not collide with the root's") {
  struct stat root, below;
  require(::lstat("/", &root) == 0 && ::lstat("/proc", &below) == 0, "lstat");
  REQUIRE(root.st_dev != below.st_dev);
  Machine machine("/");
  const auto lookup = machine.lookup("proc");
  REQUIRE(!lookup->failed);
  CHECK((lookup->info.attributes.ino >> 63) == 1);
  CHECK(lookup->info.attributes.ino == machine.lookup("proc")->info.attributes.ino);
  CHECK(machine.lookup("")->info.attributes.ino == root.st_ino);
}

TEST_CASE("the root is the directory that had the name at the start") {
  const Tree tree;
  tree.make_directory("root");
  tree.write("root/file", "old tree");
  Machine machine(tree.at("root"));
  require(::rename(tree.at("root").c_str(), tree.at("moved").c_str()) == 0, "rename");
  tree.make_directory("root");
  tree.write("root/file", "new tree!");
  const auto opened = machine.open("file");
  REQUIRE(!opened->failed);
  CHECK(opened->info.attributes.ino == tree.stat("moved/file").st_ino);
  machine.close(*opened);

  std::filesystem::remove_all(tree.at("moved"));
  CHECK(fails_with(*machine.lookup("file"), Code::not_found, ENOENT));
  CHECK(!machine.lookup("")->failed);
}

TEST_CASE("open takes files and directories; nothing else is ever opened") {
  const Tree tree;
  tree.write("plain", "bytes");
  tree.make_directory("directory");
  require(::mkfifo(tree.at("fifo").c_str(), 0644) == 0, "mkfifo");
  make_socket(tree.at("socket"));
  const bool has_device = ::mknod(tree.at("device").c_str(), S_IFCHR | 0600, makedev(1, 3)) == 0;
  if (!has_device) MESSAGE("not tested: device nodes, for lack of CAP_MKNOD");
  Machine machine(tree.path());
  const OpenWatch watch(tree.path());
  CHECK(fails_with(*machine.open("fifo"), Code::invalid, EINVAL));
  CHECK(fails_with(*machine.open("socket"), Code::invalid, EINVAL));
  if (has_device) CHECK(fails_with(*machine.open("device"), Code::invalid, EINVAL));
  CHECK(watch.opened().empty());

  const auto plain = machine.open("plain");
  REQUIRE(!plain->failed);
  CHECK(watch.opened() == std::vector<std::string>{"plain"});
  CHECK(S_ISREG(plain->info.attributes.mode));
  CHECK(plain->info.version == machine.lookup("plain")->info.version);
  const int flags = ::fcntl(plain->fd, F_GETFL);
  CHECK((flags & O_ACCMODE) == O_RDONLY);
  // With it, reads on a filesystem without nowait support would fail with EAGAIN.
  CHECK((flags & O_NONBLOCK) == 0);
  CHECK((::fcntl(plain->fd, F_GETFD) & FD_CLOEXEC) != 0);
  machine.close(*plain);

  for (const char* key : {"directory", ""}) {
    const auto directory = machine.open(key);
    REQUIRE(!directory->failed);
    CHECK(S_ISDIR(directory->info.attributes.mode));
    CHECK(directory->info.attributes.ino == tree.stat(key).st_ino);
    machine.close(*directory);
  }
}

TEST_CASE("young: changed within young_ns, or stamped by a clock ahead of ours") {
  const Tree tree;
  tree.write("file", "x");
  Machine patient(tree.path(), /*young_ns=*/3'600'000'000'000);
  CHECK(patient.lookup("file")->info.young);
  Machine hasty(tree.path(), /*young_ns=*/1);
  CHECK(!hasty.lookup("file")->info.young);
  const timespec future[2] = {{::time(nullptr) + 86400, 0}, {::time(nullptr) + 86400, 0}};
  require(::utimensat(AT_FDCWD, tree.at("file").c_str(), future, 0) == 0, "utimensat");
  CHECK(hasty.lookup("file")->info.young);
  const auto opened = hasty.open("file");
  CHECK(opened->info.young);
  const auto read = hasty.read(*opened, {.offset = 0, .bytes = 1});
  CHECK(!read->call.failed);
  CHECK(read->call.young);
  hasty.close(*opened);
}

TEST_CASE("no descriptor is left behind, whatever the outcome") {
  const Tree tree;
  tree.write("file", "x");
  require(::mkfifo(tree.at("fifo").c_str(), 0644) == 0, "mkfifo");
  require(::symlink("file", tree.at("link").c_str()) == 0, "symlink");
  // No helper threads: each opens a ring of its own when it comes to run.
  Machine machine(tree.path(), /*young_ns=*/1, /*blocking_threads=*/0);
  const size_t before = open_descriptors();
  for (int round = 0; round < 20; ++round) {
    for (const char* key : {"file", "fifo", "link", "missing", "file/x", "..", ""}) {
      machine.lookup(key);
      const auto opened = machine.open(key);
      if (!opened->failed) machine.close(*opened);
    }
  }
  machine.settle();
  CHECK(open_descriptors() == before);
}

TEST_CASE("calls in flight together end once each") {
  const Tree tree;
  tree.write("file", "x");
  Machine machine(tree.path());
  std::vector<std::unique_ptr<Waited<OpenCall>>> calls;
  for (int i = 0; i < 300; ++i) {
    calls.push_back(std::make_unique<Waited<OpenCall>>());
    calls.back()->key = i % 3 == 0 ? "missing" : "file";
    machine.origin->begin_open(*machine.reactor, *calls.back());
  }
  machine.settle();
  for (size_t i = 0; i < calls.size(); ++i) {
    CHECK(calls[i]->times_done == 1);
    CHECK(calls[i]->failed == (i % 3 == 0));
    if (!calls[i]->failed) machine.close(*calls[i]);
  }
}

TEST_CASE("after stop every call is refused") {
  const Tree tree;
  tree.write("file", "x");
  Machine machine(tree.path());
  const auto opened = machine.open("file");
  machine.origin->stop();
  CHECK(fails_with(*machine.lookup("file"), Code::stopping, 0));
  CHECK(fails_with(*machine.open("file"), Code::stopping, 0));
  CHECK(fails_with(machine.read(*opened, {.offset = 0, .bytes = 1})->call, Code::stopping, 0));
  Waited<StatfsCall> statfs;
  machine.origin->begin_statfs(*machine.reactor, statfs);
  CHECK(fails_with(statfs, Code::stopping, 0));
  CHECK(machine.origin->join(60'000));
  machine.close(*opened);
}

TEST_CASE("what may not be read is denied") {
  if (::geteuid() != 0) {
    MESSAGE("not tested: unreadable files, for lack of another user to be");
    return;
  }
  const Tree tree;
  require(::chmod(tree.path().c_str(), 0755) == 0, "chmod");
  tree.write("unreadable", "x");
  require(::chmod(tree.at("unreadable").c_str(), 0600) == 0, "chmod");
  tree.write("readable", "y");
  tree.make_directory("closed");
  tree.write("closed/file", "x");
  require(::chmod(tree.at("closed").c_str(), 0700) == 0, "chmod");
  const int wrong = run_as_stranger([&] {
    Machine machine(tree.path());
    // The name may be seen, the bytes may not.
    if (machine.lookup("unreadable")->failed) return 1;
    if (!fails_with(*machine.open("unreadable"), Code::denied, EACCES)) return 2;
    if (!fails_with(*machine.lookup("closed/file"), Code::denied, EACCES)) return 3;
    if (!fails_with(*machine.open("closed"), Code::denied, EACCES)) return 4;
    const auto opened = machine.open("readable");
    if (opened->failed || machine.read(*opened, {.offset = 0, .bytes = 1})->bytes != "y") return 5;
    machine.close(*opened);
    const auto created = create_posix_origin({.root = tree.at("closed/below"), .blocking_threads = 0});
    if (created.has_value() || created.error() != Error{Code::denied, EACCES}) return 6;
    return 0;
  });
  CHECK(wrong == 0);
}

TEST_CASE("a root that cannot be one") {
  const Tree tree;
  tree.write("file", "x");
  require(::symlink("gone", tree.at("dangling").c_str()) == 0, "symlink");
  const auto error_of = [](const std::string& root) {
    const auto created = create_posix_origin({.root = root, .blocking_threads = 0});
    REQUIRE(!created.has_value());
    return created.error();
  };
  CHECK(error_of(tree.at("missing")) == Error{Code::not_found, ENOENT});
  CHECK(error_of(tree.at("dangling")) == Error{Code::not_found, ENOENT});
  CHECK(error_of("") == Error{Code::not_found, ENOENT});
  CHECK(error_of(tree.at("file")) == Error{Code::invalid, ENOTDIR});
  CHECK(error_of(tree.at("file/x")) == Error{Code::invalid, ENOTDIR});
}

TEST_CASE("without /proc there is no origin") {
  if (::geteuid() != 0) {
    MESSAGE("not tested: a machine without /proc, for lack of CAP_SYS_CHROOT");
    return;
  }
  const Tree tree;
  tree.make_directory("sub");
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::chroot(tree.path().c_str()) != 0 || ::chdir("/") != 0) ::_exit(1);
    const auto created = create_posix_origin({.root = "/sub", .blocking_threads = 0});
    ::_exit(!created.has_value() && created.error() == Error{Code::denied, ENOSYS} ? 0 : 2);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("the canonical source names host and real path") {
  const Tree tree;
  tree.make_directory("real");
  require(::symlink("real", tree.at("alias").c_str()) == 0, "symlink");
  char host[HOST_NAME_MAX + 1] = {};
  require(::gethostname(host, sizeof host - 1) == 0, "gethostname");
  const Machine machine(tree.at("alias"));
  const std::string real = std::filesystem::canonical(tree.at("real"));
  CHECK(machine.origin->canonical_source() == "file://" + std::string(host) + real);
}
