// What expires is looked for when the next blob's time has come, and at least once a minute while there is one, since the wall
// clock may be set.
#include "serve/content.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include <fmt/format.h>

#include "base/units.h"

namespace blobcache::serve {
namespace {

constexpr uint64_t s_ns = 1'000'000'000;
constexpr int64_t look_s_max = 60;

BlobSource::Blob blob_of(const BlobInfo& info) {
  return {.id = info.id, .bytes = info.bytes, .stored_s = info.stored_s};
}

}  // namespace

Content::~Content() = default;

Result<void> Content::open(std::vector<BlobStore::Disk> disks, uint64_t blobs_max, std::string* message_out) {
  return store_.open({.disks = std::move(disks), .blobs_max = blobs_max, .uploads_max = uploads_max}, message_out);
}

void Content::start() {
  if (!is_open()) return;
  helpers_ = std::make_unique<BlockingCalls>(helpers_count);
  expiry_.start([this] { run_expiry(); });
}

void Content::stop() {
  store_.stop();
  if (helpers_ == nullptr) return;
  helpers_->stop();
  expiry_.begin_stop();
}

bool Content::join(unsigned patience_ms) {
  if (helpers_ == nullptr) return true;
  const uint64_t until_ns = steady_now_ns() + uint64_t{patience_ms} * 1'000'000;
  bool ended = helpers_->join(patience_ms);
  if (!expiry_.join_until(std::max(until_ns, steady_now_ns() + 1'000'000))) {
    expiry_.abandon();
    ended = false;
  }
  return ended;
}

void Content::run_expiry() {
  while (!expiry_.stopping()) {
    const int64_t next_s = store_.expire();
    uint64_t wait_ns = uint64_t{1} << 62;
    if (next_s != 0) {
      const int64_t now_s = static_cast<int64_t>(std::time(nullptr));
      wait_ns = static_cast<uint64_t>(std::clamp<int64_t>(next_s - now_s, 1, look_s_max)) * s_ns;
    }
    expiry_.wait_until(steady_now_ns() + wait_ns);
  }
}

std::string Content::put_problem(const Error& error) const {
  const BlobStore::Facts facts = store_.facts();
  switch (error.code) {
    case Code::corrupt: return "the bytes are not those of the id that was given; nothing was kept";
    case Code::again:
      if (error.os_errno != 0) break;
      return fmt::format("{} uploads are under way, which is the most at a time; repeat it", facts.uploads_max);
    case Code::stopping: return "the node is stopping; nothing was kept";
    case Code::full:
      if (error.os_errno != 0) break;
      if (facts.blobs >= facts.blobs_max) {
        return fmt::format(
            "the content store has {} blobs, the most that its memory has room for; remove some, or raise "
            "memory.limit",
            facts.blobs);
      }
      return fmt::format(
          "the content store has no room for it: {} of {} are taken; remove blobs, or raise "
          "cache.blobs_reserved",
          format_bytes_short(facts.used_bytes + facts.reserved_bytes), format_bytes_short(facts.limit_bytes));
    default: break;
  }
  return fmt::format("the disk of the content store failed ({}); nothing was kept",
                     error.os_errno == 0 ? "no more is known" : std::strerror(error.os_errno));
}

std::optional<BlobSource::Blob> Content::find_blob(const BlobId& id) const {
  const std::optional<BlobInfo> info = store_.find(id);
  if (!info) return std::nullopt;
  return blob_of(*info);
}

std::vector<BlobSource::Blob> Content::list_blobs(const std::optional<BlobId>& after, size_t count_max) const {
  std::vector<Blob> blobs;
  for (const BlobInfo& info : store_.list(after, count_max)) blobs.push_back(blob_of(info));
  return blobs;
}

BlobSource::Facts Content::blob_facts() const {
  const BlobStore::Facts facts = store_.facts();
  return {.limit_bytes = facts.limit_bytes,
          .used_bytes = facts.used_bytes + facts.reserved_bytes,
          .blobs = facts.blobs,
          .blobs_max = facts.blobs_max,
          .changes = facts.changes,
          .changed_s = facts.changed_s};
}

Result<int> Content::open_blob(const BlobId& id) {
  Result<std::unique_ptr<BlobReader>> reader = store_.open_blob(id);
  if (!reader) return std::unexpected(reader.error());
  const std::lock_guard guard(readers_mutex_);
  if (free_handles_.empty()) {
    readers_.push_back(std::move(*reader));
    return static_cast<int>(readers_.size());
  }
  const int handle = free_handles_.back();
  free_handles_.pop_back();
  readers_[static_cast<size_t>(handle) - 1] = std::move(*reader);
  return handle;
}

BlobReader& Content::reader_of(int handle) {
  const std::lock_guard guard(readers_mutex_);
  BC_ASSERT(handle > 0 && static_cast<size_t>(handle) <= readers_.size());
  const std::unique_ptr<BlobReader>& reader = readers_[static_cast<size_t>(handle) - 1];
  BC_ASSERT(reader != nullptr);
  return *reader;
}

Result<void> Content::read_blob(int handle, uint64_t offset, std::span<std::byte> to) {
  BlobReader& reader = reader_of(handle);
  // Who reads by whole blocks may ask for more than there is.
  if (offset >= reader.info().bytes || to.size() > reader.info().bytes - offset) return fail(Code::stale, ESTALE);
  return reader.read(offset, to);
}

void Content::close_blob(int handle) {
  std::unique_ptr<BlobReader> reader;  // closed without the lock
  const std::lock_guard guard(readers_mutex_);
  reader.swap(readers_[static_cast<size_t>(handle) - 1]);
  free_handles_.push_back(handle);
}

}  // namespace blobcache::serve
