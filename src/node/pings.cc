#include "node/pings.h"

#include <chrono>

#include "node/core.h"

namespace blobcache::node {
namespace {

constexpr auto patience = std::chrono::seconds(1);

}  // namespace

Pings::Pings(const std::vector<std::unique_ptr<Core>>& cores) : cores_(cores) {
  for (size_t i = 0; i < cores.size(); ++i) pings_.push_back(std::make_unique<Ping>());
}

Pings::~Pings() = default;

std::optional<unsigned> Pings::silent_core(Poster& poster) {
  for (unsigned i = 0; i < pings_.size(); ++i) {
    Ping& ping = *pings_[i];
    if (!ping.in_flight) {
      ping.in_flight = true;
      poster.post(cores_[i]->reactor(), ping);
    }
    if (!ping.answered.try_acquire_for(patience)) return i;
    ping.in_flight = false;
  }
  return std::nullopt;
}

}  // namespace blobcache::node
