// Pings: a message to every core, to know that each turns.
//   Owner     whoever asks.   Thread  one; not a core's
//   Lifetime  longer than the cores: one that hangs keeps its message, and is not asked again until it has answered
#pragma once

#include <memory>
#include <optional>
#include <semaphore>
#include <vector>

#include "ring/poster.h"
#include "ring/reactor.h"

namespace blobcache::node {

class Core;

class Pings {
 public:
  explicit Pings(const std::vector<std::unique_ptr<Core>>& cores);
  ~Pings();

  // The first core that does not answer within a second; nullopt: all do. The cores run.
  std::optional<unsigned> silent_core(Poster& poster);

 private:
  struct Ping : Message {
    Ping() : Message(+[](Op& op, int32_t, uint32_t) { static_cast<Ping&>(op).answered.release(); }) {}
    std::binary_semaphore answered{0};
    bool in_flight = false;
  };
  const std::vector<std::unique_ptr<Core>>& cores_;
  std::vector<std::unique_ptr<Ping>> pings_;
};

}  // namespace blobcache::node
