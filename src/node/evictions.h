// Evictions: the commands "evict ID BYTES" and "forget ID BYTES" of the control socket: one object leaves the disks and the
// memory tier, or the memory tier alone.
//   Owner     Node.   Thread  the main thread; the disk's part happens on a helper thread, because a disk may hang and the
//             main thread has signals to answer
//   Limits    one at a time, waited for at most patience_ms; a disk that hangs fails this command and the next ones
//   Pins      a pinned object is not evicted; "evict" says "error: pinned\n", which is for programs
#pragma once

#include <memory>
#include <semaphore>
#include <string>
#include <string_view>

#include "base/object_id.h"
#include "node/core.h"
#include "node/helped_call.h"
#include "ring/poster.h"

namespace blobcache::node {

// 32 hex digits. Errors: invalid.
Result<ObjectId> parse_object_id(std::string_view hex);
struct NamedObject {
  ObjectId id;
  uint64_t bytes = 0;
};
// "ID BYTES". Errors: invalid.
Result<NamedObject> parse_object(std::string_view text);

class Evictions {
 public:
  static constexpr unsigned patience_ms = 5'000;

  explicit Evictions(SharedState& shared);
  ~Evictions();
  Evictions(const Evictions&) = delete;
  Evictions& operator=(const Evictions&) = delete;

  // "ok\n", or "error: ...\n". An object that nobody has is evicted.
  std::string evict(std::string_view arguments, Poster& poster, const Reactor& core);
  std::string forget(std::string_view arguments, Poster& poster, const Reactor& core);
  // False: a disk or a core still hangs with something of this object's.
  bool join();

 private:
  struct DropMessage;

  std::string drop_from_memory(const ObjectId& id, uint64_t bytes, Poster& poster, const Reactor& core);
  Result<void> remove_from_disk(const ObjectId& id);

  SharedState& shared_;
  std::unique_ptr<DropMessage> drop_;
  HelpedCall removal_;
  ObjectId id_;  // of it
  Result<void> result_;
};

}  // namespace blobcache::node
