#include "origin/name_cache.h"

#include <mutex>

namespace blobcache {

bool NameCache::find(const std::string& key, uint64_t now_ns, KnownName* known_out) {
  Shard& shard = shard_of(key);
  const std::lock_guard lock(shard.lock);
  const auto found = shard.by_key.find(key);
  if (found == shard.by_key.end()) return false;
  const auto entry = found->second;
  if (now_ns >= entry->until_ns) {
    shard.by_key.erase(found);
    shard.by_use.erase(entry);
    return false;
  }
  shard.by_use.splice(shard.by_use.begin(), shard.by_use, entry);
  *known_out = entry->known;
  return true;
}

void NameCache::put(const std::string& key, const KnownName& known, uint64_t until_ns) {
  Shard& shard = shard_of(key);
  const std::lock_guard lock(shard.lock);
  if (const auto found = shard.by_key.find(key); found != shard.by_key.end()) {
    found->second->known = known;
    found->second->until_ns = until_ns;
    shard.by_use.splice(shard.by_use.begin(), shard.by_use, found->second);
    return;
  }
  if (shard.by_use.size() >= names_per_shard_) {
    shard.by_key.erase(shard.by_use.back().key);
    shard.by_use.pop_back();
  }
  shard.by_use.push_front({.key = key, .known = known, .until_ns = until_ns});
  shard.by_key.emplace(shard.by_use.front().key, shard.by_use.begin());
}

void NameCache::forget(const std::string& key) {
  Shard& shard = shard_of(key);
  const std::lock_guard lock(shard.lock);
  const auto found = shard.by_key.find(key);
  if (found == shard.by_key.end()) return;
  const auto entry = found->second;
  shard.by_key.erase(found);
  shard.by_use.erase(entry);
}

void NameCache::forget_all() {
  for (Shard& shard : shards_) {
    const std::lock_guard lock(shard.lock);
    shard.by_key.clear();
    shard.by_use.clear();
  }
}

}  // namespace blobcache
