// Who leaves the disk tier, who may come in, and when a scan stops admission.
#include "cache/eviction.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_set>
#include <vector>

#include <doctest/doctest.h>

namespace blobcache {

namespace {

constexpr uint64_t page = 4096;

uint64_t mixed(uint64_t value) {  // splitmix64
  value += 0x9e3779b97f4a7c15u;
  value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
  value = (value ^ value >> 27) * 0x94d049bb133111ebu;
  return value ^ value >> 31;
}

struct Random {
  uint64_t state;
  uint32_t below(uint64_t limit) { return static_cast<uint32_t>((mixed(state++) >> 32) * limit >> 32); }
};

// A cache of numbered keys, which are their own slots.
struct KeyedCache {
  KeyedCache(size_t keys, uint64_t capacity_pages, bool detect_scans = true)
      : entries(keys),
        present(keys),
        pinned(keys),
        eviction({.entries = entries, .capacity_bytes = capacity_pages * page, .detect_scans = detect_scans}) {}

  bool read(uint32_t key, uint64_t bytes = page) {
    const bool hit = present[key];
    eviction.on_access(mixed(key), bytes, hit);
    if (hit) {
      eviction.on_hit(key);
    } else if (eviction.admits(bytes) && eviction.make_room(bytes, [this](uint32_t slot) { return leave(slot); })) {
      eviction.insert(key, mixed(key), bytes);
      present[key] = true;
    }
    return hit;
  }
  std::optional<uint64_t> leave(uint32_t slot) {
    REQUIRE(present[slot]);
    if (pinned[slot]) return {};
    present[slot] = false;
    evicted.push_back(slot);
    return mixed(slot);
  }
  bool shrink_to(uint64_t pages) {
    return eviction.shrink_to(pages * page, [this](uint32_t slot) { return leave(slot); });
  }

  std::vector<EvictionEntry> entries;
  std::vector<bool> present;
  std::vector<bool> pinned;
  std::vector<uint32_t> evicted;
  Eviction eviction;
};

std::vector<uint32_t> numbers(uint32_t first, uint32_t count) {
  std::vector<uint32_t> keys(count);
  std::iota(keys.begin(), keys.end(), first);
  return keys;
}

void shuffle(std::vector<uint32_t>& keys, Random& random) {
  for (size_t i = keys.size() - 1; i > 0; --i) std::swap(keys[i], keys[random.below(i + 1)]);
}

double share_hit(KeyedCache& cache, const std::vector<uint32_t>& keys) {
  size_t hits = 0;
  for (const uint32_t key : keys) hits += cache.read(key) ? 1 : 0;
  return static_cast<double>(hits) / static_cast<double>(keys.size());
}

// How many of the keys were read when frozen() became this; all of them: it did not.
size_t reads_until(KeyedCache& cache, const std::vector<uint32_t>& keys, bool frozen) {
  for (size_t i = 0; i < keys.size(); ++i) {
    if (cache.eviction.scans().frozen() == frozen) return i;
    cache.read(keys[i]);
  }
  return keys.size();
}

std::vector<uint32_t> zipf_requests(double skew, uint32_t keys, size_t count) {
  std::vector<double> sums(keys);
  double sum = 0;
  for (uint32_t i = 0; i < keys; ++i) sums[i] = sum += std::pow(i + 1, -skew);
  Random random{7};
  std::vector<uint32_t> requests(count);
  for (uint32_t& request : requests) {
    const double at = sum * random.below(uint64_t{1} << 32) / 4294967296.0;
    request = static_cast<uint32_t>(std::lower_bound(sums.begin(), sums.end() - 1, at) - sums.begin());
  }
  return requests;
}

}  // namespace

TEST_CASE("an entry grows and shrinks, and what is used with it") {
  std::vector<EvictionEntry> entries(4);
  Eviction eviction({.entries = entries, .capacity_bytes = 100 * page, .keys_count = 2});
  CHECK(eviction.bytes_of(1) == 0);
  eviction.insert(1, mixed(1), 10 * page);
  eviction.insert(2, mixed(2), 10 * page);
  eviction.grow(1, 30 * page);
  CHECK(eviction.bytes_of(1) == 40 * page);
  CHECK(eviction.used_bytes() == 50 * page);
  eviction.verify();
  eviction.shrink(1, 35 * page);
  CHECK(eviction.bytes_of(1) == 5 * page);
  CHECK(eviction.used_bytes() == 15 * page);
  eviction.verify();
  eviction.remove(1);
  CHECK(eviction.bytes_of(1) == 0);
  CHECK(eviction.used_bytes() == 10 * page);
}

TEST_CASE("how often an entry was read is told, and taken over by another") {
  std::vector<EvictionEntry> entries(8);
  Eviction before({.entries = std::span(entries).first(4), .capacity_bytes = 20 * page, .keys_count = 2});
  for (uint32_t slot = 0; slot < 3; ++slot) before.insert(slot, mixed(slot), 5 * page);
  before.on_hit(1);
  for (int i = 0; i < 2; ++i) before.on_hit(0);
  CHECK(before.victim() == 1);  // 0 has gone to main, and 1 was read once
  before.on_hit(0);
  CHECK(before.frequency(2) == 0);
  CHECK(before.frequency(3) == 0);
  Eviction after({.entries = std::span(entries).last(4), .capacity_bytes = 20 * page, .keys_count = 2});
  for (uint32_t slot = 0; slot < 3; ++slot) after.insert(slot, mixed(slot), 5 * page);
  for (uint32_t slot = 0; slot < 3; ++slot) after.restore(slot, before.frequency(slot));
  for (uint32_t slot = 0; slot < 3; ++slot) CHECK(after.frequency(slot) == before.frequency(slot));
  after.verify();
  CHECK(after.victim() == 1);
  after.restore(2, 255);  // whatever a disk says
  after.verify();
}

TEST_CASE("a sequence by hand") {
  // Ten pages; the young queue is over its share from two pages on.
  KeyedCache cache(20, 10, false);
  for (uint32_t key = 0; key < 10; ++key) CHECK_FALSE(cache.read(key));
  CHECK(cache.evicted.empty());
  CHECK(cache.eviction.used_bytes() == 10 * page);
  // Once more is not enough to stay, twice is: 0 leaves, 1 goes to main, 2 leaves.
  cache.read(0);
  cache.read(1);
  cache.read(1);
  cache.read(10);
  CHECK(cache.evicted == std::vector<uint32_t>{0});
  cache.read(11);
  CHECK(cache.evicted == std::vector<uint32_t>{0, 2});
  // 0 left the young queue a moment ago: it comes back to main, and 3 makes room.
  cache.read(0);
  CHECK(cache.evicted == std::vector<uint32_t>{0, 2, 3});
  // Main holds 1 and 0 and gives nothing as long as more than a page is young. Young: 4 to 11.
  cache.read(1);
  CHECK(cache.shrink_to(3));
  CHECK(cache.evicted == std::vector<uint32_t>{0, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  // Then it is main's turn: 1 was read in there and is passed over once, 0 was not.
  CHECK(cache.shrink_to(2));
  CHECK(cache.evicted.back() == 0);
  CHECK(cache.shrink_to(1));
  CHECK(cache.evicted.back() == 1);
  // Nothing but young ones left.
  CHECK(cache.shrink_to(0));
  CHECK(cache.evicted.back() == 11);
  CHECK(cache.eviction.victim() == Eviction::none);
  CHECK(cache.eviction.used_bytes() == 0);
}

TEST_CASE("what left long ago comes back as new") {
  KeyedCache cache(40, 10, false);
  for (uint32_t key = 0; key < 11; ++key) cache.read(key);
  REQUIRE(cache.evicted == std::vector<uint32_t>{0});
  // A capacity and more leaves after it.
  for (uint32_t key = 11; key < 31; ++key) cache.read(key);
  cache.read(0);
  CHECK(cache.entries[0].queue == EvictionEntry::Queue::young);
  cache.read(20);
  CHECK(cache.entries[20].queue == EvictionEntry::Queue::main);
}

TEST_CASE("evicted keys are found once, while young enough, and the oldest of a bucket is forgotten") {
  EvictedKeys keys(64);
  CHECK(keys.bytes() == 64 * 4);
  keys.insert(mixed(1), 100);
  CHECK_FALSE(keys.take(mixed(2), 100, 10));
  CHECK(keys.take(mixed(1), 110, 10));
  CHECK_FALSE(keys.take(mixed(1), 110, 10));
  keys.insert(mixed(1), 100);
  CHECK_FALSE(keys.take(mixed(1), 111, 10));
  // Ages are 16 bits and go round.
  keys.insert(mixed(1), 65535);
  CHECK(keys.take(mixed(1), 3, 10));
  const auto in_one_bucket = [](uint64_t i) { return i << 52; };
  for (uint64_t i = 1; i <= 9; ++i) keys.insert(in_one_bucket(i), 0);
  CHECK_FALSE(keys.take(in_one_bucket(1), 0, 10));
  for (uint64_t i = 2; i <= 9; ++i) CHECK(keys.take(in_one_bucket(i), 0, 10));
}

TEST_CASE("what is read again stays, however much is read once") {
  KeyedCache cache(100'000, 1000, false);
  const std::vector<uint32_t> hot = numbers(0, 500);
  for (int i = 0; i < 3; ++i) share_hit(cache, hot);
  for (uint32_t first = 1000; first < 90'000; first += 1000) {
    CHECK(share_hit(cache, numbers(first, 1000)) == 0);
    // Few may leave in the first round, where a call for a victim meets looks_max of them in a row.
    REQUIRE(share_hit(cache, hot) >= (first == 1000 ? 0.99 : 1));
  }
}

TEST_CASE("an entry counts with all its pages, and none is larger than the cache") {
  KeyedCache cache(10, 10, false);
  cache.read(0, 1);
  CHECK(cache.eviction.used_bytes() == page);
  cache.read(1, page + 1);
  CHECK(cache.eviction.used_bytes() == 3 * page);
  CHECK_FALSE(cache.eviction.admits(10 * page + 1));
  CHECK_FALSE(cache.eviction.make_room(10 * page + 1, [&](uint32_t slot) { return cache.leave(slot); }));
  CHECK(cache.evicted.empty());
  CHECK(cache.eviction.admits(10 * page));
  cache.read(2, 10 * page);
  CHECK(cache.evicted == std::vector<uint32_t>{0, 1});
  CHECK(cache.eviction.used_bytes() == 10 * page);
  cache.eviction.remove(2);
  CHECK(cache.eviction.used_bytes() == 0);
  CHECK(cache.eviction.entries_count() == 0);
}

TEST_CASE("a smaller capacity is reached by eviction, a larger one is used") {
  KeyedCache cache(300, 100, false);
  share_hit(cache, numbers(0, 100));
  cache.eviction.set_capacity(50 * page);
  CHECK(cache.eviction.used_bytes() == 100 * page);
  cache.read(100);
  CHECK(cache.eviction.used_bytes() == 50 * page);
  cache.eviction.set_capacity(200 * page);
  share_hit(cache, numbers(101, 150));
  CHECK(cache.eviction.used_bytes() == 200 * page);
  cache.eviction.set_capacity(0);
  CHECK_FALSE(cache.eviction.admits(1));
  cache.eviction.verify();
}

TEST_CASE("a refused victim is passed over and stays; all refused ends the search") {
  KeyedCache cache(4000, 1000, false);
  share_hit(cache, numbers(0, 1000));
  for (const uint32_t key : {0u, 1u, 5u, 999u}) cache.pinned[key] = true;
  share_hit(cache, numbers(1000, 2000));
  for (const uint32_t key : {0u, 1u, 5u, 999u}) CHECK(cache.present[key]);
  CHECK(cache.eviction.used_bytes() == 1000 * page);
  // No victim is offered twice before the others have been.
  std::unordered_set<uint32_t> offered;
  CHECK_FALSE(cache.eviction.shrink_to(0, [&](uint32_t slot) -> std::optional<uint64_t> {
    CHECK(offered.insert(slot).second);
    return {};
  }));
  CHECK(offered.size() == Eviction::refusals_max);
  CHECK(cache.eviction.used_bytes() == 1000 * page);
  cache.eviction.verify();
  // What had been refused leaves like any other once it may.
  cache.pinned.assign(cache.pinned.size(), false);
  CHECK(cache.shrink_to(0));
  CHECK(cache.eviction.entries_count() == 0);
}

TEST_CASE("what is held is no victim however little is left, counts, and leaves like any other once it is let go") {
  KeyedCache cache(4000, 1000, false);
  share_hit(cache, numbers(0, 1000));
  for (uint32_t key = 0; key < 900; ++key) {
    cache.eviction.hold(key);
    cache.eviction.hold(key);
  }
  CHECK(cache.eviction.held_bytes() == 900 * page);
  CHECK(cache.eviction.used_bytes() == 1000 * page);
  cache.pinned.assign(900, true);  // would be refused
  cache.pinned.resize(4000);
  share_hit(cache, numbers(1000, 3000));
  cache.eviction.verify();
  for (uint32_t key = 0; key < 900; ++key) CHECK(cache.present[key]);
  CHECK(cache.eviction.used_bytes() == 1000 * page);
  // What it takes may change, and it may be taken out.
  cache.eviction.remove(0);
  cache.present[0] = false;
  CHECK(cache.eviction.held_bytes() == 899 * page);
  cache.eviction.grow(1, page);
  CHECK(cache.eviction.held_bytes() == 900 * page);
  cache.eviction.shrink(1, page);
  // A restart tells of it as of what was read again, and does not let it go.
  CHECK(cache.eviction.frequency(1) >= 4);
  cache.eviction.restore(1, 4);
  CHECK(cache.eviction.is_held(1));
  CHECK_FALSE(cache.shrink_to(0));
  CHECK(cache.eviction.used_bytes() == 899 * page);
  for (uint32_t key = 0; key < 900; ++key) {
    if (cache.present[key]) cache.eviction.let_go(key);
  }
  cache.pinned.assign(4000, false);
  CHECK(cache.eviction.held_bytes() == 0);
  CHECK(cache.shrink_to(0));
  CHECK(cache.eviction.entries_count() == 0);
  cache.eviction.verify();
}

TEST_CASE("a scan of twice the cache keeps half of it, in fixed and in shuffled order") {
  for (const uint32_t chunks : {2000u, 20'000u, 200'000u}) {
    for (const bool shuffled : {false, true}) {
      CAPTURE(chunks);
      CAPTURE(shuffled);
      KeyedCache cache(chunks, chunks / 2);
      std::vector<uint32_t> order = numbers(0, chunks);
      Random random{1};
      double sum = 0;
      for (int epoch = 0; epoch < 4; ++epoch) {
        if (shuffled) shuffle(order, random);
        const double share = share_hit(cache, order);
        if (epoch == 0) {
          CHECK(share == 0);
        } else {
          sum += share;
        }
      }
      CHECK(sum / 3 >= 0.45);
      CHECK(cache.eviction.scans().transitions_count() == 1);
      // The last turns write nothing.
      const size_t evicted = cache.evicted.size();
      CHECK(share_hit(cache, order) == doctest::Approx(0.5).epsilon(0.01));
      CHECK(cache.evicted.size() == evicted);
      CHECK(cache.eviction.scans().nodes_count() <= ScanDetector::nodes_max);
      cache.eviction.verify();
    }
  }
}

TEST_CASE("without the detector the same scan is lost") {
  KeyedCache cache(20'000, 10'000, false);
  const std::vector<uint32_t> order = numbers(0, 20'000);
  double sum = 0;
  for (int epoch = 0; epoch < 4; ++epoch) sum += share_hit(cache, order);
  CHECK(sum / 3 < 0.35);
}

TEST_CASE("admission stops early in the second turn, and goes on soon after other data comes") {
  constexpr uint32_t chunks = 20'000;
  KeyedCache cache(4 * chunks, chunks / 2);
  const std::vector<uint32_t> first = numbers(0, chunks);
  const std::vector<uint32_t> second = numbers(chunks, chunks);
  CHECK(reads_until(cache, first, true) == chunks);
  const size_t seen = reads_until(cache, first, true);
  CHECK(seen < chunks / 20);
  share_hit(cache, {first.begin() + static_cast<ptrdiff_t>(seen), first.end()});
  CHECK(cache.eviction.scans().frozen());
  // New data: nothing comes again.
  CHECK(reads_until(cache, second, false) < chunks / 2);
  share_hit(cache, numbers(2 * chunks, 2 * chunks));
  CHECK_FALSE(cache.eviction.scans().frozen());
  CHECK(cache.eviction.scans().transitions_count() == 2);
}

TEST_CASE("the second data set is kept like the first, and what follows popular data too") {
  constexpr uint32_t chunks = 20'000;
  for (const bool popular_first : {false, true}) {
    CAPTURE(popular_first);
    KeyedCache cache(3 * chunks, chunks / 2);
    if (popular_first) {
      share_hit(cache, zipf_requests(0.9, chunks, 200'000));
    } else {
      for (int epoch = 0; epoch < 5; ++epoch) share_hit(cache, numbers(0, chunks));
    }
    const std::vector<uint32_t> second = numbers(chunks, chunks);
    double share = 0;
    for (int epoch = 0; epoch < 5; ++epoch) share = share_hit(cache, second);
    CHECK(share >= 0.45);
    if (!popular_first) continue;
    // And popularity comes back.
    KeyedCache fresh(chunks, chunks / 2);
    const std::vector<uint32_t> popular = zipf_requests(0.9, chunks, 200'000);
    CHECK(share_hit(cache, popular) >= share_hit(fresh, popular) - 0.05);
  }
}

TEST_CASE("a scan that comes to fit ends the freeze") {
  constexpr uint32_t chunks = 20'000;
  KeyedCache cache(2 * chunks, chunks / 2);
  for (int epoch = 0; epoch < 3; ++epoch) share_hit(cache, numbers(0, chunks));
  REQUIRE(cache.eviction.scans().frozen());
  const std::vector<uint32_t> small = numbers(chunks, chunks / 4);
  double share = 0;
  for (int epoch = 0; epoch < 6; ++epoch) share = share_hit(cache, small);
  CHECK(share == 1);
  CHECK_FALSE(cache.eviction.scans().frozen());
}

TEST_CASE("a frozen cache whose half is not the one that is read lets in what is") {
  constexpr uint32_t chunks = 8000;
  KeyedCache cache(2 * chunks, chunks / 2);
  const std::vector<uint32_t> earlier = numbers(chunks, chunks);
  share_hit(cache, earlier);
  for (int epoch = 0; epoch < 3; ++epoch) share_hit(cache, numbers(0, chunks));
  REQUIRE(cache.eviction.scans().frozen());
  // These come again from far away, so they look like a scan at once, but nothing of them is in the cache.
  double share = 0;
  for (int epoch = 0; epoch < 5; ++epoch) share = share_hit(cache, earlier);
  CHECK(share >= 0.45);
}

TEST_CASE("popularity, data read once and what fits are no cyclic scans") {
  for (const double skew : {0.7, 0.9, 1.1, 1.3}) {
    for (const uint32_t capacity : {500u, 5000u}) {
      CAPTURE(skew);
      CAPTURE(capacity);
      KeyedCache cache(50'000, capacity);
      share_hit(cache, zipf_requests(skew, 50'000, 300'000));
      CHECK(cache.eviction.scans().transitions_count() == 0);
    }
  }
  KeyedCache once(200'000, 1000);
  share_hit(once, numbers(0, 200'000));
  CHECK(once.eviction.scans().transitions_count() == 0);
  KeyedCache fits(900, 1000);
  for (int epoch = 0; epoch < 50; ++epoch) share_hit(fits, numbers(0, 900));
  CHECK(fits.eviction.scans().transitions_count() == 0);
}

TEST_CASE("a frozen cache still fills what is free") {
  constexpr uint32_t chunks = 4000;
  KeyedCache cache(chunks, chunks / 2);
  const std::vector<uint32_t> order = numbers(0, chunks);
  for (int epoch = 0; epoch < 3; ++epoch) share_hit(cache, order);
  REQUIRE(cache.eviction.scans().frozen());
  CHECK_FALSE(cache.eviction.admits(page));
  REQUIRE(cache.shrink_to(chunks / 2 - 100));
  CHECK(cache.eviction.admits(page));
  share_hit(cache, order);
  CHECK(cache.eviction.used_bytes() == chunks / 2 * page);
  CHECK(share_hit(cache, order) == 0.5);
}

TEST_CASE("the sample follows the number of chunks") {
  // From pieces of a page to pieces of a hundred and back: the sample halves, and grows again.
  KeyedCache cache(1'000'000, 100'000);
  share_hit(cache, numbers(0, 800'000));
  CHECK(cache.eviction.scans().nodes_count() > ScanDetector::nodes_max / 4);
  CHECK_FALSE(cache.eviction.scans().samples(1));
  CHECK(cache.eviction.scans().samples(0));
  cache.eviction.verify();
  // Far more than is remembered, so that nothing small is left in the sample.
  for (uint32_t key = 800'000; key < 832'000; ++key) cache.read(key, 100 * page);
  CHECK(cache.eviction.scans().nodes_count() > ScanDetector::nodes_max / 16);
  cache.eviction.verify();
  for (int epoch = 0; epoch < 5; ++epoch) {
    for (uint32_t key = 800'000; key < 802'000; ++key) cache.read(key, 100 * page);
  }
  CHECK(cache.eviction.scans().frozen());
  cache.eviction.verify();
}

TEST_CASE("the same calls give the same victims") {
  KeyedCache one(5000, 1000);
  KeyedCache other(5000, 1000);
  Random random{3};
  for (int i = 0; i < 200'000; ++i) {
    const uint32_t key = random.below(random.below(2) == 0 ? 500 : 5000);
    const uint64_t bytes = (mixed(key) % 20 + 1) * page;
    REQUIRE(one.read(key, bytes) == other.read(key, bytes));
  }
  CHECK(one.evicted == other.evicted);
  CHECK(one.evicted.size() > 10'000);
}

TEST_CASE("a million random calls leave queues, sums and entries agreed") {
  constexpr uint32_t keys = 3000;
  KeyedCache cache(keys, 4000);
  Random random{11};
  uint64_t pages_present = 0;
  std::vector<uint64_t> pages_of(keys);
  const auto leave = [&](uint32_t slot) -> std::optional<uint64_t> {
    REQUIRE(cache.present[slot]);
    if (random.below(10) == 0) return {};
    cache.present[slot] = false;
    pages_present -= pages_of[slot];
    return mixed(slot);
  };
  uint64_t capacity_pages = 4000;
  for (int i = 0; i < 1'000'000; ++i) {
    const uint32_t key = random.below(random.below(3) == 0 ? keys / 10 : keys);
    const uint32_t kind = random.below(1000);
    if (kind == 0) {
      capacity_pages = 3000 + random.below(2000);
      cache.eviction.set_capacity(capacity_pages * page);
    } else if (kind == 1) {
      (void)cache.eviction.shrink_to(random.below(4000) * page, leave);
    } else if (kind < 50) {
      if (cache.present[key]) {
        cache.eviction.remove(key);
        cache.present[key] = false;
        pages_present -= pages_of[key];
      }
    } else {
      const uint64_t pages = mixed(key) % 64 == 0 ? 200 : mixed(key) % 5 + 1;
      cache.eviction.on_access(mixed(key), pages * page, cache.present[key]);
      if (cache.present[key]) {
        cache.eviction.on_hit(key);
      } else if (cache.eviction.admits(pages * page) && cache.eviction.make_room(pages * page, leave)) {
        cache.eviction.insert(key, mixed(key), pages * page);
        cache.present[key] = true;
        pages_present += pages_of[key] = pages;
        REQUIRE(cache.eviction.used_bytes() <= capacity_pages * page);
      }
    }
    REQUIRE(cache.eviction.used_bytes() == pages_present * page);
    if (i % 20'000 == 0) cache.eviction.verify();
  }
  cache.eviction.verify();
}

}  // namespace blobcache
