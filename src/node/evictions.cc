// The disk first, then memory: what is read in between comes from the origin again, and goes through the memory tier to
// the disk as any read does.
#include "node/evictions.h"

#include <charconv>
#include <chrono>

#include <fmt/format.h>

namespace blobcache::node {
namespace {

constexpr auto patience = std::chrono::milliseconds(Evictions::patience_ms);

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

constexpr std::string_view bad_object = "error: an object id and its size are wanted\n";

}  // namespace

// Frames are taken out of the index between the turns of a core: it is a core that says so (base/epoch.h).
struct Evictions::DropMessage : Message {
  explicit DropMessage(MemoryTier& tier) : Message(&DropMessage::on_message), memory(tier) {}
  static void on_message(Op& op, int32_t, uint32_t) {
    auto& self = static_cast<DropMessage&>(op);
    self.memory.drop(self.id, self.bytes);
    self.done.release();
  }
  MemoryTier& memory;
  ObjectId id;
  uint64_t bytes = 0;
  bool in_flight = false;
  std::binary_semaphore done{0};
};

Result<ObjectId> parse_object_id(std::string_view hex) {
  ObjectId id;
  unsigned char bytes[sizeof id.words];
  if (hex.size() != 2 * sizeof bytes) return fail(Code::invalid);
  for (size_t i = 0; i < sizeof bytes; ++i) {
    const int high = hex_value(hex[2 * i]);
    const int low = hex_value(hex[2 * i + 1]);
    if (high < 0 || low < 0) return fail(Code::invalid);
    bytes[i] = static_cast<unsigned char>(high << 4 | low);
  }
  std::memcpy(id.words, bytes, sizeof bytes);
  return id;
}

Result<NamedObject> parse_object(std::string_view text) {
  const size_t space = text.find(' ');
  const Result<ObjectId> id = parse_object_id(text.substr(0, space));
  const std::string_view number = space == std::string_view::npos ? "" : text.substr(space + 1);
  NamedObject object;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), object.bytes);
  if (!id || error != std::errc() || end != number.data() + number.size()) return fail(Code::invalid);
  object.id = *id;
  return object;
}

Evictions::Evictions(SharedState& shared) : shared_(shared), drop_(std::make_unique<DropMessage>(*shared.memory)) {}

Evictions::~Evictions() = default;

std::string Evictions::evict(std::string_view arguments, Poster& poster, const Reactor& core) {
  const Result<NamedObject> object = parse_object(arguments);
  if (!object) return std::string(bad_object);
  if (const Result<void> removed = remove_from_disk(object->id); !removed && removed.error().code != Code::not_found) {
    if (removed.error().code == Code::again) return "error: pinned\n";
    return fmt::format("error: the disk did not let go of it: {}\n", code_name(removed.error().code));
  }
  return drop_from_memory(object->id, object->bytes, poster, core);
}

std::string Evictions::forget(std::string_view arguments, Poster& poster, const Reactor& core) {
  const Result<NamedObject> object = parse_object(arguments);
  if (!object) return std::string(bad_object);
  return drop_from_memory(object->id, object->bytes, poster, core);
}

std::string Evictions::drop_from_memory(const ObjectId& id, uint64_t bytes, Poster& poster, const Reactor& core) {
  if (drop_->in_flight && !drop_->done.try_acquire()) return "error: a core does not answer\n";
  drop_->id = id;
  drop_->bytes = bytes;
  drop_->in_flight = true;
  poster.post(core, *drop_);
  if (!drop_->done.try_acquire_for(patience)) return "error: a core does not answer\n";
  drop_->in_flight = false;
  return "ok\n";
}

Result<void> Evictions::remove_from_disk(const ObjectId& id) {
  if (shared_.disk == nullptr) return {};
  if (!removal_.join(std::chrono::milliseconds(0))) return fail(Code::timeout);
  id_ = id;
  if (!removal_.run([this] { result_ = shared_.disk->remove_and_wait(id_); }, patience)) return fail(Code::timeout);
  return result_;
}

bool Evictions::join() { return removal_.join(patience); }

}  // namespace blobcache::node
