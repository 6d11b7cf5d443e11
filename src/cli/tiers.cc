#include "cli/tiers.h"

#include <algorithm>
#include <charconv>

namespace blobcache::cli {
namespace {

class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}

  bool try_take(char c) {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\n' || rest_[0] == '\t' || rest_[0] == '\r')) {
      rest_.remove_prefix(1);
    }
    if (rest_.empty() || rest_[0] != c) return false;
    rest_.remove_prefix(1);
    return true;
  }

  // Names of tiers are words: no escapes.
  bool try_take_name(std::string* out) {
    if (!try_take('"')) return false;
    const size_t end = rest_.find('"');
    if (end == std::string_view::npos || end == 0) return false;
    *out = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return out->find('\\') == std::string::npos;
  }

  bool try_take_number(uint64_t* out) {
    const bool negative = try_take('-');
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), *out);
    if (negative || error != std::errc()) return false;
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    return true;
  }

  bool at_end() { return !try_take('\0') && rest_.empty(); }

 private:
  std::string_view rest_;
};

}  // namespace

std::optional<std::vector<TierBytes>> parse_tiers(std::string_view json) {
  Reader reader(json);
  std::vector<TierBytes> tiers;
  if (!reader.try_take('{')) return std::nullopt;
  if (!reader.try_take('}')) {
    do {
      TierBytes tier;
      if (!reader.try_take_name(&tier.tier) || !reader.try_take(':') || !reader.try_take_number(&tier.bytes)) {
        return std::nullopt;
      }
      tiers.push_back(std::move(tier));
    } while (reader.try_take(','));
    if (!reader.try_take('}')) return std::nullopt;
  }
  if (!reader.at_end()) return std::nullopt;
  return tiers;
}

uint64_t bytes_of(const std::vector<TierBytes>& tiers, std::string_view tier) {
  for (const TierBytes& each : tiers) {
    if (each.tier == tier) return each.bytes;
  }
  return 0;
}

void add_tiers(const std::vector<TierBytes>& tiers, std::vector<TierBytes>* sum) {
  for (const TierBytes& tier : tiers) {
    const auto known = std::find_if(sum->begin(), sum->end(), [&](const TierBytes& s) { return s.tier == tier.tier; });
    if (known != sum->end()) {
      known->bytes += tier.bytes;
    } else {
      sum->push_back(tier);
    }
  }
}

}  // namespace blobcache::cli
