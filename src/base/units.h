// Units: sizes, durations, shares and amounts as people write them, and back.
//   Thread    any; plain functions
//   Exact     decimal arithmetic on integers, never floating point: "0.1GB" is 100000000 and nothing is rounded in silence
//   Errors    a sentence's second half: what is wrong with the text, and what to write instead
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

namespace blobcache {

template <class T>
using Parsed = std::expected<T, std::string>;

// A size that may be given as a share of something known later (a disk, the memory of the machine).
struct Amount {
  uint64_t bytes = 0;
  double share = 0;  // 0..1, when is_share
  bool is_share = false;

  uint64_t resolve(uint64_t total) const {
    return is_share ? static_cast<uint64_t>(static_cast<double>(total) * share) : bytes;
  }
  friend bool operator==(const Amount&, const Amount&) = default;
};

// "4MiB", "100GB", "1.5TiB", "512B", "0". A number without unit is refused, except 0: K or M alone are ambiguous.
Parsed<uint64_t> parse_bytes(std::string_view text);
// "200ms", "5s", "1.5h", "0"; units ns us ms s min h d. At most 292 years.
Parsed<uint64_t> parse_duration_ns(std::string_view text);
// "25%", "0%" to "100%"; 0..1.
Parsed<double> parse_share(std::string_view text);
// A size or a share.
Parsed<Amount> parse_amount(std::string_view text);
// A plain whole number within [min, max].
Parsed<uint64_t> parse_count(std::string_view text, uint64_t min, uint64_t max);
// "0444": octal permission bits.
Parsed<uint32_t> parse_mode(std::string_view text);

// What the parsers above read back as the same value: "4MiB", "100GB", "1234567B", "0".
std::string format_bytes(uint64_t bytes);
std::string format_duration_ns(uint64_t ns);
std::string format_share(double share);
std::string format_amount(const Amount& amount);
std::string format_mode(uint32_t mode);

// For people, with three digits: "1.21 GiB".
std::string format_bytes_short(uint64_t bytes);

}  // namespace blobcache
