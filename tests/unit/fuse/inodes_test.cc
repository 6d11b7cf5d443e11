// Node ids: one per object version and per directory path, counted by lookups, against a reference map.
#include <doctest/doctest.h>

#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/limits.h"
#include "fuse/inodes.h"

namespace blobcache::fuse {
namespace {

FileInfo directory(uint64_t ino) {
  FileInfo info;
  info.attributes.ino = ino;
  info.attributes.mode = S_IFDIR | 0755;
  return info;
}

FileInfo file(uint64_t ino, uint32_t version, bool key_in_identity = false) {
  FileInfo info;
  info.attributes.ino = ino;
  info.attributes.mode = S_IFREG | 0644;
  info.key_in_identity = key_in_identity;
  info.version.length = sizeof ino + sizeof version;
  std::memcpy(info.version.bytes, &ino, sizeof ino);
  std::memcpy(info.version.bytes + sizeof ino, &version, sizeof version);
  return info;
}

struct Table {
  explicit Table(uint32_t nodes_max = 10'000) {
    REQUIRE(inodes.create({.volume = 1, .nodes_max = nodes_max}, directory(2), 1));
  }
  NodeId acquire(const std::string& key, const FileInfo& info) {
    const Result<NodeId> id = inodes.acquire(key, info, 1);
    REQUIRE(id);
    return *id;
  }
  Inodes inodes;
};

TEST_CASE("inodes: the root is node 1, has the empty key and is never forgotten") {
  Table table;
  Node node;
  REQUIRE(table.inodes.get(root_node, node));
  CHECK(node.key.empty());
  CHECK(node.info.attributes.ino == 2);
  table.inodes.forget(root_node, 1000);
  CHECK(table.inodes.get(root_node, node));
}

TEST_CASE("inodes: a file is its version, a directory its path") {
  Table table;
  const NodeId first = table.acquire("a", file(10, 1));
  CHECK(table.acquire("a", file(10, 1)) == first);
  CHECK(table.acquire("a", file(10, 2)) != first);
  const NodeId linked = table.acquire("b/link", file(10, 1));
  CHECK(linked == first);  // a hard link, or the file under its new name
  Node node;
  REQUIRE(table.inodes.get(first, node));
  CHECK(node.key == "b/link");

  const NodeId folder = table.acquire("d", directory(20));
  CHECK(table.acquire("d", directory(21)) == folder);
  CHECK(table.acquire("e", directory(20)) != folder);
}

TEST_CASE("inodes: where the version is not unique, the key is part of the identity") {
  Table table;
  const NodeId one = table.acquire("one", file(0, 7, true));
  CHECK(table.acquire("two", file(0, 7, true)) != one);
  CHECK(table.acquire("one", file(0, 7, true)) == one);
}

TEST_CASE("inodes: a node lives for as many lookups as it had; its number is not used for another") {
  Table table;
  const NodeId id = table.acquire("a", file(10, 1));
  table.acquire("a", file(10, 1));
  table.inodes.forget(id, 1);
  Node node;
  CHECK(table.inodes.get(id, node));
  table.inodes.forget(id, 1);
  CHECK(!table.inodes.get(id, node));
  table.inodes.forget(id, 5);  // a second time: nothing
  const NodeId next = table.acquire("b", file(11, 1));
  CHECK(next != id);
  CHECK(static_cast<uint32_t>(next) == static_cast<uint32_t>(id));  // the record is, under another generation
  CHECK(!table.inodes.get(id, node));
  CHECK(!table.inodes.get(0, node));
  CHECK(!table.inodes.get(~uint64_t{0}, node));
}

TEST_CASE("inodes: full is said, and forgetting makes room again") {
  Table table(10);
  NodeId last = 0;
  for (uint64_t i = 0; i < 9; ++i) last = table.acquire("f" + std::to_string(i), file(100 + i, 1));
  const Result<NodeId> over = table.inodes.acquire("over", file(999, 1), 1);
  REQUIRE(!over);
  CHECK(over.error().code == Code::full);
  table.inodes.forget(last, 1);
  CHECK(table.inodes.acquire("over", file(999, 1), 1).has_value());
}

TEST_CASE("inodes: a path that no path can reach is refused, not stored") {
  Table table;
  const std::string longest(limits::path_bytes_max - 1, 'p');
  CHECK(table.inodes.acquire(longest, file(1, 1), 1).has_value());
  const Result<NodeId> over = table.inodes.acquire(longest + "p", file(2, 1), 1);
  REQUIRE(!over);
  CHECK(over.error().os_errno == ENAMETOOLONG);
}

TEST_CASE("inodes: 100,000 random lookups, renames and forgets agree with a map") {
  Table table(20'000);
  std::mt19937 random(1);
  struct Known {
    NodeId id;
    uint64_t lookups;
    std::string key;
  };
  std::map<uint64_t, Known> known;  // by ino; the version is always 1
  for (int step = 0; step < 100'000; ++step) {
    const uint64_t ino = 10 + random() % 5000;
    const auto found = known.find(ino);
    if (random() % 3 == 0 && found != known.end()) {
      const uint64_t some = 1 + random() % found->second.lookups;
      table.inodes.forget(found->second.id, some);
      found->second.lookups -= some;
      if (found->second.lookups == 0) {
        Node node;
        CHECK(!table.inodes.get(found->second.id, node));
        known.erase(found);
      }
      continue;
    }
    const std::string key(1 + random() % 300, static_cast<char>('a' + random() % 26));
    const NodeId id = table.acquire(key, file(ino, 1));
    if (found == known.end()) {
      known[ino] = {id, 1, key};
    } else {
      CHECK(found->second.id == id);
      ++found->second.lookups;
      found->second.key = key;
    }
  }
  CHECK(table.inodes.count() == known.size() + 1);
  for (const auto& [ino, expected] : known) {
    Node node;
    REQUIRE(table.inodes.get(expected.id, node));
    CHECK(node.key == expected.key);
    CHECK(node.info.attributes.ino == ino);
  }
}

TEST_CASE("inodes: pages of a young version taint the next open") {
  Table table;
  const NodeId id = table.acquire("a", file(10, 1));
  CHECK(!table.inodes.exchange_tainted(id, true));
  CHECK(table.inodes.exchange_tainted(id, false));
  CHECK(!table.inodes.exchange_tainted(id, false));
}

TEST_CASE("inodes: opens of one inode are all page-cached or all passthrough, with one backing id") {
  Table table;
  const NodeId id = table.acquire("a", file(10, 1));
  int32_t backing = -1;
  CHECK(!table.inodes.join_passthrough(id, &backing));

  CHECK(table.inodes.open_cached(id));
  CHECK(table.inodes.open_cached(id));
  CHECK(!table.inodes.join_passthrough(id, &backing));
  CHECK(!table.inodes.open_passthrough(id, 7, &backing));
  table.inodes.close_cached(id);
  CHECK(!table.inodes.open_passthrough(id, 7, &backing));
  table.inodes.close_cached(id);

  REQUIRE(table.inodes.open_passthrough(id, 7, &backing));
  CHECK(backing == 7);
  CHECK(!table.inodes.open_cached(id));
  REQUIRE(table.inodes.join_passthrough(id, &backing));
  CHECK(backing == 7);
  REQUIRE(table.inodes.open_passthrough(id, 8, &backing));
  CHECK(backing == 7);  // somebody came first: 8 is the caller's to close
  CHECK(table.inodes.close_passthrough(id) == 0);
  CHECK(table.inodes.close_passthrough(id) == 0);
  CHECK(table.inodes.close_passthrough(id) == 7);
  CHECK(table.inodes.open_cached(id));
  table.inodes.close_cached(id);

  CHECK(table.inodes.open_cached(id + 1));  // nobody's: nothing is counted
  table.inodes.close_cached(id + 1);
  CHECK(!table.inodes.join_passthrough(id + 1, &backing));
  CHECK(!table.inodes.open_passthrough(id + 1, 7, &backing));
}

TEST_CASE("inodes: an open keeps its node and its backing id until it is closed") {
  Table table;
  Node node;
  const NodeId cached = table.acquire("a", file(10, 1));
  REQUIRE(table.inodes.open_cached(cached));
  table.inodes.forget(cached, 1);
  CHECK(table.inodes.get(cached, node));
  CHECK(table.acquire("a", file(10, 1)) == cached);  // found again, the same
  table.inodes.forget(cached, 1);
  table.inodes.close_cached(cached);
  CHECK(!table.inodes.get(cached, node));

  const NodeId through = table.acquire("b", file(11, 1));
  int32_t backing = 0;
  REQUIRE(table.inodes.open_passthrough(through, 3, &backing));
  table.inodes.forget(through, 1);
  CHECK(table.inodes.close_passthrough(through) == 3);
  CHECK(!table.inodes.get(through, node));
  CHECK(table.inodes.count() == 1);

  // The record's next owner starts without opens.
  const NodeId next = table.acquire("c", file(12, 1));
  CHECK(table.inodes.open_cached(next));
  table.inodes.close_cached(next);
  CHECK(table.inodes.open_passthrough(next, 4, &backing));
  CHECK(table.inodes.close_passthrough(next) == 4);
}

// All that is named in one round over the table.
std::vector<NodeId> choose_all(Inodes& inodes, bool directories, size_t at_a_time = 16) {
  std::vector<NodeId> all;
  std::vector<NodeId> some(at_a_time);
  for (uint32_t left = inodes.count() - 1; left > 0;) {
    const Inodes::Choice choice = inodes.choose_unused(some, directories, left);
    all.insert(all.end(), some.begin(), some.begin() + static_cast<ptrdiff_t>(choice.chosen));
    REQUIRE(choice.looked_at > 0);
    left -= choice.looked_at;
  }
  return all;
}

TEST_CASE("inodes: the kernel is asked first about the nodes used longest ago, each once a round") {
  Table table;
  std::vector<NodeId> ids;
  for (uint64_t i = 0; i < 300; ++i) ids.push_back(table.acquire("f" + std::to_string(i), file(100 + i, 1)));
  CHECK(choose_all(table.inodes, true) == ids);
  CHECK(choose_all(table.inodes, true, 1) == ids);  // chosen and still there: their turn comes again

  table.acquire("f0", file(100, 1));  // looked up again
  CHECK(table.inodes.open_cached(ids[1]));
  table.inodes.close_cached(ids[1]);
  table.inodes.forget(ids[2], 1);
  std::vector<NodeId> wanted(ids.begin() + 3, ids.end());
  wanted.push_back(ids[0]);
  wanted.push_back(ids[1]);
  CHECK(choose_all(table.inodes, true) == wanted);

  for (const NodeId id : wanted) table.inodes.forget(id, 2);
  CHECK(table.inodes.count() == 1);
  CHECK(choose_all(table.inodes, true).empty());
  const NodeId next = table.acquire("next", file(1, 1));
  CHECK(choose_all(table.inodes, true) == std::vector<NodeId>{next});
}

TEST_CASE("inodes: the kernel is not asked about open files, nor about directories with nodes in them") {
  Table table;
  const NodeId outer = table.acquire("outer", directory(20));
  const NodeId inner = table.acquire("outer/inner", directory(21));
  const NodeId cached = table.acquire("outer/inner/cached", file(30, 1));
  const NodeId through = table.acquire("outer/inner/through", file(31, 1));
  const NodeId unused = table.acquire("outer/inner/unused", file(32, 1));
  int32_t backing = 0;
  REQUIRE(table.inodes.open_cached(cached));
  REQUIRE(table.inodes.open_passthrough(through, 5, &backing));
  using Ids = std::vector<NodeId>;
  CHECK(choose_all(table.inodes, true) == Ids{unused});

  table.inodes.close_cached(cached);
  CHECK(table.inodes.close_passthrough(through) == 5);
  table.inodes.forget(cached, 1);
  table.inodes.forget(unused, 1);
  CHECK(choose_all(table.inodes, true) == Ids{through});
  // Found elsewhere by now (renamed, or a hard link): its old directory is empty.
  CHECK(table.acquire("outer/through", file(31, 1)) == through);
  CHECK(choose_all(table.inodes, true) == Ids{inner, through});
  CHECK(choose_all(table.inodes, false) == Ids{through});

  table.inodes.forget(inner, 1);
  table.inodes.forget(through, 2);
  CHECK(choose_all(table.inodes, false).empty());
  CHECK(choose_all(table.inodes, true) == Ids{outer});
}

TEST_CASE("inodes: where a node was last found, unless its directory is gone") {
  Table table;
  Inodes::Entry entry;
  CHECK(!table.inodes.entry_of(root_node, entry));
  const NodeId top = table.acquire("top", file(30, 1));
  REQUIRE(table.inodes.entry_of(top, entry));
  CHECK(entry.parent == root_node);
  CHECK(entry.name == "top");

  const NodeId folder = table.acquire("d", directory(20));
  table.acquire("d/e", directory(21));
  const NodeId leaf = table.acquire("d/e/leaf", file(31, 1));
  REQUIRE(table.inodes.entry_of(leaf, entry));
  CHECK(entry.parent != folder);
  CHECK(entry.name == "leaf");
  table.inodes.forget(entry.parent, 1);
  CHECK(!table.inodes.entry_of(leaf, entry));
  // The directory's next node is another one; the leaf does not count in it.
  const NodeId again = table.acquire("d/e", directory(21));
  table.inodes.forget(leaf, 1);
  CHECK(!table.inodes.entry_of(leaf, entry));
  table.inodes.forget(again, 1);
  CHECK(table.inodes.count() == 3);
}

TEST_CASE("inodes: the pruner is called once when the table becomes crowded, and again when it asks to be") {
  Table table(100);
  const int called = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  REQUIRE(called >= 0);
  const auto calls = [called] {
    uint64_t count = 0;
    return read(called, &count, sizeof count) == sizeof count ? count : 0;
  };
  std::vector<NodeId> ids;
  for (uint64_t i = 0; i < 70; ++i) ids.push_back(table.acquire("f" + std::to_string(i), file(100 + i, 1)));
  table.inodes.call_when_crowded(called);
  table.acquire("f0", file(100, 1));
  CHECK(!table.inodes.crowded());
  CHECK(calls() == 0);
  for (uint64_t i = 70; i < 80; ++i) ids.push_back(table.acquire("f" + std::to_string(i), file(100 + i, 1)));
  CHECK(table.inodes.crowded());
  CHECK(calls() == 1);
  table.inodes.call_when_crowded(called);
  CHECK(calls() == 0);
  CHECK(table.acquire("f79", file(179, 1)) == ids.back());
  CHECK(calls() == 1);

  const uint64_t freed = table.inodes.freed();
  for (size_t i = 1; i < 21; ++i) table.inodes.forget(ids[i], 1);
  CHECK(table.inodes.freed() == freed + 20);
  CHECK(!table.inodes.crowded());
  close(called);
}

}  // namespace
}  // namespace blobcache::fuse
