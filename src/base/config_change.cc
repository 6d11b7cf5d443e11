#include "base/config_change.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/config_keys.h"

namespace blobcache {
namespace {

std::string_view name_of(const DiskConfig& disk) { return disk.path; }
std::string_view name_of(const VolumeConfig& volume) { return volume.mountpoint; }

template <class Item>
const Item* find_like(const std::vector<Item>& items, const Item& wanted) {
  const auto found =
      std::find_if(items.begin(), items.end(), [&](const Item& item) { return name_of(item) == name_of(wanted); });
  return found == items.end() ? nullptr : &*found;
}

// "cache.disk.path" of the first disk -> "cache.disk[0].path"
std::string place_of(const Key& key, std::string_view array, size_t index) {
  return fmt::format("{}[{}]{}", array, index, key.name.substr(array.size()));
}

void compare(const Key& key, const void* before, const void* after, std::string place,
             std::vector<ConfigChange>& changes) {
  if (value_text(key, before) == value_text(key, after)) return;
  changes.push_back({.place = std::move(place),
                     .before = value_text_shown(key, before),
                     .after = value_text_shown(key, after),
                     .reloadable = key.reloadable});
}

template <class Item>
void compare_items(KeyGroup group, std::string_view array, const std::vector<Item>& before,
                   const std::vector<Item>& after, std::vector<ConfigChange>& changes) {
  for (size_t i = 0; i < before.size(); ++i) {
    const Item* const now = find_like(after, before[i]);
    if (now == nullptr) {
      changes.push_back({.place = fmt::format("{}[{}]", array, i), .before = std::string(name_of(before[i]))});
      continue;
    }
    for (const Key& key : config_keys()) {
      if (key.group() == group) compare(key, &before[i], now, place_of(key, array, i), changes);
    }
  }
  for (size_t i = 0; i < after.size(); ++i) {
    if (find_like(before, after[i]) != nullptr) continue;
    changes.push_back({.place = fmt::format("{}[{}]", array, i), .after = std::string(name_of(after[i]))});
  }
}

void take(const Key& key, void* to, const void* from) {
  const std::optional<std::string> problem = store_value(key, to, value_text(key, from));
  BC_ASSERT(!problem);
}

template <class Item>
void take_items(KeyGroup group, std::vector<Item>& to, const std::vector<Item>& like, const std::vector<Item>& fresh) {
  BC_ASSERT(to.size() == like.size());
  for (size_t i = 0; i < to.size(); ++i) {
    const Item* const from = find_like(fresh, like[i]);
    for (const Key& key : config_keys()) {
      if (from != nullptr && key.reloadable && key.group() == group) take(key, &to[i], from);
    }
  }
}

}  // namespace

std::vector<ConfigChange> config_changes(const Config& before, const Config& after) {
  std::vector<ConfigChange> changes;
  for (const Key& key : config_keys()) {
    if (key.group() == KeyGroup::single) compare(key, &before, &after, std::string(key.name), changes);
  }
  compare_items(KeyGroup::disk, "cache.disk", before.cache.disks, after.cache.disks, changes);
  compare_items(KeyGroup::volume, "volume", before.volumes, after.volumes, changes);
  return changes;
}

void take_reloadable(Config& config, const Config& like, const Config& fresh) {
  for (const Key& key : config_keys()) {
    if (key.reloadable && key.group() == KeyGroup::single) take(key, &config, &fresh);
  }
  take_items(KeyGroup::disk, config.cache.disks, like.cache.disks, fresh.cache.disks);
  take_items(KeyGroup::volume, config.volumes, like.volumes, fresh.volumes);
}

}  // namespace blobcache
