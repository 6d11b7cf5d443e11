// eviction_bench: the eviction policies side by side on the same requests (P18).
//
//   eviction_bench --list                    names of the built-in workloads, a line each with what they are
//   eviction_bench WORKLOAD                  a line of JSON for each policy, with and without the scan detector
//   eviction_bench --write FILE              a generated trace of 10 million requests
//   eviction_bench --trace FILE [PERCENT]    replays one, the cache being so much of the bytes seen (5)
//
// Traces are in libCacheSim's oracleGeneral format: records of 24 bytes, little-endian, packed: u32 time in s, u64
// object, u32 bytes, i64 next access (unused here). Public traces come in it, so any of them can be replayed.
//
// Keys are small numbers and found by them, so that little of the time is look-up: what is measured is policy and
// detector. Policies get entries for twice what the cache holds of the mean size, and size their own memory by that.
// Hits are counted after the first turn of an epoch workload, after a tenth of any other.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cache/eviction.h"
#include "eviction_rivals.h"

namespace {

using namespace blobcache;

uint64_t mixed(uint64_t value) {  // splitmix64
  value += 0x9e3779b97f4a7c15u;
  value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
  value = (value ^ value >> 27) * 0x94d049bb133111ebu;
  return value ^ value >> 31;
}

struct Random {
  uint64_t state;
  uint64_t next() { return mixed(state++); }
  uint32_t below(uint64_t limit) { return static_cast<uint32_t>((next() >> 32) * limit >> 32); }
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }
};

struct Workload {
  std::vector<uint32_t> keys;   // in the order of the requests
  std::vector<uint32_t> pages;  // of each key
  uint64_t capacity_pages = 0;
  size_t warm_requests = 0;

  uint64_t pages_total() const { return std::accumulate(pages.begin(), pages.end(), uint64_t{0}); }
};

class Zipf {
 public:
  Zipf(double skew, uint32_t keys) : sums_(keys) {
    double sum = 0;
    for (uint32_t i = 0; i < keys; ++i) sums_[i] = sum += std::pow(i + 1, -skew);
  }
  uint32_t next(Random& random) const {
    const auto found = std::lower_bound(sums_.begin(), sums_.end(), random.unit() * sums_.back());
    return static_cast<uint32_t>(found - sums_.begin());
  }

 private:
  std::vector<double> sums_;
};

void shuffle(std::vector<uint32_t>& keys, Random& random) {
  for (size_t i = keys.size() - 1; i > 0; --i) std::swap(keys[i], keys[random.below(i + 1)]);
}

// Three quarters small files, a quarter pieces of up to 4 MiB; the cache holds a tenth of the bytes.
Workload make_zipf(double skew, uint32_t keys, size_t requests) {
  Workload load;
  Random random{1};
  for (uint32_t i = 0; i < keys; ++i) load.pages.push_back((1 + random.below(16)) * (random.below(4) == 0 ? 64 : 1));
  const Zipf zipf(skew, keys);
  for (size_t i = 0; i < requests; ++i) load.keys.push_back(zipf.next(random));
  load.capacity_pages = load.pages_total() / 10;
  load.warm_requests = requests / 10;
  return load;
}

// Four turns over twice the cache, in chunks of 256 KiB to 4 MiB.
Workload make_epochs(bool shuffled, uint32_t chunks) {
  Workload load;
  Random random{2};
  for (uint32_t i = 0; i < chunks; ++i) load.pages.push_back(64 + random.below(961));
  std::vector<uint32_t> order(chunks);
  std::iota(order.begin(), order.end(), 0);
  for (int epoch = 0; epoch < 4; ++epoch) {
    if (shuffled) shuffle(order, random);
    load.keys.insert(load.keys.end(), order.begin(), order.end());
  }
  load.capacity_pages = load.pages_total() / 2;
  load.warm_requests = chunks;
  return load;
}

// Four models of 15 % of the cache each, one after the other read whole; between two of them, a quarter of a scan that
// is twice the cache. The best that can be kept are the models and a fifth of the scan: 38 %.
Workload make_models() {
  Workload load;
  Random random{3};
  constexpr uint32_t models = 4;
  constexpr uint32_t model_chunks = 600;
  constexpr uint32_t scan_chunks = 8000;
  load.pages.assign(models * model_chunks + scan_chunks, 1024);
  uint32_t position = 0;
  for (int load_count = 0; load_count < 200; ++load_count) {
    const uint32_t model = random.below(models);
    for (uint32_t i = 0; i < model_chunks; ++i) load.keys.push_back(model * model_chunks + i);
    for (uint32_t i = 0; i < scan_chunks / 4; ++i)
      load.keys.push_back(models * model_chunks + position++ % scan_chunks);
  }
  load.capacity_pages = 4000 * 1024;
  load.warm_requests = load.keys.size() / 10;
  return load;
}

std::vector<uint32_t> add_scan(Workload& load, uint64_t pages, uint32_t chunk_pages) {
  std::vector<uint32_t> keys;
  for (uint64_t sum = 0; sum < pages; sum += chunk_pages) {
    keys.push_back(static_cast<uint32_t>(load.pages.size()));
    load.pages.push_back(chunk_pages);
  }
  return keys;
}

// Zipf 0.9, every ninth request one of a scan of twice the cache.
Workload make_mix() {
  Workload load = make_zipf(0.9, 200'000, 2'000'000);
  const std::vector<uint32_t> scan = add_scan(load, load.capacity_pages * 2, 256);
  std::vector<uint32_t> keys;
  for (size_t i = 0; i < load.keys.size(); ++i) {
    keys.push_back(load.keys[i]);
    if (i % 8 == 0) keys.push_back(scan[i / 8 % scan.size()]);
  }
  load.keys = std::move(keys);
  return load;
}

// Zipf 0.9; then five turns over twice the cache; then Zipf 0.9 over other keys. All is counted.
Workload make_phases() {
  Workload load = make_zipf(0.9, 100'000, 700'000);
  const std::vector<uint32_t> popular = load.keys;
  const std::vector<uint32_t> sizes = load.pages;
  const std::vector<uint32_t> scan = add_scan(load, load.capacity_pages * 2, 64);
  for (int epoch = 0; epoch < 5; ++epoch) load.keys.insert(load.keys.end(), scan.begin(), scan.end());
  const auto first = static_cast<uint32_t>(load.pages.size());
  load.pages.insert(load.pages.end(), sizes.begin(), sizes.end());
  for (const uint32_t key : popular) load.keys.push_back(first + key);
  load.warm_requests = 0;
  return load;
}

struct __attribute__((packed)) TraceRecord {
  uint32_t time_s;
  uint64_t object;
  uint32_t bytes;
  int64_t next_access;
};
static_assert(sizeof(TraceRecord) == 24);

// As block and object traces are: a popular set (Zipf 1.0) that drifts, runs of keys read once, and a slow cyclic scan.
void write_trace(const char* path, size_t requests) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path, "wb"), std::fclose);
  if (!file) std::exit(1);
  Random random{5};
  const Zipf zipf(1.0, 200'000);
  uint64_t scanned = 0;
  for (size_t i = 0; i < requests;) {
    uint64_t object = 0;
    unsigned run = 1;
    const double kind = random.unit();
    if (kind < 0.85) {
      object = (mixed(zipf.next(random)) + i / 16) % 1'000'000;
    } else if (kind < 0.852) {
      run = 64;
      object = 2'000'000 + i;
    } else {
      object = 1'000'000 + scanned++ % 400'000;
    }
    for (; run > 0 && i < requests; --run, ++object, ++i) {
      const auto pages =
          static_cast<uint32_t>(mixed(object) % 3 == 0 ? 1 + mixed(object + 1) % 256 : 1 + mixed(object + 1) % 8);
      const TraceRecord record{static_cast<uint32_t>(i / 1000), object, pages * 4096, -1};
      if (std::fwrite(&record, sizeof record, 1, file.get()) != 1) std::exit(1);
    }
  }
}

Workload read_trace(const char* path, unsigned percent) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path, "rb"), std::fclose);
  if (!file) std::exit(1);
  Workload load;
  std::unordered_map<uint64_t, uint32_t> numbers;
  TraceRecord record;
  while (std::fread(&record, sizeof record, 1, file.get()) == 1) {
    const auto [found, added] = numbers.try_emplace(record.object, static_cast<uint32_t>(load.pages.size()));
    if (added) load.pages.push_back(std::max(1u, static_cast<uint32_t>((uint64_t{record.bytes} + 4095) / 4096)));
    load.keys.push_back(found->second);
  }
  load.capacity_pages = load.pages_total() * percent / 100;
  load.warm_requests = load.keys.size() / 10;
  return load;
}

// A rival behind the detector, or alone.
template <class Policy>
class Rival {
 public:
  Rival(std::span<EvictionEntry> entries, uint64_t capacity_pages, bool detect)
      : policy_(entries, capacity_pages), scans_(capacity_pages), capacity_pages_(capacity_pages), detect_(detect) {}

  void on_access(uint64_t hash, uint32_t pages, bool hit) {
    if (detect_ && scans_.samples(hash)) scans_.on_access(hash, pages, hit);
    if (!hit) policy_.on_miss(hash);
  }
  void on_hit(uint32_t slot) { policy_.on_hit(slot); }
  bool admits(uint32_t pages) const {
    return policy_.used_pages() + pages <= capacity_pages_ || !(detect_ && scans_.frozen());
  }
  template <class Leave>
  void make_room(uint32_t pages, Leave&& leave) {
    while (policy_.used_pages() + pages > capacity_pages_) {
      const uint32_t victim = policy_.victim();
      policy_.evict(victim);
      leave(victim);
    }
  }
  void insert(uint32_t slot, uint64_t hash, uint32_t pages) { policy_.insert(slot, hash, pages); }
  static unsigned bytes_per_entry() { return Policy::bytes_per_entry; }

 private:
  Policy policy_;
  ScanDetector scans_;
  uint64_t capacity_pages_;
  bool detect_;
};

class Ours {
 public:
  Ours(std::span<EvictionEntry> entries, uint64_t capacity_pages, bool detect)
      : eviction_({.entries = entries, .capacity_bytes = capacity_pages * 4096, .detect_scans = detect}) {}

  void on_access(uint64_t hash, uint32_t pages, bool hit) { eviction_.on_access(hash, uint64_t{pages} * 4096, hit); }
  void on_hit(uint32_t slot) { eviction_.on_hit(slot); }
  bool admits(uint32_t pages) const { return eviction_.admits(uint64_t{pages} * 4096); }
  template <class Leave>
  void make_room(uint32_t pages, Leave&& leave) {
    const auto evict = [&](uint32_t slot) { return std::optional<uint64_t>(leave(slot)); };
    if (!eviction_.make_room(uint64_t{pages} * 4096, evict)) std::abort();
  }
  void insert(uint32_t slot, uint64_t hash, uint32_t pages) { eviction_.insert(slot, hash, uint64_t{pages} * 4096); }
  static unsigned bytes_per_entry() { return sizeof(EvictionEntry) + sizeof(uint32_t); }

 private:
  Eviction eviction_;
};

struct Tally {
  uint64_t requests = 0;
  uint64_t pages = 0;
  uint64_t hits = 0;
  uint64_t hit_pages = 0;
  uint64_t written_pages = 0;
};

// The slots of the entries and which key is in which.
struct Slots {
  Slots(size_t keys, size_t slots) : entries(slots), key_of(slots), slot_of(keys, rivals::none) {
    for (size_t slot = slots; slot > 0; --slot) free.push_back(static_cast<uint32_t>(slot - 1));
  }
  uint32_t take(uint32_t key) {
    if (free.empty()) std::abort();
    const uint32_t slot = free.back();
    free.pop_back();
    key_of[slot] = key;
    return slot_of[key] = slot;
  }
  uint64_t leave(uint32_t slot) {
    slot_of[key_of[slot]] = rivals::none;
    free.push_back(slot);
    return mixed(key_of[slot]);
  }
  std::vector<EvictionEntry> entries;
  std::vector<uint32_t> key_of;
  std::vector<uint32_t> slot_of;
  std::vector<uint32_t> free;
};

template <class Cache>
void replay(const char* name, const Workload& load, bool detect) {
  const size_t expected = load.capacity_pages * load.pages.size() / load.pages_total();
  Slots slots(load.pages.size(), std::min(load.pages.size(), 2 * expected + 64));
  Cache cache(slots.entries, load.capacity_pages, detect);
  Tally tally;
  const auto begin = std::chrono::steady_clock::now();
  for (size_t i = 0; i < load.keys.size(); ++i) {
    if (i == load.warm_requests) tally = {};
    const uint32_t key = load.keys[i];
    const uint32_t pages = load.pages[key];
    const uint64_t hash = mixed(key);
    const bool hit = slots.slot_of[key] != rivals::none;
    cache.on_access(hash, pages, hit);
    ++tally.requests;
    tally.pages += pages;
    if (hit) {
      cache.on_hit(slots.slot_of[key]);
      ++tally.hits;
      tally.hit_pages += pages;
    } else if (cache.admits(pages)) {
      cache.make_room(pages, [&](uint32_t slot) { return slots.leave(slot); });
      cache.insert(slots.take(key), hash, pages);
      tally.written_pages += pages;
    }
  }
  const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - begin;
  const auto percent = [](uint64_t part, uint64_t whole) {
    return 100.0 * static_cast<double>(part) / static_cast<double>(whole);
  };
  std::printf(
      "{\"policy\": \"%s\", \"detector\": %s, \"requests\": %zu, \"bytes_hit\": %.2f, \"requests_hit\": %.2f, "
      "\"bytes_written\": %.2f, \"ns\": %.1f, \"bytes_per_entry\": %u}\n",
      name, detect ? "true" : "false", load.keys.size(), percent(tally.hit_pages, tally.pages),
      percent(tally.hits, tally.requests), percent(tally.written_pages, tally.pages),
      taken.count() / static_cast<double>(load.keys.size()), Cache::bytes_per_entry());
}

void replay_all(const Workload& load) {
  for (const bool detect : {false, true}) {
    replay<Rival<rivals::Lru>>("LRU", load, detect);
    replay<Rival<rivals::Sieve>>("SIEVE", load, detect);
    replay<Rival<rivals::WTinyLfu>>("W-TinyLFU", load, detect);
    replay<Ours>("S3-FIFO", load, detect);
  }
}

struct Named {
  const char* name;
  const char* what;
  Workload (*make)();
};

constexpr Named workloads[] = {
    {"zipf0.9", "Zipf 0.9, cache a tenth", [] { return make_zipf(0.9, 400'000, 2'000'000); }},
    {"zipf1.1", "Zipf 1.1, cache a tenth", [] { return make_zipf(1.1, 400'000, 2'000'000); }},
    {"fixed", "epochs of 2 x the cache, fixed", [] { return make_epochs(false, 20'000); }},
    {"shuffled", "epochs of 2 x the cache, shuffled", [] { return make_epochs(true, 20'000); }},
    {"shuffled1000", "epochs of 2 x a cache of 500 chunks, shuffled", [] { return make_epochs(true, 1'000); }},
    {"models", "models read whole over a scan", make_models},
    {"mix", "Zipf 0.9 with a scan of 2 x the cache", make_mix},
    {"phases", "Zipf 0.9, a scan, another Zipf 0.9", make_phases},
};

int usage() {
  std::fputs("eviction_bench --list | WORKLOAD | --write FILE | --trace FILE [PERCENT]\n", stderr);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return usage();
  const std::string_view command = argv[1];
  if (command == "--list") {
    for (const Named& each : workloads) std::printf("%s %s\n", each.name, each.what);
    return 0;
  }
  if (command == "--write" && argc == 3) {
    write_trace(argv[2], 10'000'000);
    return 0;
  }
  if (command == "--trace" && argc >= 3) {
    replay_all(read_trace(argv[2], argc > 3 ? static_cast<unsigned>(std::atoi(argv[3])) : 5));
    return 0;
  }
  for (const Named& each : workloads) {
    if (command != each.name) continue;
    replay_all(each.make());
    return 0;
  }
  return usage();
}
