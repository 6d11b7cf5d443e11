// One value: text to member and back, by the type in the table; and the nearest key to a mistyped one.
#include <algorithm>
#include <array>
#include <climits>

#include <fmt/format.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/config_keys.h"
#include "base/secrets.h"

namespace blobcache {
namespace {

constexpr size_t text_bytes_max = 4096;  // PATH_MAX; longer values are mistakes or attacks

template <class T>
T& member(const Key& key, void* base) {
  return *static_cast<T*>(key.field(base));
}

// The words of "auto | uring | dev", in order.
std::vector<std::string_view> words_of(std::string_view values) {
  std::vector<std::string_view> words;
  while (!values.empty()) {
    const size_t bar = values.find(" | ");
    words.push_back(values.substr(0, bar));
    values = bar == std::string_view::npos ? std::string_view() : values.substr(bar + 3);
  }
  return words;
}

std::string host_name() {
  std::array<char, HOST_NAME_MAX + 1> name{};
  if (gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') return "localhost";
  return name.data();
}

std::optional<std::string> store_text(const Key& key, void* base, std::string_view text) {
  if (text.size() > text_bytes_max) return fmt::format("it has more than {} bytes", text_bytes_max);
  const bool control =
      std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
  if (control) return "it contains a control character; remove it";
  member<std::string>(key, base) = key.name == "node.name" && text == "hostname" ? host_name() : std::string(text);
  return std::nullopt;
}

std::optional<std::string> store_choice(const Key& key, void* base, std::string_view text) {
  const std::vector<std::string_view> words = words_of(key.values);
  const auto found = std::find(words.begin(), words.end(), text);
  if (found == words.end()) return fmt::format("it is none of {}", key.values);
  member<uint8_t>(key, base) = static_cast<uint8_t>(found - words.begin());
  return std::nullopt;
}

std::optional<std::string> store_list(const Key& key, void* base, std::string_view text) {
  std::vector<std::string> items;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view item = text.substr(0, comma);
    if (item.empty() || item.size() > text_bytes_max)
      return "it has an empty or endless part; write parts with one comma between";
    items.emplace_back(item);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
  }
  member<std::vector<std::string>>(key, base) = std::move(items);
  return std::nullopt;
}

template <class T, class Value>
std::optional<std::string> store_parsed(const Key& key, void* base, const Parsed<Value>& parsed) {
  if (!parsed) return parsed.error();
  member<T>(key, base) = static_cast<T>(*parsed);
  return std::nullopt;
}

// A size or a duration within the key's limits.
std::optional<std::string> store_scaled(const Key& key, void* base, const Parsed<uint64_t>& parsed,
                                        std::string (*format)(uint64_t)) {
  if (parsed && (*parsed < key.min || *parsed > key.max)) {
    return fmt::format("it is not within {} and {}", format(key.min), format(key.max));
  }
  return store_parsed<uint64_t>(key, base, parsed);
}

std::string join(const std::vector<std::string>& items, bool shown) {
  std::string out;
  for (const std::string& item : items) out += (out.empty() ? "" : ",") + (shown ? redacted(item) : item);
  return out;
}

}  // namespace

std::optional<std::string> store_value(const Key& key, void* base, std::string_view text) {
  if (!key.word.empty() && text == key.word) {
    if (key.type == KeyType::count)
      member<uint32_t>(key, base) = static_cast<uint32_t>(key.word_value);
    else
      member<uint64_t>(key, base) = key.word_value;
    return std::nullopt;
  }
  switch (key.type) {
    case KeyType::text: return store_text(key, base, text);
    case KeyType::list: return store_list(key, base, text);
    case KeyType::choice: return store_choice(key, base, text);
    case KeyType::flag:
      if (text != "true" && text != "false") return "it is neither true nor false";
      member<bool>(key, base) = text == "true";
      return std::nullopt;
    case KeyType::count: return store_parsed<uint32_t>(key, base, parse_count(text, key.min, key.max));
    case KeyType::bytes: return store_scaled(key, base, parse_bytes(text), format_bytes);
    case KeyType::duration: return store_scaled(key, base, parse_duration_ns(text), format_duration_ns);
    case KeyType::amount: return store_parsed<Amount>(key, base, parse_amount(text));
    case KeyType::share: return store_parsed<double>(key, base, parse_share(text));
    case KeyType::mode: return store_parsed<uint32_t>(key, base, parse_mode(text));
  }
  BC_ASSERT(false);
}

std::string value_text(const Key& key, const void* const_base) {
  void* base = const_cast<void*>(const_base);  // NOLINT: the table has one accessor for reading and writing
  const auto or_word = [&](uint64_t value, const std::string& text) {
    return !key.word.empty() && value == key.word_value ? std::string(key.word) : text;
  };
  switch (key.type) {
    case KeyType::text: return member<std::string>(key, base);
    case KeyType::list: return join(member<std::vector<std::string>>(key, base), false);
    case KeyType::choice: return std::string(words_of(key.values).at(member<uint8_t>(key, base)));
    case KeyType::flag: return member<bool>(key, base) ? "true" : "false";
    case KeyType::count: return or_word(member<uint32_t>(key, base), std::to_string(member<uint32_t>(key, base)));
    case KeyType::bytes: return or_word(member<uint64_t>(key, base), format_bytes(member<uint64_t>(key, base)));
    case KeyType::duration:
      return or_word(member<uint64_t>(key, base), format_duration_ns(member<uint64_t>(key, base)));
    case KeyType::amount: return format_amount(member<Amount>(key, base));
    case KeyType::share: return format_share(member<double>(key, base));
    case KeyType::mode: return format_mode(member<uint32_t>(key, base));
  }
  BC_ASSERT(false);
}

std::string value_text_shown(const Key& key, const void* base) {
  const std::string text = value_text(key, base);
  if (key.secret) return text == key.default_text ? text : "(set)";
  if (key.type == KeyType::list) {
    return join(member<std::vector<std::string>>(key, const_cast<void*>(base)), true);  // NOLINT: as above
  }
  return redacted(text);
}

const Key* find_key(std::string_view name) {
  for (const Key& key : config_keys()) {
    if (key.name == name) return &key;
  }
  return nullptr;
}

unsigned edit_distance(std::string_view a, std::string_view b) {
  constexpr size_t bytes_max = 64;
  a = a.substr(0, bytes_max);
  b = b.substr(0, bytes_max);
  unsigned rows[3][bytes_max + 1] = {};
  for (unsigned column = 0; column <= b.size(); ++column) rows[0][column] = column;
  for (unsigned row = 1; row <= a.size(); ++row) {
    unsigned* now = rows[row % 3];
    const unsigned* above = rows[(row + 2) % 3];
    const unsigned* two_above = rows[(row + 1) % 3];
    now[0] = row;
    for (unsigned column = 1; column <= b.size(); ++column) {
      const unsigned replace = above[column - 1] + (a[row - 1] == b[column - 1] ? 0 : 1);
      now[column] = std::min({above[column] + 1, now[column - 1] + 1, replace});
      if (row > 1 && column > 1 && a[row - 1] == b[column - 2] && a[row - 2] == b[column - 1]) {
        now[column] = std::min(now[column], two_above[column - 2] + 1);
      }
    }
  }
  return rows[a.size() % 3][b.size()];
}

const Key& nearest_key(std::string_view name) {
  const std::string_view last = name.substr(name.rfind('.') + 1);
  const Key* best = nullptr;
  unsigned best_distance = UINT_MAX;
  for (const Key& key : config_keys()) {
    // The right word in the wrong section is a nearer miss than a similar word in the right one.
    const std::string_view key_last = key.name.substr(key.name.rfind('.') + 1);
    const unsigned distance = std::min(edit_distance(name, key.name), edit_distance(last, key_last) + 1);
    if (distance < best_distance) {
      best = &key;
      best_distance = distance;
    }
  }
  return *best;
}

}  // namespace blobcache
