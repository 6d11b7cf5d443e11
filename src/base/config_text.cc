// The texts that the table writes: the reference, the effective values, and the shipped file.
#include <algorithm>

#include <fmt/format.h>

#include "base/config.h"
#include "base/config_keys.h"

namespace blobcache {
namespace {

// "cache.disk.path" -> "cache.disk", "path"; "volume.s3.region" -> "volume.s3", "region".
std::string_view section_of(const Key& key) { return key.name.substr(0, key.name.rfind('.')); }
std::string_view last_of(const Key& key) { return key.name.substr(key.name.rfind('.') + 1); }

std::string header_of(std::string_view section) {
  const bool array = section == "cache.disk" || section == "volume";
  return array ? fmt::format("[[{}]]", section) : fmt::format("[{}]", section);
}

std::string toml_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

// As TOML: numbers and flags bare, lists in brackets, everything else in quotes.
std::string toml_value(const Key& key, std::string_view text) {
  const bool number = key.type == KeyType::count && text != key.word;
  if (key.type == KeyType::flag || number) return std::string(text);
  if (key.type != KeyType::list) return toml_string(text);
  std::string out = "[";
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    out += (out.size() > 1 ? ", " : "") + toml_string(item);
    text.remove_prefix(std::min(text.size(), item.size() + 1));
  }
  return out + "]";
}

// f(key, base, place) for every value that is in force; place: "volume[0].name".
template <class F>
void for_each_value(const Config& config, F&& f) {
  const auto each = [&](KeyGroup group, const void* base, const std::string& element) {
    const size_t array_bytes = std::string_view(group == KeyGroup::disk ? "cache.disk" : "volume").size();
    for (const Key& key : config_keys()) {
      if (key.group() != group) continue;
      f(key, base,
        group == KeyGroup::single ? std::string(key.name) : element + std::string(key.name.substr(array_bytes)));
    }
  };
  each(KeyGroup::single, &config, "");
  for (size_t i = 0; i < config.cache.disks.size(); ++i) {
    each(KeyGroup::disk, &config.cache.disks[i], fmt::format("cache.disk[{}]", i));
  }
  for (size_t i = 0; i < config.volumes.size(); ++i) {
    each(KeyGroup::volume, &config.volumes[i], fmt::format("volume[{}]", i));
  }
}

std::string_view source_of(const Config& config, const std::string& place) {
  const auto from = config.set_by.find(place);
  return from == config.set_by.end() ? std::string_view("default") : std::string_view(from->second);
}

}  // namespace

std::string show_config(const Config& config) {
  std::string out;
  std::string section;  // and of which element
  for_each_value(config, [&](const Key& key, const void* base, const std::string& place) {
    if (const std::string now = place.substr(0, place.size() - last_of(key).size()); section != now) {
      section = now;
      out += fmt::format("{}{}\n", out.empty() ? "" : "\n", header_of(section_of(key)));
    }
    const std::string line = fmt::format("{} = {}", last_of(key), toml_value(key, value_text_shown(key, base)));
    out += fmt::format("{:<44} # {}\n", line, source_of(config, place));
  });
  return out;
}

std::vector<ShownValue> shown_values(const Config& config) {
  std::vector<ShownValue> values;
  for_each_value(config, [&](const Key& key, const void* base, const std::string& place) {
    values.push_back({place, value_text_shown(key, base), std::string(source_of(config, place))});
  });
  return values;
}

std::string config_reference() {
  std::string out;
  std::string_view section;
  for (const Key& key : config_keys()) {
    if (section != section_of(key)) {
      section = section_of(key);
      out += fmt::format("{}{}\n", out.empty() ? "" : "\n", header_of(section));
    }
    out += fmt::format("{}\n    default  {}\n    values   {}\n    meaning  {}\n    changes  {}\n", key.name,
                       toml_value(key, key.default_text), key.values, key.meaning,
                       key.reloadable ? "on reload (SIGHUP)" : "on restart");
  }
  return out;
}

std::string config_example() {
  std::string out =
      "# blobcache: every key with its default, commented out. Remove a '#' to change a value; sections in double "
      "brackets\n"
      "# may be repeated. `blobcache config check` validates this file, `blobcache config show` prints what is in "
      "force.\n"
      "# Sizes: 4MiB, 100GB. Durations: 200ms, 5s. Shares: 25%. The environment variable BLOBCACHE_<SECTION>_<KEY>\n"
      "# overrides a key of a section in single brackets.\n";
  std::string_view section;
  for (const Key& key : config_keys()) {
    if (section != section_of(key)) {
      section = section_of(key);
      // A header of an array makes an element: it stays a comment as long as its keys are.
      const bool element = key.group() != KeyGroup::single;
      out += fmt::format("\n{}{}\n", element ? "#" : "", header_of(section));
    }
    out += fmt::format("# {} ({}{})\n", key.meaning, key.values, key.reloadable ? "; reloadable" : "");
    out += fmt::format("#{} = {}\n", last_of(key), toml_value(key, key.default_text));
  }
  return out;
}

}  // namespace blobcache
