// Listings, symlink targets and filesystem figures, on helper threads and inline.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include <dirent.h>
#include <sys/statvfs.h>

#include "unit/origin/posix_fixture.h"

using namespace blobcache_test;

namespace {

struct ListOptions {
  uint64_t offset = 0;
  uint32_t entries_max = 1000;
  bool with_info = false;
};

void begin_list(Machine& machine, Waited<ListCall>& call, int fd, ListOptions options) {
  call.fd = fd;
  call.offset = options.offset;
  call.entries_max = options.entries_max;
  call.with_info = options.with_info;
  call.times_done = 0;
  machine.origin->begin_list(*machine.reactor, call);
}

std::vector<DirectoryEntry> list_some(Machine& machine, int fd, ListOptions options) {
  Waited<ListCall> call;
  begin_list(machine, call, fd, options);
  machine.wait(call);
  REQUIRE(!call.failed);
  CHECK(call.entries.size() <= options.entries_max);
  return std::move(call.entries);
}

std::vector<DirectoryEntry> list_all(Machine& machine, int fd, ListOptions options) {
  std::vector<DirectoryEntry> all;
  while (true) {
    std::vector<DirectoryEntry> some = list_some(machine, fd, options);
    if (some.empty()) return all;
    options.offset = some.back().next_offset;
    std::move(some.begin(), some.end(), std::back_inserter(all));
  }
}

std::multiset<std::string> names_of(const std::vector<DirectoryEntry>& entries) {
  std::multiset<std::string> names;
  for (const DirectoryEntry& entry : entries) names.insert(entry.name);
  return names;
}

std::string numbered(int number) { return "entry-" + std::to_string(number) + std::string(number % 40, 'x'); }

// Names of one file: making an inode each would take most of a test's time.
void link_numbered(const Tree& tree, int count) {
  if (::access(tree.at("origin-of-links").c_str(), F_OK) != 0) tree.write("origin-of-links", "x");
  for (int i = 0; i < count; ++i) {
    require(::link(tree.at("origin-of-links").c_str(), tree.at(numbered(i)).c_str()) == 0, "link");
  }
}

}  // namespace

TEST_CASE("a listing has every name once, with inode number and type") {
  const Tree tree;
  const std::string longest(255, 'n');
  const std::string odd[] = {"line\nbreak", "\xff\xfe invalid \xc3", longest, " ", "..."};
  for (const std::string& name : odd) tree.write(name, "x");
  tree.make_directory("directory");
  require(::symlink("x", tree.at("link").c_str()) == 0, "symlink");
  require(::mkfifo(tree.at("fifo").c_str(), 0644) == 0, "mkfifo");
  Machine machine(tree.path());
  const auto opened = machine.open("");
  for (const uint32_t entries_max : {1u, 2u, 7u, 1000u}) {
    for (const bool with_info : {false, true}) {
      CAPTURE(entries_max);
      CAPTURE(with_info);
      const auto entries = list_all(machine, opened->fd, {.entries_max = entries_max, .with_info = with_info});
      const std::multiset<std::string> expected{".",    "..",   odd[0],      odd[1], odd[2],
                                                odd[3], odd[4], "directory", "link", "fifo"};
      CHECK(names_of(entries) == expected);
      for (const DirectoryEntry& entry : entries) {
        CAPTURE(entry.name);
        const bool is_dot = entry.name == "." || entry.name == "..";
        CHECK(entry.has_info == (with_info && !is_dot));
        if (entry.name == "..") continue;
        const struct stat found = tree.stat(entry.name);
        CHECK(entry.ino == found.st_ino);
        CHECK(entry.type == IFTODT(found.st_mode));
        if (!entry.has_info) continue;
        CHECK(entry.info.attributes.mode == found.st_mode);
        CHECK(entry.info.version == machine.lookup(entry.name)->info.version);
      }
    }
  }
  machine.close(*opened);
}

TEST_CASE("10,000 entries in small batches, resumed from any offset") {
  constexpr int files = 10'000;
  const Tree tree;
  std::multiset<std::string> expected{".", ".."};
  for (int i = 0; i < files; ++i) expected.insert(numbered(i));
  link_numbered(tree, files);
  expected.insert("origin-of-links");
  Machine machine(tree.path());
  const auto opened = machine.open("");
  const auto all = list_all(machine, opened->fd, {.entries_max = 37});
  REQUIRE(names_of(all) == expected);

  // Any cookie, in any order, goes on where it says.
  for (const size_t at : {size_t{9'999}, size_t{0}, size_t{5'000}, size_t{4'999}, size_t{1}}) {
    const auto rest = list_some(machine, opened->fd, {.offset = all[at].next_offset, .entries_max = 5});
    REQUIRE(!rest.empty());
    for (size_t i = 0; i < rest.size(); ++i) CHECK(rest[i].name == all[at + 1 + i].name);
  }
  CHECK(list_some(machine, opened->fd, {.offset = all.back().next_offset}).empty());
  machine.close(*opened);
}

TEST_CASE("listings that share a descriptor do not move each other's position") {
  const Tree tree;
  link_numbered(tree, 300);
  Machine machine(tree.path(), /*young_ns=*/1, /*blocking_threads=*/4);
  const auto opened = machine.open("");
  const auto all = list_all(machine, opened->fd, {});
  REQUIRE(all.size() == 303);
  constexpr size_t calls_count = 16;
  Waited<ListCall> calls[calls_count];
  for (int round = 0; round < 200; ++round) {
    // On their way at once, on four helper threads, each from another place.
    for (size_t i = 0; i < calls_count; ++i) {
      begin_list(machine, calls[i], opened->fd, {.offset = all[i * 17].next_offset, .entries_max = 10});
    }
    for (size_t i = 0; i < calls_count; ++i) {
      machine.wait(calls[i]);
      REQUIRE(!calls[i].failed);
      REQUIRE(!calls[i].entries.empty());
      for (size_t k = 0; k < calls[i].entries.size(); ++k)
        REQUIRE(calls[i].entries[k].name == all[i * 17 + 1 + k].name);
    }
  }
  machine.close(*opened);
}

TEST_CASE("an entry that vanished since its name was read has no info, and the listing goes on") {
  // The name is still in the kernel's answer while the inode is gone: a helper reads names and attributes at a pace that
  // a test cannot step into, so files are deleted and made again all the while.
  const Tree tree;
  link_numbered(tree, 200);
  Machine machine(tree.path());
  const auto opened = machine.open("");
  for (int round = 0; round < 20; ++round) {
    Waited<ListCall> call;
    begin_list(machine, call, opened->fd, {.entries_max = 1000, .with_info = true});
    for (int i = 0; i < 200; ++i) require(::unlink(tree.at(numbered(i)).c_str()) == 0, "unlink");
    machine.wait(call);
    REQUIRE(!call.failed);
    for (const DirectoryEntry& entry : call.entries) {
      if (entry.has_info && entry.name[0] != '.') CHECK(S_ISREG(entry.info.attributes.mode));
    }
    link_numbered(tree, 200);
  }
  machine.close(*opened);
}

TEST_CASE("a directory whose entries may be named but not looked at lists names alone") {
  if (::geteuid() != 0) {
    MESSAGE("not tested: a directory without search permission, for lack of another user to be");
    return;
  }
  const Tree tree;
  require(::chmod(tree.path().c_str(), 0755) == 0, "chmod");
  tree.make_directory("names_only");
  tree.write("names_only/file", "x");
  require(::chmod(tree.at("names_only").c_str(), 0744) == 0, "chmod");
  const int wrong = run_as_stranger([&] {
    Machine machine(tree.path());
    const auto opened = machine.open("names_only");
    if (opened->failed) return 1;
    Waited<ListCall> call;
    begin_list(machine, call, opened->fd, {.with_info = true});
    machine.wait(call);
    if (call.failed || call.entries.size() != 3) return 2;
    for (const DirectoryEntry& entry : call.entries) {
      if (entry.has_info) return 3;
    }
    machine.close(*opened);
    return 0;
  });
  CHECK(wrong == 0);
}

TEST_CASE("a directory removed while open is empty; what is no directory cannot be listed") {
  const Tree tree;
  tree.make_directory("gone");
  tree.write("file", "x");
  Machine machine(tree.path());
  const auto gone = machine.open("gone");
  require(::rmdir(tree.at("gone").c_str()) == 0, "rmdir");
  CHECK(list_some(machine, gone->fd, {}).empty());
  const auto file = machine.open("file");
  Waited<ListCall> call;
  begin_list(machine, call, file->fd, {});
  machine.wait(call);
  CHECK(call.failed);
  CHECK(call.error == Error{Code::not_found, ENOTDIR});
  machine.close(*gone);
  machine.close(*file);
}

TEST_CASE("entries of another filesystem below the root have its mixed numbers") {
  Machine machine("/");
  const auto opened = machine.open("proc");
  REQUIRE(!opened->failed);
  bool found = false;
  for (const DirectoryEntry& entry : list_all(machine, opened->fd, {.with_info = true})) {
    if (entry.name == "." || entry.name == "..") continue;
    if (entry.name == "version") found = true;
    if (entry.has_info) CHECK(entry.ino == entry.info.attributes.ino);
    CHECK((entry.ino >> 63) == 1);
  }
  CHECK(found);
  machine.close(*opened);
}

TEST_CASE("readlink gives the bytes of the target") {
  const Tree tree;
  const std::string longest = std::string(4095, 't');
  const std::map<std::string, std::string> links{{"short", "a"},
                                                 {"up", "../../outside"},
                                                 {"absolute", "/etc/passwd"},
                                                 {"odd", "new\nline \xff"},
                                                 {"long", longest}};
  tree.make_directory("directory");
  for (const auto& [name, target] : links) {
    require(::symlink(target.c_str(), tree.at("directory/" + name).c_str()) == 0, "symlink");
  }
  tree.write("file", "x");
  require(::symlink("directory", tree.at("middle").c_str()) == 0, "symlink");
  for (const unsigned threads : {2u, 0u}) {
    CAPTURE(threads);
    Machine machine(tree.path(), 1, threads);
    const auto readlink = [&](const std::string& key) {
      auto call = std::make_unique<Waited<ReadlinkCall>>();
      call->key = key;
      machine.origin->begin_readlink(*machine.reactor, *call);
      machine.wait(*call);
      CHECK(call->times_done == 1);
      return call;
    };
    for (const auto& [name, target] : links) CHECK(readlink("directory/" + name)->target == target);
    CHECK(readlink("file")->error == Error{Code::invalid, EINVAL});
    CHECK(readlink("")->error == Error{Code::invalid, EINVAL});
    CHECK(readlink("missing")->error == Error{Code::not_found, ENOENT});
    CHECK(readlink("middle/short")->error == Error{Code::invalid, ELOOP});
    CHECK(readlink("../x")->error == Error{Code::invalid, EINVAL});
  }
}

TEST_CASE("blocking calls leave no descriptor behind") {
  const Tree tree;
  tree.write("file", "x");
  require(::symlink("x", tree.at("link").c_str()) == 0, "symlink");
  Machine machine(tree.path(), 1, 0);
  const size_t before = open_descriptors();
  for (const char* key : {"file", "link", "missing"}) {
    Waited<ReadlinkCall> call;
    call.key = key;
    machine.origin->begin_readlink(*machine.reactor, call);
    machine.wait(call);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("statfs is the filesystem's") {
  const Tree tree;
  Machine machine(tree.path());
  Waited<StatfsCall> call;
  machine.origin->begin_statfs(*machine.reactor, call);
  machine.wait(call);
  REQUIRE(!call.failed);
  struct statvfs expected;
  require(::statvfs(tree.path().c_str(), &expected) == 0, "statvfs");
  CHECK(call.blocks == expected.f_blocks);
  CHECK(call.files == expected.f_files);
  CHECK(call.block_bytes == expected.f_frsize);
  CHECK(call.name_bytes_max == expected.f_namemax);
  CHECK(call.blocks_available <= call.blocks_free);
  CHECK(call.blocks_free <= call.blocks);
  CHECK(call.blocks_free > 0);
}
