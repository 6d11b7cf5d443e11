// What an open file says of itself (cache/layout.h), learned from bytes that are in memory or fetched for the purpose.
//
//   not yet --a user read its last bytes--> at end: where these say so --> yes
//   not yet --a user read its first bytes--> yes: recognise, then what the layout needs --> done: bounds the windows, or just a file
//
// Only who reads the start of a file, or the end of one that has its table there, may be after its table of contents: a reader
// of anywhere costs nothing. What is needed is
// looked for in memory at every read and when a piece of it has landed, and asked for once; a reader may be bringing it
// himself. A table of more than 256 KiB would hold a core for more than 3 ms and is left alone, as is one that does not come.
#include <algorithm>
#include <array>
#include <mutex>
#include <utility>

#include "serve/handle.h"
#include "serve/prefetch.h"

namespace blobcache::serve {
namespace {

using limits::block_bytes;

constexpr uint64_t described_bytes_min = 8 * limits::MiB;  // a window is not larger than a quarter of a smaller one
constexpr uint64_t table_bytes_max = 256 * limits::KiB;
constexpr uint8_t looks_max = 200;
constexpr uint32_t end_bytes = 4;
constexpr unsigned steps_max = 4096;     // a look: GGUF has one for each word of its vocabulary
constexpr uint64_t layouts_share = 256;  // of the arena, for all files

}  // namespace

uint64_t PrefetchNode::layout_bytes_max() const { return arena_bytes_ / layouts_share; }

bool PrefetchNode::try_add_layout(uint64_t bytes) {
  if (layout_bytes_.fetch_add(bytes, std::memory_order_relaxed) + bytes <= layout_bytes_max()) return true;
  remove_layout(bytes);
  return false;
}

void FilePrefetch::note_header(const ByteRange& read) {
  if (handle.object_bytes < described_bytes_min) return;
  Learning state = Learning::not_yet;
  if (read.offset == 0) {
    if (!learning_.compare_exchange_strong(state, Learning::yes, relaxed) && state == Learning::at_end) {
      learning_.compare_exchange_strong(state, Learning::yes, relaxed);
    }
  } else if (read.end() == handle.object_bytes && !end_seen_.load(relaxed)) {
    learning_.compare_exchange_strong(state, Learning::at_end, relaxed);
  }
}

// Under the lock, as all that follows. Somebody has read the end: it is in memory, or will be. True: it tells of more.
bool FilePrefetch::look_at_end(MemoryTier& memory, uint32_t now_s) {
  std::array<std::byte, end_bytes> end;
  const uint64_t offset = handle.object_bytes - end_bytes;
  const bool there = memory.holds(handle.object, offset, end_bytes) &&
                     memory.try_copy(handle.object, offset, end_bytes, end.data(), now_s);
  if (!there && ++layout_looks_ < looks_max) return false;
  const bool tells = there && is_read_from_end({reinterpret_cast<const uint8_t*>(end.data()), end.size()});
  end_seen_.store(true, relaxed);
  layout_looks_ = 0;
  Learning state = Learning::at_end;
  learning_.compare_exchange_strong(state, tells ? Learning::yes : Learning::not_yet, relaxed);
  return tells;
}

ByteRange FilePrefetch::layout_needs() const {
  if (layout_ == nullptr) return {0, std::min(block_bytes, handle.object_bytes)};
  return layout_->worth_fetching() ? layout_->needs() : ByteRange();
}

void FilePrefetch::end_learning() {
  if (layout_ != nullptr && !layout_->siblings().empty()) first_sibling_ = layout_->siblings().front();
  const size_t pieces = layout_ == nullptr ? 0 : layout_->extents().size();
  const uint64_t bytes = pieces * PiecesRead::piece_bytes + (pieces == 0 ? 0 : layout_->extents().size_bytes());
  if (bytes == 0 || layout_->malformed() || !node.try_add_layout(bytes)) {
    layout_ = nullptr;
  } else {
    layout_bytes_ = bytes;
    pieces_read_ = std::make_unique<PiecesRead>(*layout_);
    windows().set_layout(*layout_, *pieces_read_, whole_);
  }
  learning_.store(Learning::done, std::memory_order_release);
}

// One read is enough then to know where its reader goes.
bool FilePrefetch::begins_piece(const ByteRange& read) {
  return learning_.load(std::memory_order_acquire) == Learning::done && layout_ != nullptr &&
         pieces_read_->on_read(read);
}

// All that is needed and in memory. False: more is needed.
bool FilePrefetch::take_layout(MemoryTier& memory, uint32_t now_s) {
  std::array<std::byte, block_bytes> block;
  unsigned steps = 0;
  for (ByteRange needs = layout_needs(); !needs.empty(); needs = layout_needs()) {
    if (++steps > steps_max) return false;
    if (needs.bytes > table_bytes_max) return true;
    uint64_t at = needs.offset;
    while (at < needs.end()) {
      const uint64_t until = std::min(needs.end(), at / block_bytes * block_bytes + block_bytes);
      const std::span<std::byte> to(block.data(), until - at);
      if (!memory.holds(handle.object, at, needs.end() - at)) return false;
      if (!memory.try_copy(handle.object, at, static_cast<uint32_t>(until - at), block.data(), now_s)) return false;
      const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(to.data()), to.size());
      if (layout_ == nullptr) {
        layout_ = recognise_layout({.file_bytes = handle.object_bytes, .head = bytes, .tail = {}});
        if (layout_ == nullptr) return true;
      } else {
        layout_->on_bytes(at, bytes);
      }
      at = until;
    }
  }
  return true;
}

std::string FilePrefetch::take_first_sibling() {
  if (learning_.load(std::memory_order_acquire) != Learning::done) return {};
  const std::lock_guard held(lock_);
  return std::exchange(first_sibling_, {});
}

bool FilePrefetch::learn(MemoryTier& memory, uint32_t now_s) {
  const std::unique_lock held(lock_, std::try_to_lock);
  if (!held || !learns()) return false;
  if (learning_.load(relaxed) == Learning::at_end && !look_at_end(memory, now_s)) return false;
  if (take_layout(memory, now_s) || ++layout_looks_ == looks_max) {
    end_learning();
    return false;
  }
  const ByteRange needs = layout_needs();
  if (needs == layout_asked_ || wanted_count_ == wanted_max) return false;
  layout_asked_ = needs;
  windows();
  std::move_backward(wanted_.begin(), wanted_.begin() + wanted_count_, wanted_.begin() + wanted_count_ + 1);
  ++wanted_count_;
  wanted_[0] = {.range = needs, .stream = layout_stream, .scattered = true};
  if (in_list_) return false;
  return in_list_ = true;
}

}  // namespace blobcache::serve
