// What one seed decides: the files there are, how the cache is set up, and the bytes of every version of every file, which
// anyone can say again.
//   Thread    plain values and pure functions
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/limits.h"
#include "cache/disk_format.h"

namespace blobcache::chaos {

inline constexpr uint64_t KiB = limits::KiB;
inline constexpr uint64_t MiB = limits::MiB;

class Random {
 public:
  Random(uint64_t seed, uint64_t stream) : state_(disk_format::seed_of(seed + 1, stream + 1, 0x6368616f73)) {}
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t mixed = (state_ ^ (state_ >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 31);
  }
  // 0 .. end - 1
  uint64_t below(uint64_t end) { return next() % end; }
  uint64_t between(uint64_t first, uint64_t last) { return first + below(last - first + 1); }
  bool chance(unsigned percent) { return below(100) < percent; }

 private:
  uint64_t state_;
};

struct World {
  uint64_t seed = 0;
  bool healthy = false;  // nothing is damaged, nobody is killed: then all must come from the disk the second time
  unsigned lives = 0;
  unsigned keys = 0;
  unsigned disks = 1;
  uint64_t chunk_bytes = 0;
  uint64_t limit_bytes = 0;  // of each disk
  uint64_t arena_bytes = 0;
  bool verify_always = false;
  bool links = false;       // replies go out linked behind their disk reads, as on the uring transport
  bool registered = false;  // the ring knows the memory
  bool scrubs = false;
  unsigned origin_fails_permille = 0;
  unsigned young_percent = 0;

  bool changes(unsigned key) const { return !healthy && disk_format::seed_of(seed, key, 1) % 4 == 0; }
  uint64_t size_of(unsigned key, unsigned version) const {
    Random random(seed ^ 0x73697a65, uint64_t{key} << 32 | version);
    const uint64_t kind = random.below(100);
    if (kind < 20) return random.between(1, 4 * KiB);
    if (kind < 45) return random.between(1, 64 * KiB);
    if (kind < 75) return random.between(1, 300 * KiB);
    if (kind < 92) return random.between(64 * KiB, 1536 * KiB);
    if (kind < 98) return random.between(4 * MiB - 64 * KiB, 9 * MiB);
    return random.between(28 * MiB, 40 * MiB);  // two sidecar pages
  }
  uint64_t base_of(unsigned key, unsigned version) const {
    return disk_format::seed_of(seed * 1021 + key, version, 0x6279746573);
  }
};

inline World make_world(uint64_t seed) {
  Random random(seed, 0);
  constexpr uint64_t chunks[] = {128 * KiB, 256 * KiB, 1 * MiB};
  World world;
  world.seed = seed;
  world.healthy = seed % 8 == 0;
  world.lives = world.healthy ? 2 : static_cast<unsigned>(random.between(2, 4));
  world.keys = static_cast<unsigned>(random.between(4, 14));
  world.disks = random.chance(25) ? 2 : 1;
  world.chunk_bytes = chunks[random.below(3)];
  world.limit_bytes = world.healthy || random.chance(60) ? 1024 * MiB : random.between(2, 12) * MiB;
  world.arena_bytes = world.healthy ? 32 * MiB : (uint64_t{8} << random.below(2)) * MiB;
  world.verify_always = !world.healthy && random.chance(25);
  world.links = random.chance(60);
  world.registered = random.chance(15);
  world.scrubs = !world.healthy && random.chance(30);
  world.origin_fails_permille = !world.healthy && random.chance(30) ? 30 : 0;
  world.young_percent = !world.healthy && random.chance(20) ? 10 : 0;
  return world;
}

inline uint64_t word_of(uint64_t base, uint64_t index) {
  return (base ^ index * 0xd6e8feb86659fd93u) * 0x9e3779b97f4a7c15u;
}

// One word after the other, with a part of one at either end.
template <class Take>
void for_each_word(uint64_t base, uint64_t offset, size_t bytes, Take&& take) {
  size_t done = 0;
  while (done < bytes) {
    const uint64_t word = word_of(base, (offset + done) / 8);
    const size_t skip = (offset + done) % 8;
    const size_t count = bytes - done < 8 - skip ? bytes - done : 8 - skip;
    if (!take(done, reinterpret_cast<const std::byte*>(&word) + skip, count)) return;
    done += count;
  }
}

inline void fill_bytes(uint64_t base, uint64_t offset, std::byte* to, size_t bytes) {
  for_each_word(base, offset, bytes, [&](size_t at, const std::byte* word, size_t count) {
    if (count == 8)
      std::memcpy(to + at, word, 8);
    else
      std::memcpy(to + at, word, count);
    return true;
  });
}

// The place of the first wrong byte in what was read at offset, to within a word; `bytes`: all are right.
inline size_t first_wrong(uint64_t base, uint64_t offset, const std::byte* from, size_t bytes) {
  size_t wrong = bytes;
  for_each_word(base, offset, bytes, [&](size_t at, const std::byte* word, size_t count) {
    const bool right = count == 8 ? std::memcmp(from + at, word, 8) == 0 : std::memcmp(from + at, word, count) == 0;
    if (!right) wrong = at;
    return right;
  });
  return wrong;
}

}  // namespace blobcache::chaos
