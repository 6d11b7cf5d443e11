#include "origin/http_text.h"

#include <algorithm>
#include <charconv>
#include <ctime>

#include <strings.h>

namespace blobcache {
namespace {

constexpr uint64_t retry_after_s_max = 3600;

bool is_unreserved(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
         c == '_' || c == '~';
}

std::string encode(std::string_view text, bool keep_slashes) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  std::string encoded;
  encoded.reserve(text.size());
  for (const char c : text) {
    if (is_unreserved(c) || (keep_slashes && c == '/')) {
      encoded += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    encoded += '%';
    encoded += digits[byte >> 4];
    encoded += digits[byte & 15];
  }
  return encoded;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// strptime is locale-free for these formats in the C locale, which is the one the program runs in; timegm wants UTC.
std::optional<int64_t> parse_date(std::string_view text, const char* format) {
  char copy[64];
  if (text.size() >= sizeof copy) return std::nullopt;
  std::copy(text.begin(), text.end(), copy);
  copy[text.size()] = '\0';
  std::tm parts{};
  if (strptime(copy, format, &parts) == nullptr) return std::nullopt;
  return static_cast<int64_t>(timegm(&parts));
}

}  // namespace

std::string percent_encode(std::string_view text) { return encode(text, false); }
std::string percent_encode_path(std::string_view path) { return encode(path, true); }

std::optional<std::string> percent_decode(std::string_view text, PercentOptions options) {
  std::string decoded;
  decoded.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && options.plus_is_space) {
      decoded += ' ';
    } else if (text[i] != '%') {
      decoded += text[i];
    } else {
      const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
      if (high < 0 || low < 0) return std::nullopt;
      decoded += static_cast<char>(high * 16 + low);
      i += 2;
    }
  }
  return decoded;
}

std::optional<uint64_t> parse_count(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

std::optional<ContentRange> parse_content_range(std::string_view text) {
  text = trim(text);
  if (text.size() < 6 || !equals_ignoring_case(text.substr(0, 6), "bytes ")) return std::nullopt;
  text = trim(text.substr(6));
  const size_t dash = text.find('-');
  const size_t slash = text.find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos || slash < dash) return std::nullopt;
  const std::optional<uint64_t> first = parse_count(text.substr(0, dash));
  const std::optional<uint64_t> last = parse_count(text.substr(dash + 1, slash - dash - 1));
  if (!first || !last || *last < *first) return std::nullopt;
  ContentRange range{.first = *first, .last = *last, .total = std::nullopt};
  if (text.substr(slash + 1) == "*") return range;
  range.total = parse_count(text.substr(slash + 1));
  if (!range.total || *range.total <= range.last) return std::nullopt;
  return range;
}

std::optional<int64_t> parse_http_date(std::string_view text) {
  return parse_date(trim(text), "%a, %d %b %Y %H:%M:%S GMT");
}

std::optional<int64_t> parse_iso_date(std::string_view text) {
  text = trim(text);
  const std::optional<int64_t> local_s = parse_date(text, "%Y-%m-%dT%H:%M:%S");
  const size_t time = text.find('T');
  if (!local_s || time == std::string_view::npos) return local_s;
  // [.fff](Z|+hh:mm|-hh:mm|+hhmm|-hhmm), or nothing
  const size_t sign = text.find_first_of("+-", time);
  if (sign == std::string_view::npos) return local_s;
  std::string digits(text.substr(sign + 1));
  std::erase(digits, ':');
  const std::optional<uint64_t> offset = parse_count(digits);
  if (!offset || digits.size() != 4 || *offset % 100 >= 60) return std::nullopt;
  const auto offset_s = static_cast<int64_t>(*offset / 100 * 3600 + *offset % 100 * 60);
  return text[sign] == '+' ? *local_s - offset_s : *local_s + offset_s;
}

std::optional<uint64_t> parse_retry_after_ns(std::string_view text, int64_t now_s) {
  text = trim(text);
  uint64_t seconds = 0;
  if (const std::optional<uint64_t> count = parse_count(text)) {
    seconds = *count;
  } else if (const std::optional<int64_t> date = parse_http_date(text)) {
    seconds = *date > now_s ? static_cast<uint64_t>(*date - now_s) : 0;
  } else {
    return std::nullopt;
  }
  return std::min(seconds, retry_after_s_max) * 1'000'000'000;
}

bool is_one_line(std::string_view text) {
  return std::ranges::none_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view blank = " \t\r\n";
  const size_t begin = text.find_first_not_of(blank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(blank) - begin + 1);
}

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace blobcache
