// Setting keys from options and the environment. Files are read in config_file.cc, cross-checks are in config_check.cc,
// the texts for people in config_text.cc.
#include "base/config.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/config_keys.h"

namespace blobcache {
namespace {

void set_defaults(KeyGroup group, void* base) {
  for (const Key& key : config_keys()) {
    if (key.group() != group) continue;
    const std::optional<std::string> problem = store_value(key, base, key.default_text);
    BC_ASSERT(!problem);
  }
}

std::string unknown_key(std::string_view name) {
  return fmt::format("{} is no key; the nearest is {}", name.substr(0, 64), nearest_key(name).name);
}

// Where the key's value lies, making the one disk or volume when there is none.
std::optional<std::string> base_of(Config& config, const Key& key, void*& base_out, std::string& place_out) {
  base_out = &config;
  place_out = key.name;
  if (key.group() == KeyGroup::single) return std::nullopt;
  const bool disk = key.group() == KeyGroup::disk;
  const std::string_view array = disk ? "cache.disk" : "volume";
  const size_t count = disk ? config.cache.disks.size() : config.volumes.size();
  if (count > 1) return fmt::format("there are {} of {}, and an option can set only the one there is", count, array);
  if (count == 0 && disk) config.cache.disks.emplace_back();
  if (count == 0 && !disk) config.volumes.emplace_back();
  base_out = disk ? static_cast<void*>(&config.cache.disks[0]) : static_cast<void*>(&config.volumes[0]);
  place_out = fmt::format("{}[0]{}", array, key.name.substr(array.size()));
  return std::nullopt;
}

std::string environment_name(const Key& key) {
  std::string name = "BLOBCACHE_";
  for (const char c : key.name) name += c == '.' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  return name;
}

}  // namespace

DiskConfig::DiskConfig() { set_defaults(KeyGroup::disk, this); }
VolumeConfig::VolumeConfig() { set_defaults(KeyGroup::volume, this); }
Config::Config() { set_defaults(KeyGroup::single, this); }

std::optional<std::string> set_config_value(Config& config, std::string_view name, std::string_view value,
                                            std::string_view from) {
  const Key* key = find_key(name);
  if (key == nullptr) return unknown_key(name);
  void* base = nullptr;
  std::string place;
  std::optional<std::string> problem = base_of(config, *key, base, place);
  if (!problem) problem = store_value(*key, base, value);
  if (problem) {
    const std::string shown = key->secret ? "(set)" : std::string(value.substr(0, 64));
    return fmt::format("{} = \"{}\": {}", name, shown, *problem);
  }
  config.set_by[place] = from;
  return std::nullopt;
}

std::optional<std::string> set_config_option(Config& config, std::string_view assignment) {
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return fmt::format("-o {}: it is not KEY=VALUE; write for example -o fuse.transport=dev", assignment.substr(0, 64));
  }
  const std::optional<std::string> problem =
      set_config_value(config, assignment.substr(0, equals), assignment.substr(equals + 1), "option");
  return problem ? std::optional("-o " + *problem) : std::nullopt;
}

Problems load_config_environment(Config& config, const char* const* environment) {
  Problems problems;
  for (; environment != nullptr && *environment != nullptr; ++environment) {
    const std::string_view variable(*environment);
    const std::string_view name = variable.substr(0, variable.find('='));
    if (!name.starts_with("BLOBCACHE_") || name.size() == variable.size()) continue;
    const Key* nearest = nullptr;
    unsigned distance = ~0u;
    for (const Key& key : config_keys()) {
      if (key.group() != KeyGroup::single) continue;
      const unsigned key_distance = edit_distance(name, environment_name(key));
      if (key_distance < distance) {
        nearest = &key;
        distance = key_distance;
      }
    }
    // Container platforms put variables of their own after a service's name into the environment (BLOBCACHE_PORT,
    // BLOBCACHE_SERVICE_HOST): only a near miss is taken for a mistake.
    if (distance > 2) continue;
    if (distance != 0) {
      problems.push_back(
          fmt::format("environment variable {} is no key; the nearest is {}", name, environment_name(*nearest)));
      continue;
    }
    const std::optional<std::string> problem =
        set_config_value(config, nearest->name, variable.substr(name.size() + 1), name);
    if (problem) problems.push_back(fmt::format("environment variable {}: {}", name, *problem));
  }
  return problems;
}

}  // namespace blobcache
