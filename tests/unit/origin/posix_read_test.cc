// Reads of real files that stay as they are, and of files that do not.
#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>

#include <sys/mman.h>
#include <sys/stat.h>

#include "base/config.h"
#include "base/limits.h"
#include "unit/origin/posix_fixture.h"

using namespace blobcache_test;

namespace {

std::string pattern(size_t bytes) {
  std::string made(bytes, '\0');
  uint64_t state = 0x9e3779b97f4a7c15ull;
  for (char& byte : made) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    byte = static_cast<char>(state >> 56);
  }
  return made;
}

// Changes the file until its times show it: a change within the granularity of the clock that stamps files cannot be
// seen by anybody, and is what "young" is for.
template <class Change>
void change_visibly(const Tree& tree, const char* key, Change change) {
  const struct stat before = tree.stat(key);
  struct stat after = before;
  while (after.st_mtim.tv_sec == before.st_mtim.tv_sec && after.st_mtim.tv_nsec == before.st_mtim.tv_nsec) {
    change();
    after = tree.stat(key);
  }
}

bool is_stale(const ReadCall& call) { return call.failed && call.error.code == Code::stale; }

}  // namespace

TEST_CASE("bytes at any offset, of any length") {
  const Tree tree;
  const std::string bytes = pattern(300'007);
  tree.write("file", bytes);
  Machine machine(tree.path());
  const auto opened = machine.open("file");
  REQUIRE(!opened->failed);
  for (const Machine::ReadOptions range :
       {Machine::ReadOptions{0, 300'007}, {0, 1}, {300'006, 1}, {4095, 2}, {65'536, 65'536}, {299'000, 1'007}}) {
    const auto read = machine.read(*opened, range);
    CHECK(!read->call.failed);
    CHECK(read->call.times_done == 1);
    CHECK(!read->call.young);
    CHECK(read->bytes == bytes.substr(range.offset, range.bytes));
  }
  machine.close(*opened);
}

TEST_CASE("origin.bandwidth: reads wait for it, a new limit reaches those that wait, and stop ends them") {
  constexpr uint64_t s_ns = 1'000'000'000;
  const Tree tree;
  const std::string bytes = pattern(300'000);
  tree.write("file", bytes);
  Machine machine(tree.path(), 1, 2, 500'000);
  const auto opened = machine.open("file");
  REQUIRE(!opened->failed);
  using Reads = std::vector<std::unique_ptr<Machine::Bytes>>;
  const auto begin_all = [&] {
    Reads reads;
    for (uint64_t i = 0; i < 3; ++i) reads.push_back(machine.begin_read(*opened, {i * 100'000, 100'000}));
    return reads;
  };
  const auto finish_all = [&](const Reads& reads) {
    for (uint64_t i = 0; i < 3; ++i) {
      machine.wait(reads[i]->call);
      CHECK(!reads[i]->call.failed);
      CHECK(reads[i]->bytes == bytes.substr(i * 100'000, 100'000));
    }
  };
  const uint64_t begun_ns = machine.reactor->ring().now_ns();
  finish_all(begin_all());
  // The third is begun when the two before it are paid, less a burst of a tenth of a second.
  CHECK(machine.reactor->ring().now_ns() - begun_ns >= 3 * s_ns / 10);

  OriginConfig config = Config().origin;
  config.bandwidth_bytes = 1000;  // each is worth minutes
  machine.origin->set_limits(config);
  const Reads waiting = begin_all();
  machine.wait(waiting[0]->call);
  CHECK(waiting[2]->call.times_done == 0);
  config.bandwidth_bytes = 0;
  machine.origin->set_limits(config);
  finish_all(waiting);

  config.bandwidth_bytes = 1000;
  machine.origin->set_limits(config);
  const Reads ended = begin_all();
  machine.wait(ended[0]->call);
  machine.origin->stop();
  for (uint64_t i = 1; i < 3; ++i) {
    machine.wait(ended[i]->call);
    CHECK(ended[i]->call.error.code == Code::stopping);
  }
  machine.close(*opened);
}

TEST_CASE("a call can be used again") {
  const Tree tree;
  tree.write("file", "abcdef");
  Machine machine(tree.path());
  const auto opened = machine.open("file");
  const auto read = machine.read(*opened, {.offset = 0, .bytes = 3});
  REQUIRE(read->bytes == "abc");
  read->call.fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  read->call.times_done = 0;
  machine.origin->begin_read(*machine.reactor, read->call);
  machine.wait(read->call);
  CHECK(is_stale(read->call));
  ::close(read->call.fd);
  read->call.fd = opened->fd;
  read->call.offset = 3;
  read->call.times_done = 0;
  machine.origin->begin_read(*machine.reactor, read->call);
  machine.wait(read->call);
  CHECK(!read->call.failed);
  CHECK(read->bytes == "def");
  machine.close(*opened);
}

TEST_CASE("the version alone opens nothing, and a read without a descriptor opens the file") {
  const Tree tree;
  const std::string bytes = pattern(100'000);
  tree.make_directory("folder");
  tree.write("folder/file", bytes);
  Machine machine(tree.path(), /*young_ns=*/1, /*blocking_threads=*/0);
  const size_t descriptors = open_descriptors();
  Waited<OpenCall> opened;
  opened.key = "folder/file";
  opened.version_only = true;
  machine.origin->begin_open(*machine.reactor, opened);
  machine.wait(opened);
  machine.settle();
  REQUIRE(!opened.failed);
  CHECK(opened.fd == -1);
  CHECK(opened.info.version == machine.lookup("folder/file")->info.version);
  machine.settle();
  CHECK(open_descriptors() == descriptors);

  std::string got(1000, '\xee');
  Waited<ReadCall> call;
  call.key = opened.key;
  call.version = opened.info.version;
  call.offset = 99'000;
  call.bytes = 1000;
  call.to = reinterpret_cast<std::byte*>(got.data());
  machine.origin->begin_read(*machine.reactor, call);
  machine.wait(call);
  REQUIRE(!call.failed);
  CHECK(got == bytes.substr(99'000));
  REQUIRE(call.fd >= 0);
  machine.settle();
  CHECK(open_descriptors() == descriptors + 1);
  machine.origin->close(*machine.reactor, call.fd);
  machine.settle();

  // What has the name now is another version, something that is never opened, or nothing.
  const auto is_stale_now = [&] {
    call.fd = -1;
    call.times_done = 0;
    call.failed = false;
    machine.origin->begin_read(*machine.reactor, call);
    machine.wait(call);
    machine.settle();
    return call.fd == -1 && call.times_done == 1 && is_stale(call) && open_descriptors() == descriptors;
  };
  std::filesystem::remove(tree.at("folder/file"));
  CHECK(is_stale_now());
  tree.write("folder/file", bytes);
  CHECK(is_stale_now());
  std::filesystem::remove(tree.at("folder/file"));
  require(::mkfifo(tree.at("folder/file").c_str(), 0644) == 0, "mkfifo");
  CHECK(is_stale_now());
}

TEST_CASE("reads into a registered buffer") {
  const Tree tree;
  const std::string bytes = pattern(200'000);
  tree.write("file", bytes);
  Machine machine(tree.path());
  constexpr size_t buffer_bytes = 256 * limits::KiB;
  void* memory = ::mmap(nullptr, buffer_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  REQUIRE(machine.reactor->ring().register_buffer(5, {memory, buffer_bytes}).has_value());
  const auto opened = machine.open("file");
  Waited<ReadCall> call;
  call.version = opened->info.version;
  call.fd = opened->fd;
  call.offset = 777;
  call.bytes = 150'000;
  call.to = static_cast<std::byte*>(memory) + 4096;
  call.buffer_index = 5;
  machine.origin->begin_read(*machine.reactor, call);
  machine.wait(call);
  CHECK(!call.failed);
  CHECK(std::memcmp(call.to, bytes.data() + 777, 150'000) == 0);

  // Outside of the buffer: the kernel refuses, the call says so.
  call.to = static_cast<std::byte*>(memory) + buffer_bytes;
  call.times_done = 0;
  machine.origin->begin_read(*machine.reactor, call);
  machine.wait(call);
  CHECK(call.failed);
  CHECK(call.error.code == Code::io);
  CHECK(call.error.os_errno == EFAULT);
  machine.close(*opened);
  machine.settle();
  REQUIRE(machine.reactor->ring().register_buffer(5, {nullptr, 0}).has_value());
  ::munmap(memory, buffer_bytes);
}

TEST_CASE("a sparse file beyond 4 GiB") {
  const Tree tree;
  constexpr uint64_t size = 6 * limits::GiB;
  tree.write("sparse", "head");
  require(::truncate(tree.at("sparse").c_str(), size) == 0, "truncate");
  const int fd = ::open(tree.at("sparse").c_str(), O_WRONLY | O_CLOEXEC);
  require(::pwrite(fd, "tail", 4, size - 4) == 4, "pwrite");
  ::close(fd);
  Machine machine(tree.path());
  const auto opened = machine.open("sparse");
  REQUIRE(!opened->failed);
  CHECK(opened->info.attributes.size == size);
  CHECK(opened->info.attributes.blocks * 512 < limits::MiB);
  CHECK(machine.read(*opened, {.offset = 0, .bytes = 4})->bytes == "head");
  CHECK(machine.read(*opened, {.offset = 5 * limits::GiB, .bytes = 4096})->bytes == std::string(4096, '\0'));
  CHECK(machine.read(*opened, {.offset = size - 8, .bytes = 8})->bytes == std::string("\0\0\0\0tail", 8));
  machine.close(*opened);
}

TEST_CASE("changed between open and read, in place: stale") {
  const Tree tree;
  tree.write("file", "old bytes");
  Machine machine(tree.path());
  const auto opened = machine.open("file");
  REQUIRE(machine.read(*opened, {.offset = 0, .bytes = 9})->bytes == "old bytes");
  change_visibly(tree, "file", [&] { tree.write("file", "new bytes", 0); });
  CHECK(is_stale(machine.read(*opened, {.offset = 0, .bytes = 9})->call));

  const auto again = machine.open("file");
  CHECK(!(again->info.version == opened->info.version));
  CHECK(machine.read(*again, {.offset = 0, .bytes = 9})->bytes == "new bytes");
  machine.close(*opened);
  machine.close(*again);
}

TEST_CASE("changed in place with the old mtime put back: stale") {
  const Tree tree;
  tree.write("file", "old bytes");
  Machine machine(tree.path());
  const auto opened = machine.open("file");
  const struct stat before = tree.stat("file");
  change_visibly(tree, "file", [&] { tree.write("file", "new bytes", 0); });
  const timespec times[2] = {before.st_atim, before.st_mtim};
  require(::utimensat(AT_FDCWD, tree.at("file").c_str(), times, 0) == 0, "utimensat");
  CHECK(is_stale(machine.read(*opened, {.offset = 0, .bytes = 9})->call));
  machine.close(*opened);
}

TEST_CASE("truncated or grown while open: stale") {
  const Tree tree;
  const std::string bytes = pattern(100'000);
  tree.write("shorter", bytes);
  tree.write("empty", bytes);
  tree.write("longer", bytes);
  Machine machine(tree.path());
  const auto shorter = machine.open("shorter");
  const auto empty = machine.open("empty");
  const auto longer = machine.open("longer");
  require(::truncate(tree.at("shorter").c_str(), 50'000) == 0, "truncate");
  require(::truncate(tree.at("empty").c_str(), 0) == 0, "truncate");
  tree.write("longer", "more", O_APPEND);
  CHECK(is_stale(machine.read(*shorter, {.offset = 40'000, .bytes = 20'000})->call));  // ends within
  CHECK(is_stale(machine.read(*shorter, {.offset = 60'000, .bytes = 20'000})->call));  // ends before
  CHECK(is_stale(machine.read(*shorter, {.offset = 0, .bytes = 1'000})->call));        // bytes that are still there
  CHECK(is_stale(machine.read(*empty, {.offset = 0, .bytes = 1})->call));
  CHECK(is_stale(machine.read(*longer, {.offset = 0, .bytes = 1'000})->call));
  for (const auto* opened : {&shorter, &empty, &longer}) machine.close(**opened);
}

TEST_CASE("unlinked or replaced by rename while open: the bytes that were opened") {
  const Tree tree;
  tree.write("unlinked", "first file");
  tree.write("replaced", "the second");
  Machine machine(tree.path());
  const auto unlinked = machine.open("unlinked");
  const auto replaced = machine.open("replaced");
  require(::unlink(tree.at("unlinked").c_str()) == 0, "unlink");
  tree.write("new", "NEW SECOND");
  require(::rename(tree.at("new").c_str(), tree.at("replaced").c_str()) == 0, "rename");
  const auto first = machine.read(*unlinked, {.offset = 0, .bytes = 10});
  CHECK(!first->call.failed);
  CHECK(first->bytes == "first file");
  const auto second = machine.read(*replaced, {.offset = 0, .bytes = 10});
  CHECK(!second->call.failed);
  CHECK(second->bytes == "the second");

  const auto now = machine.open("replaced");
  CHECK(!(now->info.version == replaced->info.version));
  CHECK(machine.read(*now, {.offset = 0, .bytes = 10})->bytes == "NEW SECOND");
  CHECK(machine.lookup("unlinked")->error.code == Code::not_found);

  // No name, but a descriptor that writes.
  const int writer = ::open(("/proc/self/fd/" + std::to_string(unlinked->fd)).c_str(), O_WRONLY | O_CLOEXEC);
  require(writer >= 0, "open for writing");
  struct stat before, after;
  require(::fstat(writer, &before) == 0, "fstat");
  do {
    require(::pwrite(writer, "F", 1, 0) == 1 && ::fstat(writer, &after) == 0, "pwrite");
  } while (after.st_mtim.tv_sec == before.st_mtim.tv_sec && after.st_mtim.tv_nsec == before.st_mtim.tv_nsec);
  ::close(writer);
  CHECK(is_stale(machine.read(*unlinked, {.offset = 0, .bytes = 10})->call));
  for (const auto* opened : {&unlinked, &replaced, &now}) machine.close(**opened);
}

TEST_CASE("made unreadable while open: never bytes of another version") {
  const Tree tree;
  tree.write("file", "bytes");
  Machine machine(tree.path());
  const auto opened = machine.open("file");
  const auto before = opened->info.version;
  require(::chmod(tree.at("file").c_str(), 0) == 0, "chmod");
  const auto read = machine.read(*opened, {.offset = 0, .bytes = 5});
  const bool seen = !(machine.lookup("file")->info.version == before);
  CHECK(is_stale(read->call) == seen);
  if (!seen) CHECK(read->bytes == "bytes");
  machine.close(*opened);
}

TEST_CASE("a version of another file, or none, is stale") {
  const Tree tree;
  tree.write("one", "same size");
  tree.write("two", "same size");
  Machine machine(tree.path());
  const auto one = machine.open("one");
  const auto two = machine.open("two");
  std::swap(one->info.version, two->info.version);
  CHECK(is_stale(machine.read(*one, {.offset = 0, .bytes = 9})->call));
  one->info.version = FileVersion{};
  const auto read = machine.read(*one, {.offset = 0, .bytes = 9});
  CHECK(is_stale(read->call));
  CHECK(read->call.young);
  machine.close(*one);
  machine.close(*two);
}

TEST_CASE("a directory has no bytes") {
  const Tree tree;
  Machine machine(tree.path());
  const auto opened = machine.open("");
  const auto read = machine.read(*opened, {.offset = 0, .bytes = 1});
  CHECK(read->call.failed);
  CHECK(read->call.error == Error{Code::invalid, EISDIR});
  machine.close(*opened);
}

TEST_CASE("many reads in flight on one descriptor") {
  const Tree tree;
  const std::string bytes = pattern(1'000'000);
  tree.write("file", bytes);
  Machine machine(tree.path());
  const auto opened = machine.open("file");
  constexpr uint32_t piece = 9'973;
  std::vector<std::unique_ptr<Waited<ReadCall>>> calls;
  std::string got(bytes.size(), '\0');
  for (uint64_t offset = 0; offset < bytes.size(); offset += piece) {
    auto& call = *calls.emplace_back(std::make_unique<Waited<ReadCall>>());
    call.version = opened->info.version;
    call.fd = opened->fd;
    call.offset = offset;
    call.bytes = static_cast<uint32_t>(std::min<uint64_t>(piece, bytes.size() - offset));
    call.to = reinterpret_cast<std::byte*>(got.data() + offset);
    machine.origin->begin_read(*machine.reactor, call);
  }
  machine.settle();
  for (const auto& call : calls) {
    CHECK(call->times_done == 1);
    CHECK(!call->failed);
  }
  CHECK(got == bytes);
  machine.close(*opened);
}
