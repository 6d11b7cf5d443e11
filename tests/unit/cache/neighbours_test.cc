// Which files are foretold to readers that open those of a directory in order, and that shuffled ones are told nothing.
#include "cache/neighbours.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace blobcache {

namespace {

constexpr uint64_t file_bytes = 100'000;

std::string name_of(uint32_t number) {
  std::string digits = std::to_string(number);
  return "img-" + std::string(6 - digits.size(), '0') + digits + ".jpg";
}

// A directory that is listed in an order of its own, and readers of it.
struct Rig {
  explicit Rig(uint32_t count, bool sorted = false) {
    std::vector<uint32_t> numbers(count);
    std::iota(numbers.begin(), numbers.end(), 0u);
    if (!sorted) std::shuffle(numbers.begin(), numbers.end(), std::mt19937(11));
    for (const uint32_t number : numbers) REQUIRE(names.add(name_of(number)));
    REQUIRE(names.settle());
  }
  // What becomes of an open: whatever was foretold and is still wanted is there.
  void open(std::string_view name, uint64_t bytes = file_bytes, bool there = false) {
    const std::optional<DirectoryNames::Place> place = names.find(name);
    REQUIRE(place);
    const bool foretold = waiting.erase(std::string(name)) != 0;
    used += foretold;
    ahead = order.on_open({.place = *place,
                           .count = names.count(),
                           .one_order = names.one_order(),
                           .bytes = bytes,
                           .absent = !there && !foretold,
                           .foretold = foretold});
    for (uint32_t i = ahead.first; i < ahead.end; ++i) {
      const std::string next(names.at(ahead.order, i));
      if (opened.count(next) == 0 && waiting.insert(next).second) ++asked;
    }
    opened.insert(std::string(name));
  }

  DirectoryNames names;
  OpenOrder order;
  FilesAhead ahead;
  std::set<std::string> waiting;
  std::set<std::string> opened;
  unsigned used = 0;
  unsigned asked = 0;
};

}  // namespace

TEST_CASE("shards: the next one by its number, up to the last, and nothing else is one") {
  CHECK(next_shard("model-00001-of-00005.safetensors") == "model-00002-of-00005.safetensors");
  CHECK(next_shard("model-00009-of-00010.safetensors") == "model-00010-of-00010.safetensors");
  CHECK(next_shard("c4-train.00099-of-01024.json.gz") == "c4-train.00100-of-01024.json.gz");
  CHECK(next_shard("model-00005-of-00005.safetensors").empty());
  CHECK(is_shard("model-00005-of-00005.safetensors"));
  CHECK(next_shard("00000-of-00002") == "00001-of-00002");
  for (const char* name : {"model.safetensors", "one-of-two", "1-of-2", "model-0001-of-00005", "model-00001-of-",
                           "-of-00005", "model-of-00005-00001", "model-00001-of-000005", "", "-of-"}) {
    CAPTURE(name);
    CHECK(!is_shard(name));
    CHECK(next_shard(name).empty());
  }
}

TEST_CASE("names: found in both orders, whatever the order of the listing") {
  const Rig rig(1000);
  CHECK(!rig.names.one_order());
  for (uint32_t i = 0; i < 1000; ++i) {
    CHECK(rig.names.at(FileOrder::by_name, i) == name_of(i));
    const auto place = rig.names.find(rig.names.at(FileOrder::listed, i));
    REQUIRE(place);
    CHECK(place->listed == i);
  }
  CHECK(!rig.names.find("img"));
  CHECK(!rig.names.find("zzz"));
  CHECK(Rig(10, true).names.one_order());
}

TEST_CASE("names: too many that are not sorted are not described, sorted ones are") {
  DirectoryNames sorted;
  DirectoryNames shuffled;
  for (uint32_t i = 0; i <= DirectoryNames::sorted_max; ++i) {
    CHECK(sorted.add(name_of(i)));
    CHECK(shuffled.add(name_of(DirectoryNames::sorted_max - i)));
  }
  CHECK(sorted.settle());
  CHECK(!shuffled.settle());
  while (sorted.count() < DirectoryNames::names_max) REQUIRE(sorted.add("x"));
  CHECK(!sorted.add("x"));
}

TEST_CASE("open order: who opens by name or as listed has nearly all foretold, none for nothing") {
  for (const FileOrder order : {FileOrder::by_name, FileOrder::listed}) {
    Rig rig(500);
    for (uint32_t i = 0; i < 500; ++i) {
      rig.open(rig.names.at(order, i));
      CHECK(rig.waiting.size() <= OpenOrder::files_ahead_max);
    }
    CHECK(rig.used >= 497);
    CHECK(rig.waiting.empty());
  }
}

TEST_CASE("open order: who begins in the middle is believed after four, and fetches no more ahead than came") {
  Rig rig(500, true);
  for (uint32_t i = 100; i < 103; ++i) rig.open(name_of(i));
  CHECK(rig.asked == 0);
  rig.open(name_of(103));
  CHECK(rig.asked == 4);
  CHECK(rig.waiting == std::set<std::string>{name_of(104), name_of(105), name_of(106), name_of(107)});
}

TEST_CASE("open order: not more than 4 MiB ahead, and nothing of large files") {
  Rig rig(500, true);
  for (uint32_t i = 0; i < 100; ++i) {
    rig.open(name_of(i), 1'000'000);
    CHECK(rig.waiting.size() * 1'000'000 <= OpenOrder::bytes_ahead_max);
  }
  CHECK(rig.used > 90);
  Rig large(500, true);
  for (uint32_t i = 0; i < 100; ++i) large.open(name_of(i), 2 << 20);
  CHECK(large.asked == 0);
}

TEST_CASE("open order: shuffled epochs of directories of any size are told next to nothing") {
  for (const uint32_t count : {4u, 8u, 16u, 32u, 64u, 200u, 1300u}) {
    unsigned asked = 0;
    unsigned opens = 0;
    unsigned wasted = 0;
    for (uint32_t seed = 0; opens < 200'000; ++seed) {
      Rig rig(count);
      std::vector<uint32_t> numbers(count);
      std::iota(numbers.begin(), numbers.end(), 0u);
      std::mt19937 random(seed);
      for (unsigned epoch = 0; epoch < 3; ++epoch) {
        std::shuffle(numbers.begin(), numbers.end(), random);
        rig.opened.clear();
        for (const uint32_t number : numbers) rig.open(name_of(number));
        opens += count;
      }
      asked += rig.asked;
      wasted += static_cast<unsigned>(rig.waiting.size());
    }
    CAPTURE(count);
    CAPTURE(wasted);
    CHECK(asked * 50 <= opens);  // 2 %, of which most will be opened later
  }
}

TEST_CASE("open order: two opens elsewhere end it, one does not") {
  Rig rig(500, true);
  for (uint32_t i = 0; i < 40; ++i) rig.open(name_of(i));
  const uint32_t stream = rig.ahead.stream;
  REQUIRE(!rig.waiting.empty());
  rig.open(name_of(300));
  CHECK(rig.ahead.stopped_count == 0);
  rig.open(name_of(40));
  CHECK(rig.ahead.stopped_count == 0);
  rig.open(name_of(200));
  CHECK(rig.ahead.stopped_count == 0);
  rig.open(name_of(400));
  REQUIRE(rig.ahead.stopped_count == 1);
  if (stream != 0) CHECK(rig.ahead.stopped[0] == stream);
  CHECK(rig.ahead.empty());
}

TEST_CASE("open order: four workers that take turns at batches are four streams") {
  Rig rig(4096, true);
  for (uint32_t round = 0; round < 4096; round += 4 * 32) {
    for (uint32_t i = 0; i < 32; ++i) {
      for (uint32_t worker = 0; worker < 4; ++worker) rig.open(name_of(round + worker * 32 + i));
    }
  }
  CHECK(rig.used >= 4096 * 80 / 100);
  CHECK(rig.asked <= rig.used + 64);
}

TEST_CASE("open order: nothing is foretold of what is there already, and what goes missing is") {
  Rig rig(500, true);
  for (uint32_t i = 0; i < 200; ++i) rig.open(name_of(i), file_bytes, true);
  CHECK(rig.asked == 0);
  rig.open(name_of(200));
  CHECK(rig.asked > 0);
}

TEST_CASE("open order: who opens in order and does not read has to prove more each time") {
  Rig rig(500, true);
  uint32_t at = 0;
  for (const uint32_t needed : {2u, 8u, 16u}) {
    const unsigned before = rig.asked;
    uint32_t opens = 0;
    while (rig.asked == before) {
      rig.open(name_of(at++));
      ++opens;
    }
    CHECK(opens == needed);
    rig.order.distrust();
    rig.waiting.clear();
  }
}

}  // namespace blobcache
