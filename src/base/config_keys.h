// The table of keys: name, type, default, limits, meaning, and where the value lies. Everything that knows about keys
// (files, environment, options, reference, show) is driven by it; adding a setting is one member and one line.
//   Thread    constants
//   Groups    a key of cache.disk or volume lies in an array element: its base is the DiskConfig or VolumeConfig, every
//             other key's the Config
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/config.h"

namespace blobcache {

enum class KeyType : uint8_t { text, flag, count, bytes, duration, amount, share, mode, choice, list };
enum class KeyGroup : uint8_t { single, disk, volume };

struct Key {
  std::string_view name;  // "fuse.transport"
  KeyType type{};
  std::string_view default_text;
  std::string_view values;  // what may be written: "auto | uring | dev", "size", "share or size" ...
  std::string_view meaning;
  void* (*field)(void* base) = nullptr;
  uint64_t min = 0;  // of counts, bytes and durations
  uint64_t max = 0;
  std::string_view word;    // a word that may stand instead of a value: "auto", "never"
  uint64_t word_value = 0;  // what it is stored as
  bool reloadable = false;  // takes effect on SIGHUP
  bool secret = false;      // shown as (set) unless it is the default

  KeyGroup group() const {
    return name.starts_with("volume.")       ? KeyGroup::volume
           : name.starts_with("cache.disk.") ? KeyGroup::disk
                                             : KeyGroup::single;
  }
};

std::span<const Key> config_keys();
const Key* find_key(std::string_view name);
// The key that somebody who wrote `name` most likely meant.
const Key& nearest_key(std::string_view name);
// Damerau's distance: insertions, deletions, replacements and swaps of neighbours. Texts are cut at 64 bytes.
unsigned edit_distance(std::string_view a, std::string_view b);

// nullopt: stored. Otherwise what is wrong with the text and what to write instead.
std::optional<std::string> store_value(const Key& key, void* base, std::string_view text);
// What store_value reads back as the same value; secrets as they are.
std::string value_text(const Key& key, const void* base);
// As value_text, for eyes: secrets as (set), and redacted (base/secrets.h).
std::string value_text_shown(const Key& key, const void* base);

}  // namespace blobcache
