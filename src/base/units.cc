// Numbers are read digit by digit into 128 bits and scaled by the unit there, so that neither a long fraction nor a huge
// size goes through floating point: 99999999999999GB is "too large", not a number that happens to fit.
#include "base/units.h"

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

#include <fmt/format.h>

namespace blobcache {
namespace {

__extension__ using Wide = unsigned __int128;

struct Unit {
  std::string_view name;
  uint64_t scale;
};

// Largest first: formatting takes the first that divides.
constexpr std::array<Unit, 12> byte_units{{{"PiB", 1ull << 50},
                                           {"PB", 1'000'000'000'000'000},
                                           {"TiB", 1ull << 40},
                                           {"TB", 1'000'000'000'000},
                                           {"GiB", 1ull << 30},
                                           {"GB", 1'000'000'000},
                                           {"MiB", 1ull << 20},
                                           {"MB", 1'000'000},
                                           {"KiB", 1ull << 10},
                                           {"KB", 1'000},
                                           {"kB", 1'000},
                                           {"B", 1}}};
constexpr std::array<Unit, 7> time_units{{{"d", 86'400'000'000'000},
                                          {"h", 3'600'000'000'000},
                                          {"min", 60'000'000'000},
                                          {"s", 1'000'000'000},
                                          {"ms", 1'000'000},
                                          {"us", 1'000},
                                          {"ns", 1}}};
constexpr std::string_view byte_unit_names = "B, KiB, MiB, GiB, TiB, PiB, KB, MB, GB, TB or PB";
constexpr std::string_view time_unit_names = "ns, us, ms, s, min, h or d";
constexpr std::string_view too_large = "it is too large";
constexpr unsigned fraction_digits_max = 9;
// UINT64_MAX means "auto" and "never" in a Config, and signed arithmetic on times must not overflow.
constexpr uint64_t value_max = std::numeric_limits<int64_t>::max();

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// What a text starts with: whole digits and at most nine decimals.
struct Number {
  uint64_t whole = 0;
  uint64_t fraction = 0;  // over fraction_scale
  uint64_t fraction_scale = 1;
  std::string_view rest;
};

// The text is data of unknown origin: quoted short and printable.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text.substr(0, 40)) out += (c >= 0x20 && c < 0x7f) ? c : '?';
  return out + (text.size() > 40 ? "...\"" : "\"");
}

Parsed<Number> read_number(std::string_view text) {
  Number number;
  size_t at = 0;
  for (; at < text.size() && is_digit(text[at]); ++at) {
    const auto digit = static_cast<uint64_t>(text[at] - '0');
    if (number.whole > (value_max - digit) / 10) return std::unexpected(std::string(too_large));
    number.whole = number.whole * 10 + digit;
  }
  if (at == 0) return std::unexpected("it does not start with a digit");
  if (at < text.size() && text[at] == '.') {
    const size_t first = ++at;
    for (; at < text.size() && is_digit(text[at]); ++at) {
      if (at - first == fraction_digits_max) return std::unexpected("it has more than nine decimals");
      number.fraction = number.fraction * 10 + static_cast<uint64_t>(text[at] - '0');
      number.fraction_scale *= 10;
    }
    if (at == first) return std::unexpected("a digit is missing after the point");
  }
  number.rest = text.substr(at);
  return number;
}

Parsed<uint64_t> read_scaled(std::string_view text, std::span<const Unit> units, std::string_view names,
                             std::string_view example) {
  if (text.empty()) return std::unexpected(fmt::format("it is empty; write it as {}", example));
  const Parsed<Number> number = read_number(text);
  if (!number) return std::unexpected(fmt::format("{}; write it as {}", number.error(), example));
  if (number->rest.empty()) {
    if (number->whole == 0 && number->fraction == 0) return 0;
    return std::unexpected(fmt::format("it has no unit; write it as {} (units: {})", example, names));
  }
  for (const Unit& unit : units) {
    if (unit.name != number->rest) continue;
    const Wide fraction = Wide{number->fraction} * unit.scale;
    if (fraction % number->fraction_scale != 0) {
      return std::unexpected(fmt::format("it is no whole number of {}; use a smaller unit", units.back().name));
    }
    const Wide value = Wide{number->whole} * unit.scale + fraction / number->fraction_scale;
    if (value > value_max) return std::unexpected(fmt::format("{}; write it as {}", too_large, example));
    return static_cast<uint64_t>(value);
  }
  return std::unexpected(fmt::format("{} is no unit that is known here; use {}", quoted(number->rest), names));
}

std::string format_scaled(uint64_t value, std::span<const Unit> units) {
  if (value == 0) return "0";
  for (const Unit& unit : units) {
    if (value % unit.scale == 0) return fmt::format("{}{}", value / unit.scale, unit.name);
  }
  return std::to_string(value);  // not reached: the last unit's scale is 1
}

}  // namespace

Parsed<uint64_t> parse_bytes(std::string_view text) { return read_scaled(text, byte_units, byte_unit_names, "4MiB"); }

Parsed<uint64_t> parse_duration_ns(std::string_view text) {
  return read_scaled(text, time_units, time_unit_names, "5s");
}

Parsed<double> parse_share(std::string_view text) {
  const Parsed<Number> number = read_number(text);
  if (!number) return std::unexpected(fmt::format("{}; write it as 25%", number.error()));
  if (number->rest != "%") return std::unexpected("it is no share; write it as 25%");
  if (number->whole > 100 || (number->whole == 100 && number->fraction > 0)) {
    return std::unexpected("it is more than all there is; write at most 100%");
  }
  return (static_cast<double>(number->whole) +
          static_cast<double>(number->fraction) / static_cast<double>(number->fraction_scale)) /
         100;
}

Parsed<Amount> parse_amount(std::string_view text) {
  if (text.ends_with('%')) {
    const Parsed<double> share = parse_share(text);
    if (!share) return std::unexpected(share.error());
    return Amount{.bytes = 0, .share = *share, .is_share = true};
  }
  const Parsed<uint64_t> bytes = parse_bytes(text);
  if (!bytes) return std::unexpected(bytes.error());
  return Amount{.bytes = *bytes, .share = 0, .is_share = false};
}

Parsed<uint64_t> parse_count(std::string_view text, uint64_t min, uint64_t max) {
  const Parsed<Number> number = read_number(text);
  if (!number || !number->rest.empty() || number->fraction_scale != 1 || number->whole < min || number->whole > max) {
    return std::unexpected(fmt::format("it is no whole number from {} to {}", min, max));
  }
  return number->whole;
}

Parsed<uint32_t> parse_mode(std::string_view text) {
  uint32_t mode = 0;
  bool valid = text.size() >= 3 && text.size() <= 5;
  for (const char c : text) {
    valid = valid && c >= '0' && c <= '7';
    mode = mode * 8 + static_cast<uint32_t>(c - '0');
  }
  if (!valid || mode > 0777) return std::unexpected("it is no file mode; write octal digits such as \"0444\"");
  return mode;
}

std::string format_bytes(uint64_t bytes) { return format_scaled(bytes, byte_units); }
std::string format_duration_ns(uint64_t ns) { return ns == 0 ? "0s" : format_scaled(ns, time_units); }

std::string format_share(double share) {
  // Percentages have at most nine decimals; beyond that is the error of binary fractions.
  return fmt::format("{}%", std::round(share * 1e11) / 1e9);
}

std::string format_amount(const Amount& amount) {
  return amount.is_share ? format_share(amount.share) : format_bytes(amount.bytes);
}

std::string format_mode(uint32_t mode) { return fmt::format("0{:03o}", mode); }

std::string format_bytes_short(uint64_t bytes) {
  constexpr std::array<const char*, 7> names{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  auto value = static_cast<double>(bytes);
  size_t index = 0;
  for (; value >= 1000 && index + 1 < names.size(); ++index) value /= 1024;
  if (index == 0) return fmt::format("{} B", bytes);
  return fmt::format("{:.{}f} {}", value, value < 10 ? 2 : value < 100 ? 1 : 0, names[index]);
}

}  // namespace blobcache
