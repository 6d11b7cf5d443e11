// Poster: how a thread without a reactor sends a message to one. It owns a ring of four entries for MSG_RING alone.
//   Thread    the one that made it
//   Errors    a target that has ended swallows the message
#pragma once

#include <memory>

#include "ring/reactor.h"

namespace blobcache {

class Poster {
 public:
  Poster();
  ~Poster();
  Poster(const Poster&) = delete;
  Poster& operator=(const Poster&) = delete;

  // Returns when the message lies in the target's ring; its handler runs there.
  void post(const Reactor& target, Message& message);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace blobcache
