// The table of the disk index against a map, with hashes as they should be and as they should not.
#include "cache/disk_table.h"

#include <map>
#include <random>
#include <set>
#include <vector>

#include <doctest/doctest.h>

namespace blobcache {

namespace {

enum class Hashes : uint8_t { uniform, one_beginning, all_the_same };
constexpr Hashes all_hashes[] = {Hashes::uniform, Hashes::one_beginning, Hashes::all_the_same};

uint64_t hash_of(uint64_t key, Hashes hashes) {
  const uint64_t mixed = disk_format::seed_of(key, 17, 23);
  const uint64_t uniform = mixed ^ (mixed >> 32);
  if (hashes == Hashes::one_beginning) return uniform & 0x3ff;  // one tag, and few buckets
  return hashes == Hashes::uniform ? uniform : 42;
}

struct Item {
  uint64_t hash_bits = 0;
  uint64_t key = 0;
  uint64_t value = 0;
  uint64_t hash() const { return hash_bits; }
};

// Some parts of a table, and the same as a map.
class Pair {
 public:
  using Table = DiskTable<Item, 10>;

  Pair(uint32_t items_max, Hashes hashes, unsigned parts_count = 1) : hashes_(hashes) {
    REQUIRE(table.allocate(items_max));
    for (unsigned i = 0; i < parts_count; ++i) parts.push_back(table.part(i));
  }
  Table::Part& part_of(uint64_t key) { return parts[key % parts.size()]; }

  uint32_t find(uint64_t key) const {
    return table.find(parts[key % parts.size()], hash_of(key, hashes_),
                      [&](const Item& item) { return item.key == key; });
  }
  bool add(uint64_t key, uint64_t value) {
    const uint32_t slot = table.acquire();
    if (slot == disk_slot_none) return false;
    table[slot] = {.hash_bits = hash_of(key, hashes_), .key = key, .value = value};
    table.link(part_of(key), slot);
    CHECK(model.emplace(key, value).second);
    return true;
  }
  void remove(uint64_t key) {
    const uint32_t slot = find(key);
    REQUIRE(slot != disk_slot_none);
    table.unlink(part_of(key), slot);
    table.release(slot);
    model.erase(key);
  }
  // Both know the same, by find() and by a walk.
  void check(uint64_t keys) const {
    uint64_t wrong = 0;
    for (uint64_t key = 0; key < keys; ++key) {
      const uint32_t slot = find(key);
      const auto known = model.find(key);
      wrong += (slot != disk_slot_none) != (known != model.end());
      wrong += slot != disk_slot_none && known != model.end() && table[slot].value != known->second;
    }
    CHECK(wrong == 0);
    std::map<uint64_t, uint64_t> met;
    uint64_t twice = 0;
    for (const Table::Part& part : parts) {
      for (uint32_t bucket = 0; bucket < part.shape.buckets; ++bucket)
        table.each(part, bucket,
                   [&](uint32_t slot) { twice += !met.emplace(table[slot].key, table[slot].value).second; });
    }
    CHECK(twice == 0);
    CHECK(met == model);
    CHECK(table.in_use() == model.size());
  }

  Table table;
  std::vector<Table::Part> parts;
  std::map<uint64_t, uint64_t> model;

 private:
  Hashes hashes_;
};

}  // namespace

TEST_CASE("the table of the disk index knows what a map knows, full or not, whatever the hashes are") {
  for (const Hashes hashes : all_hashes) {
    for (const uint32_t items_max : {1u, 2u, 15u, 16u, 17u, 100u, 1000u, 40000u}) {
      CAPTURE(static_cast<int>(hashes));
      CAPTURE(items_max);
      const bool large = items_max > 1000;
      if (large && hashes == Hashes::all_the_same) continue;  // each operation would look at all
      Pair pair(items_max, hashes, large ? 64 : 1);
      std::mt19937_64 random(items_max);
      const uint64_t keys = items_max + items_max / 4 + 1;
      // Filled, emptied and filled again, at random: all of it in one part, which makes chains, or in all, which splits.
      for (unsigned round = 0; round < 6; ++round) {
        for (uint64_t i = 0; i < keys * 3; ++i) {
          const uint64_t key = random() % keys;
          const bool adds = random() % 8 < (round % 2 == 0 ? 7 : 1);
          const bool known = pair.find(key) != disk_slot_none;
          if (known && !adds) pair.remove(key);
          if (known || !adds) continue;
          const bool room = pair.model.size() < items_max;
          CHECK(pair.add(key, random()) == room);
        }
        pair.check(keys);
      }
      for (uint64_t key = 0; pair.model.size() < items_max; ++key) {
        if (!pair.model.contains(key)) REQUIRE(pair.add(key, key));
      }
      CHECK_FALSE(pair.add(keys, 1));
      pair.check(keys);
      while (!pair.model.empty()) pair.remove(pair.model.begin()->first);
      pair.check(keys);
    }
  }
}

TEST_CASE("the memory of the disk index follows its use, and what is given back is used again") {
  constexpr uint32_t items_max = 200000;
  DiskTable<Item, 10> table;
  REQUIRE(table.allocate(items_max));
  std::vector<DiskTable<Item, 10>::Part> parts;
  for (unsigned i = 0; i < table.parts; ++i) parts.push_back(table.part(i));
  CHECK(table.memory_bytes() <= 64 * 64 * 32);
  size_t bytes_before = 0;
  for (unsigned time = 0; time < 3; ++time) {
    std::vector<uint32_t> slots;
    double bytes_max = 0;
    for (uint64_t key = 0; key < items_max; ++key) {
      slots.push_back(table.acquire());
      table[slots.back()] = {.hash_bits = hash_of(key, Hashes::uniform), .key = key};
      table.link(parts[key % parts.size()], slots.back());
      if (time == 0 && key >= items_max / 4)
        bytes_max = std::max(bytes_max, static_cast<double>(table.memory_bytes()) / static_cast<double>(key + 1));
    }
    if (time == 0) CHECK(bytes_max <= sizeof(Item) + 11);
    CHECK(static_cast<double>(table.memory_bytes()) / items_max <= sizeof(Item) + 7.5);
    if (time > 0) CHECK(table.memory_bytes() == bytes_before);
    bytes_before = table.memory_bytes();
    for (uint64_t key = 0; key < items_max; ++key) {
      table.unlink(parts[key % parts.size()], slots[key]);
      table.release(slots[key]);
    }
  }
  CHECK(table.in_use() == 0);
}

TEST_CASE("a walk of the table removes what it is at") {
  for (const Hashes hashes : all_hashes) {
    CAPTURE(static_cast<int>(hashes));
    Pair pair(2000, hashes);
    for (uint64_t key = 0; key < 2000; ++key) REQUIRE(pair.add(key, key));
    for (uint32_t bucket = 0; bucket < pair.parts[0].shape.buckets; ++bucket) {
      pair.table.each(pair.parts[0], bucket, [&](uint32_t slot) {
        if (pair.table[slot].key % 3 != 0) pair.remove(pair.table[slot].key);
      });
    }
    CHECK(pair.model.size() == 667);
    pair.check(2000);
  }
}

TEST_CASE("a walk of the table misses nothing that stays, while others come and go between its pieces") {
  for (const Hashes hashes : all_hashes) {
    CAPTURE(static_cast<int>(hashes));
    Pair pair(200000, hashes);
    std::mt19937_64 random(7);
    for (uint64_t key = 0; key < 400; ++key) REQUIRE(pair.add(key, key));
    const uint32_t buckets_before = pair.parts[0].shape.buckets;  // a round of splits is over: some are to come
    std::set<uint64_t> met;
    for (uint32_t bucket = 0; bucket < pair.parts[0].shape.buckets; ++bucket) {
      pair.table.each(pair.parts[0], bucket, [&](uint32_t slot) { met.insert(pair.table[slot].key); });
      // The first 200 stay.
      for (unsigned i = 0; i < 60; ++i) {
        const uint64_t key = 200 + random() % 5500;
        if (pair.find(key) == disk_slot_none)
          REQUIRE(pair.add(key, key));
        else if (random() % 4 == 0)
          pair.remove(key);
      }
    }
    if (hashes == Hashes::uniform) CHECK(pair.parts[0].shape.buckets > buckets_before * 4);
    uint64_t missed = 0;
    for (uint64_t key = 0; key < 200; ++key) missed += !met.contains(key);
    CHECK(missed == 0);
    pair.check(5700);
  }
}

}  // namespace blobcache
