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

}  // namespace blobcache::cli
