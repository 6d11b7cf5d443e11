#include "node/pins.h"

#include <fmt/format.h>

#include "base/units.h"
#include "node/evictions.h"

namespace blobcache::node {
namespace {

constexpr auto patience = std::chrono::milliseconds(Pins::patience_ms);
constexpr const char* hangs = "error: a disk does not answer\n";

}  // namespace

std::string Pins::pin(std::string_view arguments) {
  const Result<NamedObject> object = parse_object(arguments);
  if (!object) return "error: an object id and its size are wanted\n";
  if (shared_.disk == nullptr) return "error: there is no disk cache to pin it on; give it one with cache.disk\n";
  if (!call_.join(std::chrono::milliseconds(0))) return hangs;
  id_ = object->id;
  bytes_ = object->bytes;
  if (!call_.run([this] { result_ = shared_.disk->pin_and_wait(id_, bytes_, &facts_); }, patience)) return hangs;
  if (!result_) return refusal();
  return facts_.was_pinned ? "already\n" : "ok\n";
}

std::string Pins::refusal() const {
  switch (result_.error().code) {
    case Code::full: {
      if (facts_.pinned_bytes + facts_.wanted_bytes <= facts_.pinned_bytes_max)
        return "error: the index of the disks has no room for it; raise memory.limit\n";
      return fmt::format(
          "error: of disk {} at most {} may be pinned, {} are, and this would add {}; unpin something or give the "
          "cache "
          "more of the disk\n",
          shared_.disk->stats(facts_.disk).path, format_bytes_short(facts_.pinned_bytes_max),
          format_bytes_short(facts_.pinned_bytes), format_bytes_short(facts_.wanted_bytes));
    }
    case Code::invalid: return "error: the cache knows no such object of this size\n";
    case Code::again: return "error: too many small files are to be pinned at once; repeat with fewer\n";
    default: return "error: its disk takes no writes now; see `blobcache status`\n";
  }
}

std::string Pins::unpin(std::string_view arguments) {
  const Result<ObjectId> id = parse_object_id(arguments);
  if (!id || id->is_null()) return "error: an object id is wanted\n";
  if (!call_.join(std::chrono::milliseconds(0))) return hangs;
  id_ = *id;
  return unpin_object();
}

std::string Pins::unpin_all(std::string_view arguments) {
  if (!arguments.empty()) return "error: nothing is expected behind unpin-all\n";
  if (!call_.join(std::chrono::milliseconds(0))) return hangs;
  id_ = {};
  return unpin_object();
}

std::string Pins::unpin_object() {
  if (shared_.disk == nullptr) return "ok 0\n";
  if (!call_.run([this] { unpinned_ = shared_.disk->unpin_and_wait(id_); }, patience)) return hangs;
  if (!unpinned_) {
    return id_.is_null()
               ? "error: a disk takes no writes now, so its pins come back with a restart; see `blobcache status`\n"
               : "error: its disk takes no writes now, so the pin comes back with a restart; see `blobcache status`\n";
  }
  return fmt::format("ok {}\n", *unpinned_);
}

bool Pins::join() { return call_.join(patience); }

}  // namespace blobcache::node
