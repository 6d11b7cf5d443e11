// What the formats share: getting the bytes that they need together, whatever order readers bring them in, and what to
// fetch once the pieces are known.
//
// A piece of needs() is kept only when it continues what is there: a reader who jumps about brings nothing, and the caller
// reads needs() itself if it matters. Each need lies behind the one before, or is another part of the file that its parser
// asks for once, so on_bytes ends after as many parsing steps as the format has parts; what has more is given up.
#include "cache/layout.h"

#include <algorithm>

#include "base/limits.h"

namespace blobcache {

namespace {
constexpr uint64_t file_bytes_max = uint64_t{1} << 48;  // sums of two offsets stay below 2^64
}

void Layout::need(const ByteRange& range) {
  const bool inside = range.offset < file_bytes_ && range.bytes <= file_bytes_ - range.offset;
  if (range.empty() || !inside || range.bytes > header_bytes_max || range == needs_) {
    give_up();
    return;
  }
  needs_ = range;
}

void Layout::give_up() {
  needs_ = {};
  malformed_ = true;
}

void Layout::on_bytes(uint64_t offset, std::span<const uint8_t> bytes) {
  while (!needs_.empty()) {
    const uint64_t from = needs_.offset + gathered_.size();
    if (from < offset || from - offset >= bytes.size()) return;
    const std::span<const uint8_t> fresh = bytes.subspan(from - offset);
    const uint64_t missing = needs_.bytes - gathered_.size();
    if (gathered_.empty() && fresh.size() >= missing) {
      on_needed(fresh.first(missing));
      continue;
    }
    const std::span<const uint8_t> taken = fresh.first(std::min<uint64_t>(missing, fresh.size()));
    gathered_.insert(gathered_.end(), taken.begin(), taken.end());
    if (gathered_.size() < needs_.bytes) return;
    const std::vector<uint8_t> whole = std::move(gathered_);
    gathered_ = {};
    on_needed(whole);
  }
}

bool Layout::add_extent(const ByteRange& range) {
  if (extents_.size() >= extents_max) return false;
  extents_.push_back(range);
  return true;
}

void Layout::settle_extents() {
  std::sort(extents_.begin(), extents_.end(),
            [](const ByteRange& a, const ByteRange& b) { return a.offset < b.offset; });
  uint64_t taken = 0;
  size_t kept = 0;
  for (const ByteRange& extent : extents_) {
    const uint64_t low = std::max(extent.offset, taken);
    const uint64_t bytes = extent.offset >= file_bytes_ ? 0 : std::min(extent.bytes, file_bytes_ - extent.offset);
    const uint64_t high = extent.offset + bytes;
    if (bytes == 0 || high <= low) continue;
    extents_[kept++] = {low, high - low};
    taken = high;
  }
  extents_.resize(kept);
  extents_.shrink_to_fit();
}

size_t Layout::ahead_of(const ByteRange& read, std::span<ByteRange> found) const {
  if (found.empty() || read.empty()) return 0;
  // The piece in which the read ended, or the next one.
  const auto piece = std::partition_point(extents_.begin(), extents_.end(),
                                          [&](const ByteRange& extent) { return extent.end() < read.end(); });
  size_t count = 0;
  for (size_t i = static_cast<size_t>(piece - extents_.begin()); i < extents_.size(); i += lanes_) {
    const uint64_t low = std::max(extents_[i].offset, read.end());
    if (low >= extents_[i].end()) continue;
    if (count > 0 && found[count - 1].end() == low) {
      found[count - 1].bytes += extents_[i].end() - low;
      continue;
    }
    if (count == found.size()) break;
    found[count++] = {low, extents_[i].end() - low};
  }
  return count;
}

size_t Layout::pieces_before(uint64_t offset) const {
  const auto piece = std::partition_point(extents_.begin(), extents_.end(),
                                          [&](const ByteRange& extent) { return extent.end() <= offset; });
  return static_cast<size_t>(piece - extents_.begin());
}

size_t Layout::piece_begun(const ByteRange& read) const {
  if (read.empty()) return no_piece;
  // The last byte of the page: where one piece ends and the next one begins, it is the latter that is begun.
  const uint64_t middle = std::min(read.offset + read.bytes / 2 + limits::page_bytes, read.end()) - 1;
  const size_t piece = pieces_before(middle);
  if (piece == extents_.size()) return no_piece;
  const uint64_t begin = extents_[piece].offset;
  return begin >= read.offset && begin <= middle ? piece : no_piece;
}

uint64_t Layout::piece_end(uint64_t offset) const {
  const size_t piece = pieces_before(offset);
  if (piece == extents_.size()) return file_bytes_;
  return offset < extents_[piece].offset ? extents_[piece].offset : extents_[piece].end();
}

std::unique_ptr<Layout> recognise_layout(const LayoutSample& sample) {
  if (sample.file_bytes > file_bytes_max) return nullptr;
  if (sample.head.size() > sample.file_bytes || sample.tail.size() > sample.file_bytes) return nullptr;
  for (auto* try_format : {try_gguf, try_parquet, try_zip, try_tar, try_safetensors, try_safetensors_index}) {
    std::unique_ptr<Layout> layout = try_format(sample);
    if (!layout) continue;
    layout->on_bytes(0, sample.head);
    layout->on_bytes(sample.file_bytes - sample.tail.size(), sample.tail);
    return layout;
  }
  return nullptr;
}

}  // namespace blobcache
