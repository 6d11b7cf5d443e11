// NameCache: what a remote origin was found to have under a name, trusted for a while, so that opening what was just looked
// up or listed asks nobody.
//   Thread    any; one of 16 locks for a few hundred nanoseconds
//   Limits    names_max names; the one that was not asked for longest leaves first
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/file_info.h"
#include "base/spinlock.h"

namespace blobcache {

struct KnownName {
  bool exists = false;
  FileInfo info;  // when it does
};

class NameCache {
 public:
  explicit NameCache(size_t names_max) : names_per_shard_(names_max / shards_count) {}

  // False: nothing is known, or not any more.
  bool find(const std::string& key, uint64_t now_ns, KnownName* known_out);
  void put(const std::string& key, const KnownName& known, uint64_t until_ns);
  void forget(const std::string& key);
  void forget_all();

 private:
  static constexpr size_t shards_count = 16;
  struct Entry {
    std::string key;
    KnownName known;
    uint64_t until_ns = 0;
  };
  struct Shard {
    Spinlock lock;
    std::list<Entry> by_use;                                                  // the last asked for first
    std::unordered_map<std::string_view, std::list<Entry>::iterator> by_key;  // of the keys in by_use
  };
  Shard& shard_of(const std::string& key) { return shards_[std::hash<std::string>{}(key) % shards_count]; }

  const size_t names_per_shard_;
  Shard shards_[shards_count];
};

}  // namespace blobcache
