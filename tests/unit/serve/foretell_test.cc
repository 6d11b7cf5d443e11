// Which files are wished for, what stands in for whom, and what is ended: without I/O and with a clock of its own.
#include "serve/foretell.h"

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "base/limits.h"
#include "serve/handle.h"
#include "serve/prefetch.h"

namespace blobcache::serve {
namespace {

using limits::MiB;
constexpr uint64_t second_ns = 1'000'000'000;

FileVersion version_of(char letter) {
  FileVersion version;
  version.length = 1;
  version.bytes[0] = letter;
  return version;
}

std::string file_name(unsigned number) {
  const std::string digits = std::to_string(number);
  return std::string(5 - digits.size(), '0') + digits;
}

std::vector<std::string> shuffled_keys(unsigned count, const std::string& folder = "d") {
  std::vector<std::string> keys;
  for (unsigned i = 0; i < count; ++i) keys.push_back(folder + "/" + file_name(i));
  std::shuffle(keys.begin(), keys.end(), std::mt19937(1));
  return keys;
}

struct Rig {
  explicit Rig(uint64_t arena_bytes = 1024 * MiB)
      : node({.config = {.enabled = true, .idle_timeout_ns = 30 * second_ns},
              .chunk_bytes = 4 * MiB,
              .arena_bytes = arena_bytes}),
        foreteller(node) {}

  void list(const std::string& key, unsigned count) {
    auto names = std::make_unique<DirectoryNames>();
    for (unsigned i = 0; i < count; ++i) REQUIRE(names->add(file_name(i)));
    foreteller.on_listed(key, std::move(names));
  }
  void open(const std::string& key, bool foretold = false) {
    change = {};
    foreteller.on_opened({.key = key, .bytes = 1000, .absent = !foretold, .foretold = foretold}, now_ns, &change);
  }
  void want_shard(const std::string& key, uint64_t bytes = 64 * MiB) {
    change = {};
    foreteller.want_shard({.key = key, .bytes = bytes}, now_ns, &change);
  }
  // What was wished for has been found at the origin.
  Handle& settle(const Foreteller::Wish& wish, char version = 'a') {
    Handle* handle = handles.take();
    REQUIRE(handle != nullptr);
    handle->key = wish.key;
    handle->version = version_of(version);
    REQUIRE(foreteller.settle(wish.place, *handle));
    return *handle;
  }

  PrefetchNode node;
  Foreteller foreteller;
  Handles handles;
  Foreteller::Change change;
  uint64_t now_ns = second_ns;
};

TEST_CASE("foretell: files in order are wished for once, stand in, and are taken by the open of that version") {
  Rig rig;
  rig.open("photos/00000");
  CHECK(rig.change.wishes.empty());
  rig.list("photos", 100);
  CHECK(rig.foreteller.knows_directories());
  rig.open("photos/00000");
  rig.open("photos/00001");
  REQUIRE(rig.change.wishes.size() == 2);
  const std::vector<Foreteller::Wish> wishes = rig.change.wishes;
  CHECK(wishes[0].key == "photos/00002");
  CHECK(wishes[1].key == "photos/00003");
  CHECK(wishes[0].whole);
  CHECK(rig.foreteller.has_files());
  Handle& second = rig.settle(wishes[0]);
  Handle& third = rig.settle(wishes[1]);
  Foreteller::Change change;
  CHECK(rig.foreteller.take("photos/00009", version_of('a'), &change) == nullptr);
  CHECK(rig.foreteller.take("photos/00002", version_of('a'), &change) == &second);
  CHECK(change.ended.empty());
  CHECK(rig.foreteller.take("photos/00002", version_of('a'), &change) == nullptr);
  CHECK(rig.foreteller.take("photos/00003", version_of('b'), &change) == nullptr);
  REQUIRE(change.ended.size() == 1);
  CHECK(change.ended[0] == &third);
  CHECK(!rig.foreteller.has_files());
}

TEST_CASE("foretell: who opens a file that is being asked for has no use of the answer") {
  Rig rig;
  rig.list("", 100);
  rig.open("00000");
  rig.open("00001");
  REQUIRE(!rig.change.wishes.empty());
  const Foreteller::Wish wish = rig.change.wishes[0];
  CHECK(rig.foreteller.is_wanted(wish.place));
  Foreteller::Change change;
  CHECK(rig.foreteller.take("00002", version_of('a'), &change) == nullptr);
  CHECK(change.ended.empty());
  CHECK(!rig.foreteller.is_wanted(wish.place));
  Handle& late = *rig.handles.take();
  CHECK(!rig.foreteller.settle(wish.place, late));
  rig.foreteller.drop(wish.place);  // nothing of it is left to drop
}

TEST_CASE("foretell: two opens elsewhere end what stands in, and nobody in time does too") {
  Rig rig;
  rig.list("d", 200);
  rig.open("d/00000");
  rig.open("d/00001");
  REQUIRE(!rig.change.wishes.empty());
  Handle& waiting = rig.settle(rig.change.wishes[0]);
  rig.open("d/00100");
  CHECK(rig.change.ended.empty());
  rig.open("d/00150");
  REQUIRE(rig.change.ended.size() == 1);
  CHECK(rig.change.ended[0] == &waiting);

  rig.want_shard("m/x-00002-of-00009");
  REQUIRE(rig.change.wishes.size() == 1);
  rig.settle(rig.change.wishes[0]);
  Foreteller::Change change;
  rig.foreteller.expire(rig.now_ns + rig.node.pattern().idle_timeout_ns - 1, &change);
  CHECK(change.ended.empty());
  rig.foreteller.expire(rig.now_ns + rig.node.pattern().idle_timeout_ns, &change);
  CHECK(change.ended.size() == 1);
}

TEST_CASE("foretell: a shard that nobody opens halves what the next one may cost, one that is opened gives it back") {
  Rig rig;
  const auto bytes_of_next = [&](const std::string& key) {
    rig.want_shard(key);
    REQUIRE(rig.change.wishes.size() == 1);
    return rig.change.wishes[0].bytes;
  };
  const auto nobody_comes = [&] {
    rig.settle(rig.change.wishes[0]);
    Foreteller::Change change;
    rig.foreteller.expire(rig.now_ns + rig.node.pattern().idle_timeout_ns, &change);
    REQUIRE(change.ended.size() == 1);
    rig.foreteller.on_unread(change.ended[0]->key, false);
  };
  CHECK(bytes_of_next("a-00002-of-00009") == 64 * MiB);
  CHECK(rig.change.wishes[0].unproven);
  for (const uint64_t bytes : {32 * MiB, 16 * MiB, 4 * MiB, MiB, MiB}) {
    nobody_comes();
    CHECK(bytes_of_next("a-00003-of-00009") == bytes);
  }
  Foreteller::Change change;
  for (const uint64_t bytes : {8 * MiB, 32 * MiB, 64 * MiB}) {
    rig.settle(rig.change.wishes[0]);
    CHECK(rig.foreteller.take("a-00003-of-00009", version_of('a'), &change) != nullptr);
    CHECK(bytes_of_next("a-00003-of-00009") == bytes);
    CHECK(!rig.change.wishes[0].unproven);
  }
}

TEST_CASE("foretell: two later shards end the one that stands in, earlier ones and other files do not") {
  Rig rig;
  rig.want_shard("m/x-00003-of-00009");
  Handle& waiting = rig.settle(rig.change.wishes[0]);
  // Processes that are a little behind.
  for (unsigned i = 0; i < 8; ++i) rig.open(i % 2 == 0 ? "m/x-00002-of-00009" : "m/x-00001-of-00009");
  for (const char* other : {"m/z.json", "m/tokenizer.json", "n/x-00005-of-00009", "m/x-00007-of-00009"}) {
    rig.open(other);
    CHECK(rig.change.ended.empty());
  }
  rig.open("m/x-00004-of-00009");
  REQUIRE(rig.change.ended.size() == 1);
  CHECK(rig.change.ended[0] == &waiting);
}

TEST_CASE("foretell: places are bounded, and all end together") {
  Rig rig;
  for (unsigned i = 0; i < Foreteller::shards_max; ++i) {
    rig.want_shard("m/" + std::to_string(i));
    CHECK(rig.change.wishes.size() == 1);
    rig.settle(rig.change.wishes[0]);
    rig.want_shard("m/" + std::to_string(i));
    CHECK(rig.change.wishes.empty());
  }
  rig.want_shard("m/one more");
  CHECK(rig.change.wishes.empty());
  Foreteller::Change change;
  rig.foreteller.end_all(&change);
  CHECK(change.ended.size() == Foreteller::shards_max);
  CHECK(!rig.foreteller.has_files());
}

TEST_CASE("foretell: names take their share of the memory, those used longest ago go first") {
  Rig rig(8 * MiB);  // a share of 32 KiB: three directories of 1000 names, 9 KiB each
  for (const char* key : {"a", "b", "c"}) rig.list(key, 1000);
  rig.open("a/00500");
  rig.list("d", 1000);
  const auto is_known = [&](const std::string& key) {
    rig.open(key + "/00000");
    for (unsigned i = 1; i < 8; ++i) rig.open(key + "/" + file_name(i));
    return rig.foreteller.has_files();
  };
  CHECK(!is_known("b"));
  CHECK(is_known("a"));
  Rig tiny(MiB);
  tiny.list("a", 1000);
  CHECK(!tiny.foreteller.knows_directories());
}

TEST_CASE(
    "foretell: the rest of a directory that is read shuffled is asked for eight at a time, and waits without a "
    "handle") {
  Rig rig;
  rig.list("d", 200);
  const std::vector<std::string> order = shuffled_keys(200);
  const auto want = [&](uint64_t room_bytes = 64 * MiB) {
    rig.change = {};
    rig.foreteller.want_members(room_bytes, rig.now_ns, &rig.change);
    return rig.change.wishes.size();
  };
  for (unsigned i = 0; i < 50; ++i) {
    rig.open(order[i]);
    CHECK(want() == 0);
  }
  rig.open(order[50]);
  // What users wait for, and a cache without room for more, go first.
  rig.node.budget().begin_demand(Foreteller::members_bytes_max);
  CHECK(want() == 0);
  rig.node.budget().end_demand(Foreteller::members_bytes_max);
  CHECK(want(64 * 1024) == 0);
  REQUIRE(want() == Foreteller::members_max);
  const std::vector<Foreteller::Wish> wishes = rig.change.wishes;
  for (const Foreteller::Wish& wish : wishes) {
    CHECK(wish.member);
    CHECK(wish.whole);
    CHECK(std::find(order.begin(), order.begin() + 51, wish.key) == order.begin() + 51);
  }
  CHECK(want() == 0);
  // One is opened before it was found at the origin: nobody wants the answer, and another has its place.
  Foreteller::Change change;
  CHECK(rig.foreteller.take(wishes[0].key, version_of('a'), &change) == nullptr);
  rig.open(wishes[0].key);
  CHECK(!rig.foreteller.settle_member(wishes[0].place, 1000));
  REQUIRE(want() == 1);
  CHECK(rig.change.wishes[0].key != wishes[0].key);
  // One is fetched, and draws the next; one was nothing to fetch.
  REQUIRE(rig.foreteller.settle_member(wishes[1].place, 1000));
  CHECK(want() == 0);
  rig.foreteller.on_member_landed(wishes[1].key, 1000, false);
  CHECK(want() == 1);
  rig.foreteller.drop(wishes[2].place);
  CHECK(want() == 1);
  CHECK(rig.foreteller.members_wait());
  change = {};
  rig.foreteller.on_opened({.key = wishes[1].key, .bytes = 1000}, rig.now_ns, &change);
  CHECK(change.members.used_files == 1);
  CHECK(change.members.used_bytes == 1000);
  CHECK(!rig.foreteller.members_wait());
}

TEST_CASE("foretell: what waits in the cache is wasted when nobody comes in time, or its directory is forgotten") {
  Rig rig(16 * MiB);  // names take 64 KiB
  const auto fetch_one = [&](const std::string& folder) {
    rig.list(folder, 1000);
    for (const std::string& key : shuffled_keys(1000, folder)) {
      rig.open(key);
      rig.change = {};
      rig.foreteller.want_members(64 * MiB, rig.now_ns, &rig.change);
      if (!rig.change.wishes.empty()) break;
    }
    REQUIRE(!rig.change.wishes.empty());
    REQUIRE(rig.foreteller.settle_member(rig.change.wishes[0].place, 3000));
    rig.foreteller.on_member_landed(rig.change.wishes[0].key, 3000, false);
    for (size_t i = 1; i < rig.change.wishes.size(); ++i) rig.foreteller.drop(rig.change.wishes[i].place);
    CHECK(rig.foreteller.members_wait());
  };
  fetch_one("a");
  Foreteller::Change change;
  rig.foreteller.expire(rig.now_ns + rig.node.pattern().idle_timeout_ns, &change);
  CHECK(change.members.wasted_bytes == 0);
  rig.foreteller.expire(rig.now_ns + rig.node.pattern().idle_timeout_ns + 1, &change);
  CHECK(change.members.wasted_bytes == 3000);
  CHECK(!rig.foreteller.members_wait());

  fetch_one("b");
  for (const char* key : {"c", "d", "e", "f", "g", "h"}) rig.list(key, 1000);
  CHECK(!rig.foreteller.members_wait());
  change = {};
  rig.foreteller.expire(rig.now_ns, &change);
  CHECK(change.members.wasted_bytes == 3000);
}

}  // namespace
}  // namespace blobcache::serve
