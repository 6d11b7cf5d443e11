// Pins: the commands "pin ID BYTES", "unpin ID" and "unpin-all" of the control socket.
//   Owner     Node.   Thread  the main thread; the disk's part happens on a helper thread (helped_call.h)
//   Answers   pin: "ok\n", "already\n" or "error: ...\n"; unpin: "ok COUNT\n", of objects, or "error: ...\n"
#pragma once

#include <string>
#include <string_view>

#include "base/object_id.h"
#include "cache/disk_tier.h"
#include "node/core.h"
#include "node/helped_call.h"

namespace blobcache::node {

class Pins {
 public:
  static constexpr unsigned patience_ms = 5'000;

  explicit Pins(SharedState& shared) : shared_(shared) {}

  std::string pin(std::string_view arguments);
  std::string unpin(std::string_view arguments);
  std::string unpin_all(std::string_view arguments);
  // False: a disk still hangs with one.
  bool join();

 private:
  std::string unpin_object();
  std::string refusal() const;

  SharedState& shared_;
  HelpedCall call_;
  // Of the call.
  ObjectId id_;
  uint64_t bytes_ = 0;
  DiskTier::PinFacts facts_;
  Result<void> result_;
  Result<uint64_t> unpinned_;
};

}  // namespace blobcache::node
