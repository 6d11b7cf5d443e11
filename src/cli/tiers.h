// The value of user.blobcache.tiers: {"memory":4194304,"disk":0}, bytes by tier.
//   Thread    any; plain functions
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace blobcache::cli {

struct TierBytes {
  std::string tier;
  uint64_t bytes = 0;
};

// nullopt: it is no flat object of whole numbers.
std::optional<std::vector<TierBytes>> parse_tiers(std::string_view json);

// 0 when the tier is not named.
uint64_t bytes_of(const std::vector<TierBytes>& tiers, std::string_view tier);
// Adds each tier to the one of its name in `sum`.
void add_tiers(const std::vector<TierBytes>& tiers, std::vector<TierBytes>* sum);

}  // namespace blobcache::cli
