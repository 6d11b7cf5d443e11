// TOML files. toml++ reads the text; this walks its tree and gives every leaf to the table of keys. Written so that one
// mistake does not hide the next: a problem is noted with its line and the walk goes on.
//
// toml++ is used as headers only and without exceptions: distributions also build it as a shared library, and the program
// is one binary.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#undef TOML_HEADER_ONLY
#undef TOML_SHARED_LIB
#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
// With line_dots_max this bounds the depth of the tree, which toml++ frees recursively.
#define TOML_MAX_NESTED_VALUES 16
#include <fmt/format.h>
#include <toml++/toml.h>

#include "base/config.h"
#include "base/config_keys.h"

namespace blobcache {
namespace {

// A file of every key with its comments has 10 KiB, one of 1,000 volumes 200 KiB.
constexpr size_t file_bytes_max = 4u << 20;
constexpr size_t array_items_max = 1024;
constexpr size_t problems_max = 20;
constexpr size_t line_dots_max = 512;  // a.a.a.a... makes a table in a table with each dot
constexpr unsigned depth_max = 8;

// Text of unknown origin in a message for a terminal: short and printable.
std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 64)) out += (c >= 0x20 && c < 0x7f) ? c : '?';
  return text.size() > 64 ? out + "..." : out;
}

std::string_view type_name(const toml::node& node) {
  if (node.is_string()) return "a string";
  if (node.is_integer()) return "a whole number";
  if (node.is_floating_point()) return "a number with decimals";
  if (node.is_boolean()) return "true or false";
  if (node.is_array()) return "an array";
  if (node.is_table()) return "a table";
  return "a date or time";
}

std::string_view example_of(const Key& key) {
  switch (key.type) {
    case KeyType::flag: return "true";
    case KeyType::count: return "8";
    case KeyType::bytes: return "\"4MiB\"";
    case KeyType::duration: return "\"5s\"";
    case KeyType::amount:
    case KeyType::share: return "\"25%\"";
    case KeyType::mode: return "\"0444\"";
    case KeyType::list: return "[\"a\", \"b\"]";
    case KeyType::text:
    case KeyType::choice: break;
  }
  return "a string in quotes";
}

class Walk {
 public:
  Walk(Config& config, std::string_view file_name) : config_(config), file_name_(file_name) {}

  void table(const toml::table& table, const std::string& path, void* base, const std::string& place) {
    for (auto&& [toml_key, node] : table) {
      const std::string dot = path.empty() ? "" : ".";
      const std::string name = path + dot + std::string(toml_key.str());
      const std::string node_place = place + dot + std::string(toml_key.str());
      // An array of tables is named by its first table, everything else by its key.
      const unsigned line = toml_key.source().begin.line;
      if (name == "cache.disk") {
        array(node, name, config_.cache.disks, line);
      } else if (name == "volume") {
        array(node, name, config_.volumes, line);
      } else if (node.is_table() && is_walked(*node.as_table(), name)) {
        this->table(*node.as_table(), name, base, node_place);
      } else {
        leaf(node, name, base, node_place, line);
      }
    }
  }

  void problem(unsigned line, const std::string& text) {
    if (problems_.size() < problems_max) problems_.push_back(fmt::format("{}:{}: {}", file_name_, line, text));
  }
  Problems take_problems() { return std::move(problems_); }

 private:
  // Into a section, and into a mistyped one too, so that the nearest keys to what it holds are told.
  static bool is_walked(const toml::table& table, std::string_view name) {
    const auto depth = static_cast<unsigned>(std::count(name.begin(), name.end(), '.'));
    return is_section(name) || (find_key(name) == nullptr && !table.empty() && depth < depth_max);
  }

  static bool is_section(std::string_view name) {
    for (const Key& key : config_keys()) {
      if (key.name.size() > name.size() && key.name.starts_with(name) && key.name[name.size()] == '.') return true;
    }
    return false;
  }

  template <class Item>
  void array(const toml::node& node, const std::string& name, std::vector<Item>& items, unsigned line) {
    const toml::array* array = node.as_array();
    if (array == nullptr) {
      problem(line, fmt::format("{} is {}; there can be several, so write [[{}]]", name, type_name(node), name));
      return;
    }
    items.clear();
    for (const toml::node& element : *array) {
      const toml::table* element_table = element.as_table();
      if (element_table == nullptr) {
        problem(line, fmt::format("{} holds {}; write [[{}]] before the keys of each", name, type_name(element), name));
        return;
      }
      if (items.size() == array_items_max) {
        problem(element.source().begin.line, fmt::format("there are more than {} of {}", array_items_max, name));
        return;
      }
      items.emplace_back();
      table(*element_table, name, &items.back(), fmt::format("{}[{}]", name, items.size() - 1));
    }
  }

  // nullopt: the node's type does not fit the key, and a problem was noted.
  std::optional<std::string> text_of(const toml::node& node, const Key& key, unsigned line) {
    const bool number_key = key.type == KeyType::count;
    const bool size_key = key.type == KeyType::bytes || key.type == KeyType::amount;
    if (node.is_string()) {
      const std::string& text = node.as_string()->get();
      const bool quoted_number = number_key && text != key.word;
      if (key.type != KeyType::flag && key.type != KeyType::list && !quoted_number) return text;
    } else if (node.is_boolean() && key.type == KeyType::flag) {
      return node.as_boolean()->get() ? "true" : "false";
    } else if (node.is_integer() && number_key) {
      return std::to_string(node.as_integer()->get());
    } else if (node.is_integer() && size_key) {
      return std::to_string(node.as_integer()->get()) + "B";
    } else if (node.is_array() && key.type == KeyType::list) {
      return list_text(*node.as_array(), key, line);
    }
    problem(line, fmt::format("{} is {}; write it as {}", key.name, type_name(node), example_of(key)));
    return std::nullopt;
  }

  std::optional<std::string> list_text(const toml::array& array, const Key& key, unsigned line) {
    std::string joined;
    for (const toml::node& item : array) {
      const toml::value<std::string>* text = item.as_string();
      if (text == nullptr || text->get().empty() || text->get().find(',') != std::string::npos) {
        problem(line, fmt::format("{} has a part that is empty, holds a comma or is no string; write it as {}",
                                  key.name, example_of(key)));
        return std::nullopt;
      }
      joined += (joined.empty() ? "" : ",") + text->get();
    }
    return joined;
  }

  void leaf(const toml::node& node, const std::string& name, void* base, const std::string& place, unsigned line) {
    const Key* key = find_key(name);
    if (key == nullptr) {
      problem(line, fmt::format("{} is no key; the nearest is {}", printable(name), nearest_key(name).name));
      return;
    }
    const std::optional<std::string> text = text_of(node, *key, line);
    if (!text) return;
    if (const std::optional<std::string> wrong = store_value(*key, base, *text)) {
      problem(line, fmt::format("{} = \"{}\": {}", name, key->secret ? "(set)" : printable(*text), *wrong));
      return;
    }
    config_.set_by[place] = fmt::format("{}:{}", file_name_, line);
  }

  Config& config_;
  std::string_view file_name_;
  Problems problems_;
};

// The first line with so many dots that its keys would nest endlessly; 0: none.
unsigned endless_line(std::string_view text) {
  for (unsigned line = 1; !text.empty(); ++line) {
    const std::string_view content = text.substr(0, text.find('\n'));
    if (static_cast<size_t>(std::count(content.begin(), content.end(), '.')) > line_dots_max) return line;
    text.remove_prefix(std::min(text.size(), content.size() + 1));
  }
  return 0;
}

}  // namespace

Problems load_config_text(Config& config, std::string_view text, std::string_view file_name) {
  Walk walk(config, file_name);
  if (text.size() > file_bytes_max) {
    walk.problem(1, fmt::format("the file has more than {}", format_bytes(file_bytes_max)));
    return walk.take_problems();
  }
  // toml++ ends at a NUL without a word; what follows it would be ignored.
  const size_t nul = text.find('\0');
  if (nul != std::string_view::npos) {
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(nul), '\n');
    walk.problem(static_cast<unsigned>(line), "there is a NUL byte; the file is not text");
    return walk.take_problems();
  }
  if (const unsigned line = endless_line(text); line != 0) {
    walk.problem(line, fmt::format("it has more than {} dots; break the line", line_dots_max));
    return walk.take_problems();
  }
  const toml::parse_result parsed = toml::parse(text, file_name);
  if (!parsed) {
    walk.problem(parsed.error().source().begin.line, printable(parsed.error().description()));
    return walk.take_problems();
  }
  walk.table(parsed.table(), "", &config, "");
  return walk.take_problems();
}

Problems load_config_file(Config& config, const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return {fmt::format("{}: cannot be opened: {}", path, std::strerror(errno))};
  std::string text;
  struct stat status{};
  int os_errno = 0;
  if (fstat(fd, &status) != 0) {
    os_errno = errno;
  } else if (!S_ISREG(status.st_mode)) {
    os_errno = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
  }
  while (os_errno == 0 && text.size() <= file_bytes_max) {
    char buffer[1 << 16];
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) os_errno = errno;
    if (got <= 0) break;
    text.append(buffer, static_cast<size_t>(got));
  }
  close(fd);
  if (os_errno != 0) return {fmt::format("{}: cannot be read: {}", path, std::strerror(os_errno))};
  return load_config_text(config, text, path);
}

}  // namespace blobcache
