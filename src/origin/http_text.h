// What HTTP says in text: percent-encoding, byte ranges, dates, delays. Pure functions over hostile input.
//   Thread    any
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace blobcache {

// RFC 3986: everything but letters, digits and -._~ becomes %XX (upper case, as AWS signatures want it).
std::string percent_encode(std::string_view text);
// The same, but '/' stays: a path.
std::string percent_encode_path(std::string_view path);
struct PercentOptions {
  bool plus_is_space = false;  // S3's encoding-type=url
};
// Nothing: a % without two hexadecimal digits.
std::optional<std::string> percent_decode(std::string_view text, PercentOptions options = {});

struct ContentRange {
  uint64_t first = 0;
  uint64_t last = 0;
  std::optional<uint64_t> total;  // nothing: "*"
};
// "bytes FIRST-LAST/TOTAL". Nothing: anything else, or a range that ends before it begins or beyond its total.
std::optional<ContentRange> parse_content_range(std::string_view text);

// Decimal digits only, no sign, no overflow.
std::optional<uint64_t> parse_count(std::string_view text);

// "Sun, 06 Nov 1994 08:49:37 GMT" -> seconds since 1970.
std::optional<int64_t> parse_http_date(std::string_view text);
// "2009-10-12T17:50:30.000Z" -> seconds since 1970 (fractions are dropped: HEAD has none).
std::optional<int64_t> parse_iso_date(std::string_view text);

// Retry-After: seconds or a date. Nothing: neither.
std::optional<uint64_t> parse_retry_after_ns(std::string_view text, int64_t now_s);

// It may stand in a header: no control characters, line ends among them.
bool is_one_line(std::string_view text);
std::string_view trim(std::string_view text);
bool equals_ignoring_case(std::string_view a, std::string_view b);

}  // namespace blobcache
