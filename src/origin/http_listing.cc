#include "origin/http_listing.h"

#include <unordered_set>

#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "origin/http_text.h"

namespace blobcache {
namespace {

using Json = nlohmann::json;

bool is_legal_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= limits::name_bytes_max &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

std::string string_of(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// The five entities that an attribute must use, and numbers of one byte. The ';' is looked for no further than the longest
// of them is: a page of nothing but '&' costs its length, not the square of it.
std::string unescape(std::string_view text) {
  constexpr size_t entity_bytes_max = 12;
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '&') {
      plain += text[i];
      continue;
    }
    const std::string_view near = text.substr(i + 1, entity_bytes_max);
    const size_t length = near.find(';');
    const std::string_view entity = near.substr(0, length == std::string_view::npos ? 0 : length);
    char c = '\0';
    if (entity == "amp") c = '&';
    if (entity == "lt") c = '<';
    if (entity == "gt") c = '>';
    if (entity == "quot") c = '"';
    if (entity == "apos") c = '\'';
    if (entity.starts_with('#')) {
      const std::optional<uint64_t> number = parse_count(entity.substr(1));
      if (number && *number > 0 && *number < 128) c = static_cast<char>(*number);
    }
    if (c == '\0') {
      plain += '&';
      continue;
    }
    plain += c;
    i += entity.size() + 1;
  }
  return plain;
}

// The value of the next href attribute at or behind *at; nothing: none is left.
std::optional<std::string> next_href(std::string_view text, size_t* at) {
  constexpr std::string_view name = "href";
  while (*at < text.size()) {
    const size_t found = text.find_first_of("hH", *at);
    if (found == std::string_view::npos) break;
    *at = found + 1;
    if (found == 0 || !equals_ignoring_case(text.substr(found, name.size()), name)) continue;
    if (std::string_view(" \t\r\n\"'").find(text[found - 1]) == std::string_view::npos) continue;
    size_t value = found + name.size();
    while (value < text.size() && text[value] == ' ') ++value;
    if (value >= text.size() || text[value] != '=') continue;
    ++value;
    while (value < text.size() && text[value] == ' ') ++value;
    if (value >= text.size() || (text[value] != '"' && text[value] != '\'')) continue;
    const size_t end = text.find(text[value], value + 1);
    if (end == std::string_view::npos) break;
    *at = end + 1;
    return unescape(text.substr(value + 1, end - value - 1));
  }
  *at = text.size();
  return std::nullopt;
}

// The link as a child of base_path, or nothing.
std::optional<ListedName> child_of_link(std::string_view link, std::string_view base_path) {
  link = link.substr(0, link.find_first_of("?#"));
  if (link.starts_with("./")) link.remove_prefix(2);
  std::optional<std::string> path = percent_decode(link);
  if (!path) return std::nullopt;
  std::string_view name = *path;
  if (link.starts_with('/')) {
    if (!name.starts_with(base_path)) return std::nullopt;
    name.remove_prefix(base_path.size());
  } else if (const size_t colon = link.find(':');
             colon != std::string_view::npos && link.find('/') != std::string_view::npos && colon < link.find('/')) {
    return std::nullopt;  // a scheme
  }
  ListedName child;
  child.directory = name.ends_with('/');
  if (child.directory) name.remove_suffix(1);
  if (!is_legal_name(name)) return std::nullopt;
  child.name = name;
  return child;
}

}  // namespace

Result<std::vector<ListedName>> parse_json_listing(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_array()) return fail(Code::protocol, EPROTO);
  std::vector<ListedName> names;
  for (const Json& item : json) {
    if (!item.is_object()) return fail(Code::protocol, EPROTO);
    ListedName& listed = names.emplace_back();
    listed.name = string_of(item, "name");
    listed.directory = string_of(item, "type") == "directory";
    if (!is_legal_name(listed.name)) names.pop_back();
  }
  return names;
}

Result<std::vector<ListedName>> parse_html_listing(std::string_view text, std::string_view base_path) {
  std::vector<ListedName> names;
  std::unordered_set<std::string> seen;
  size_t at = 0;
  bool any = false;
  while (const std::optional<std::string> link = next_href(text, &at)) {
    any = true;
    std::optional<ListedName> child = child_of_link(*link, base_path);
    if (child && seen.insert(child->name).second) names.push_back(std::move(*child));
  }
  if (!any) return fail(Code::protocol, EPROTO);
  return names;
}

}  // namespace blobcache
