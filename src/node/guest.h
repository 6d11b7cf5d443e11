// Guest: what lives on a core's reactor beside the volumes.
//   Owner     Node; outlives the core.   Thread  the core's
#pragma once

#include "ring/reactor.h"

namespace blobcache::node {

class Guest {
 public:
  // Before the core's first turn.
  virtual void start(Reactor& home) = 0;
  // After its last one: timers are cancelled, and what is in flight ends soon.
  virtual void stop() = 0;

 protected:
  ~Guest() = default;
};

}  // namespace blobcache::node
