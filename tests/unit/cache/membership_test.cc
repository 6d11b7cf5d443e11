// What is fetched of a directory whose files are opened in any order: the rest of it once a quarter was opened, hardly anything in
// vain, and nothing for readers of a part, of the same files, or of what is there.
#include "cache/membership.h"

#include <algorithm>
#include <deque>
#include <numeric>
#include <random>
#include <vector>

#include <doctest/doctest.h>

namespace blobcache {

namespace {

constexpr uint64_t file_bytes = 100'000;
constexpr uint64_t second_ns = 1'000'000'000;
constexpr uint64_t idle_ns = 30 * second_ns;

// A directory, its cache, and an origin that answers eight requests while a reader opens one file.
struct Rig {
  explicit Rig(uint32_t count) : members(count), cached(count, false), given(count, 0), files(count) {}

  void open(uint32_t file) {
    now_ns += gap_ns;
    add(members.on_open({.file = file, .bytes = file_bytes, .absent = !cached[file]}, now_ns, idle_ns));
    if (!cached[file]) ++missed;
    cached[file] = true;
    for (unsigned i = 0; i < answers; ++i) {
      const std::optional<uint32_t> next = members.next();
      if (!next) break;
      ++given[*next];
      ++asked;
      if (cached[*next]) continue;  // the origin is asked for it, and that is all
      members.on_begun(*next, file_bytes);
      members.on_landed(*next, file_bytes, false);
      cached[*next] = true;
      ++fetched;
      waiting_max = std::max(waiting_max, members.waiting_files());
      CHECK(members.waiting_frame_bytes() == members.waiting_files() * 131'072);
    }
  }
  void epoch(uint32_t seed, double share = 1) {
    const std::vector<uint32_t> order = shuffled(seed);
    for (uint32_t i = 0; i < static_cast<uint32_t>(share * files); ++i) open(order[i]);
  }
  std::vector<uint32_t> shuffled(uint32_t seed) const {
    std::vector<uint32_t> order(files);
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    return order;
  }
  void add(const DirectoryMembership::Use& use) { total += use; }

  DirectoryMembership members;
  std::vector<bool> cached;
  std::vector<unsigned> given;
  uint32_t files;
  unsigned answers = 8;
  uint64_t gap_ns = second_ns / 100;
  uint64_t now_ns = second_ns;
  unsigned asked = 0, fetched = 0, missed = 0;
  uint32_t waiting_max = 0;
  DirectoryMembership::Use total;
};

}  // namespace

TEST_CASE(
    "membership: of a shuffled epoch more than four fifths of what follows its first quarter is fetched, all of it "
    "used") {
  for (const uint32_t files : {64u, 100u, 732u, 1300u, 50'000u}) {
    CAPTURE(files);
    Rig rig(files);
    rig.epoch(7);
    CHECK(rig.fetched >= files * 3 / 4 * 8 / 10);
    CHECK(rig.missed + rig.fetched == files);
    CHECK(rig.total.used_files == rig.fetched);
    CHECK(rig.total.used_bytes == rig.fetched * file_bytes);
    CHECK(rig.total.wasted_bytes == 0);
    CHECK(*std::max_element(rig.given.begin(), rig.given.end()) == 1);
    CHECK(rig.members.waiting_files() == 0);
    CHECK(rig.members.waiting_frame_bytes() == 0);
  }
}

TEST_CASE("membership: nothing before a quarter was opened, nor in a directory of few files") {
  Rig rig(1000);
  rig.epoch(3, 0.25);
  CHECK(rig.asked == 0);
  const std::vector<uint32_t> order = rig.shuffled(3);
  rig.open(order[250]);
  CHECK(rig.asked == 8);
  Rig few(63);
  few.epoch(3);
  CHECK(few.asked == 0);
}

TEST_CASE("membership: readers of a tenth cost nothing, epoch after epoch") {
  Rig rig(1000);
  for (unsigned epoch = 0; epoch < 5; ++epoch) rig.epoch(9, 0.1);
  CHECK(rig.asked == 0);
  // Another tenth each time, but the last one was long ago.
  for (unsigned epoch = 0; epoch < 5; ++epoch) {
    rig.now_ns += 2 * idle_ns;
    rig.epoch(20 + epoch, 0.1);
  }
  CHECK(rig.asked == 0);
}

TEST_CASE("membership: readers that come back to the same files, or draw with putting back, cost nothing") {
  Rig same(400);
  for (unsigned round = 0; round < 40; ++round) {
    for (uint32_t file = 0; file < 90; ++file) same.open(file * 4);
  }
  CHECK(same.asked == 0);
  for (const uint32_t seed : {1u, 2u, 3u, 4u, 5u}) {
    Rig drawn(2000);
    std::mt19937 numbers(seed);
    for (unsigned i = 0; i < 6000; ++i) drawn.open(static_cast<uint32_t>(numbers() % 2000));
    CHECK(drawn.asked == 0);
  }
}

TEST_CASE("membership: who opens each file twice in a row reads an epoch all the same") {
  Rig rig(600);
  for (const uint32_t file : rig.shuffled(4)) {
    rig.open(file);
    rig.open(file);
  }
  CHECK(rig.fetched >= 360);
  CHECK(rig.total.used_files == rig.fetched);
}

TEST_CASE("membership: the second epoch costs nothing, and one after the cache lost everything is fetched again") {
  Rig rig(600);
  rig.epoch(1);
  const unsigned asked = rig.asked;
  CHECK(asked >= 360);
  rig.epoch(2);
  CHECK(rig.asked == asked);
  std::fill(rig.cached.begin(), rig.cached.end(), false);
  rig.epoch(3);
  CHECK(rig.asked >= asked * 2 - 60);
  CHECK(rig.total.used_files == rig.fetched);
  CHECK(rig.total.wasted_bytes == 0);
}

TEST_CASE("membership: of a directory that is mostly here one absent file says nothing") {
  Rig rig(600);
  std::fill(rig.cached.begin(), rig.cached.end(), true);
  for (uint32_t file = 0; file < 600; file += 10) rig.cached[file] = false;
  rig.epoch(1);
  CHECK(rig.asked == 0);
}

TEST_CASE("membership: one who stops has cost no more than he read, and the directory is left alone") {
  Rig rig(1000);
  rig.epoch(5, 0.3);
  CHECK(rig.fetched > 100);
  CHECK(rig.waiting_max <= 300);
  const uint32_t waiting = rig.members.waiting_files();
  REQUIRE(waiting > 0);
  CHECK(!rig.members.is_over(rig.now_ns + idle_ns, idle_ns));
  REQUIRE(rig.members.is_over(rig.now_ns + idle_ns + second_ns, idle_ns));
  const DirectoryMembership::Use wasted = rig.members.end_epoch();
  CHECK(wasted.wasted_bytes == waiting * file_bytes);
  CHECK(rig.members.given_up());
  CHECK(rig.members.waiting_frame_bytes() == 0);
  const unsigned asked = rig.asked;
  std::fill(rig.cached.begin(), rig.cached.end(), false);
  rig.epoch(6);
  CHECK(rig.asked == asked);
}

TEST_CASE("membership: a part for validation is fetched in vain once, and told by the second round") {
  Rig rig(1000);
  std::vector<uint32_t> order = rig.shuffled(8);
  order.resize(700);
  for (const uint32_t file : order) rig.open(file);
  CHECK(rig.members.waiting_files() == 300);
  std::shuffle(order.begin(), order.end(), std::mt19937(2));
  for (const uint32_t file : order) rig.open(file);
  CHECK(rig.total.wasted_bytes == 300 * file_bytes);
  CHECK(rig.members.given_up());
  // One file that nobody opens is no reason.
  Rig nearly(1000);
  for (uint32_t epoch = 0; epoch < 2; ++epoch) {
    for (const uint32_t file : nearly.shuffled(epoch)) {
      if (file != 17) nearly.open(file);
    }
  }
  CHECK(!nearly.members.given_up());
  CHECK(nearly.total.wasted_bytes == file_bytes);
}

TEST_CASE(
    "membership: a folder of many that are read together rests for long between two opens, and its epoch goes on") {
  Rig rig(200);
  rig.gap_ns = 10 * second_ns;
  const std::vector<uint32_t> order = rig.shuffled(1);
  for (uint32_t i = 0; i < 200; ++i) {
    if (i % 16 == 15) rig.now_ns += 90 * second_ns;
    rig.open(order[i]);
  }
  CHECK(rig.fetched >= 120);
  CHECK(rig.total.wasted_bytes == 0);
}

TEST_CASE("membership: what was evicted before its reader came is wasted, what failed is not") {
  Rig rig(1000);
  const std::vector<uint32_t> order = rig.shuffled(1);
  for (uint32_t i = 0; i <= 250; ++i) rig.open(order[i]);
  REQUIRE(rig.members.waiting_files() == 8);
  std::fill(rig.cached.begin(), rig.cached.end(), false);
  rig.answers = 0;
  for (uint32_t i = 251; i < 999; ++i) rig.open(order[i]);
  CHECK(rig.total.used_files == 0);
  CHECK(rig.total.wasted_bytes >= 7 * file_bytes);
  rig.open(order[999]);
  CHECK(rig.total.wasted_bytes == 8 * file_bytes);
  CHECK(rig.members.given_up());

  Rig failing(100);
  failing.answers = 0;
  failing.epoch(1, 0.5);
  const std::optional<uint32_t> next = failing.members.next();
  REQUIRE(next);
  failing.members.on_begun(*next, file_bytes);
  CHECK(failing.members.waiting_files() == 1);
  failing.members.on_landed(*next, file_bytes, true);
  CHECK(failing.members.waiting_files() == 0);
  CHECK(failing.members.end_epoch().wasted_bytes == 0);
  CHECK(!failing.members.given_up());
}

TEST_CASE("membership: what others foretell counts as read from the origin, and what landed is used by its open") {
  DirectoryMembership members(100);
  for (uint32_t file = 0; file < 50; ++file) {
    members.on_open({.file = file, .bytes = file_bytes, .foretold = true}, file, idle_ns);
  }
  const std::optional<uint32_t> next = members.next();
  REQUIRE(next);
  CHECK(!members.waits(*next));
  members.on_begun(*next, file_bytes);
  members.on_landed(*next, file_bytes, false);
  CHECK(members.waits(*next));
  const DirectoryMembership::Use use =
      members.on_open({.file = *next, .bytes = file_bytes, .foretold = true}, 100, idle_ns);
  CHECK(use.used_files == 1);
  CHECK(use.wasted_bytes == 0);
  CHECK(!members.waits(*next));
}

TEST_CASE("membership: large files are none of it, nor is a file that was opened while it was asked for") {
  DirectoryMembership large(100);
  for (uint32_t file = 0; file < 60; ++file) {
    large.on_open({.file = file, .bytes = 8u << 20, .absent = true}, file, idle_ns);
    CHECK(!large.next());
  }
  Rig rig(100);
  rig.answers = 0;
  rig.epoch(1, 0.5);
  const std::optional<uint32_t> next = rig.members.next();
  REQUIRE(next);
  rig.open(*next);
  rig.members.on_begun(*next, file_bytes);
  CHECK(rig.members.waiting_files() == 0);
}

}  // namespace blobcache
