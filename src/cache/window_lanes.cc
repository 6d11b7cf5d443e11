// Columns of a table. A query reads some of them: of each row group the same pieces, so behind a piece of a column follows the
// piece of that column in the next row group, and what lies between is not wanted (cache/layout_parquet.cc).
//
//   row group 0:  a0 b0 c0 d0   row group 1:  a1 b1 c1 d1 ...      lanes() == 4; a reader of b and d: b0 d0 b1 d1 b2 d2
//
// A column is followed from its second piece on: the rest of the piece is fetched ahead, up to four chunks, and when all of it
// is on its way the first chunk of the next one. Streams do nothing then: equal row groups look like strides to them, and
// the pieces of a row group like scans. Where more than half of the columns are read it is a scan, and theirs.
//
// What is fetched is an orphan at once: used when it is read, wasted when it is missed or the file closed first. So it has no
// share of the memory's budget, which sixteen columns with five chunks each do not need.
#include <algorithm>

#include "cache/window.h"

namespace blobcache {

namespace {

constexpr uint64_t block_bytes = limits::block_bytes;
constexpr uint64_t chunks_ahead = 4;

}  // namespace

// True: the read is one of a column that is followed.
bool PrefetchWindows::follow_lane(const ByteRange& read, PrefetchBudget& budget, uint64_t now_ns, WindowPlan* plan) {
  const std::span<const ByteRange> pieces = layout_->extents();
  // Pages are no pieces: a read begins in the one before and ends in the one behind.
  const uint64_t middle = read.offset + read.bytes / 2;
  const size_t piece = layout_->pieces_before(middle);
  if (whole_ || piece == pieces.size() || !pieces[piece].contains(middle)) return false;
  const auto column = static_cast<uint32_t>(piece % layout_->lanes());
  auto lane = std::find_if(lanes_.begin(), lanes_.end(), [&](const Lane& one) { return one.column == column; });
  if (lane == lanes_.end()) {
    lane = lanes_.begin() + lane_oldest_;
    lane_oldest_ = (lane_oldest_ + 1) % lanes_max;
    *lane = {.column = column, .piece = static_cast<uint32_t>(piece)};
  } else if (piece == lane->piece + layout_->lanes()) {
    ++lane->followed;
    lane->issued = lane->next_issued;
    lane->next_issued = 0;
  } else if (piece != lane->piece) {
    *lane = {.column = column};
  }
  lane->piece = static_cast<uint32_t>(piece);
  if (lane->followed == 0 || is_scan(piece)) return false;
  const uint64_t from = std::max(read.end(), lane->issued);
  const uint64_t until = std::min(pieces[piece].end(), read.end() + chunks_ahead * options_.chunk_bytes);
  // In pieces worth a request.
  if (until > from && (until == pieces[piece].end() || until - from >= options_.chunk_bytes)) {
    fetch_lane({from, until - from}, budget, now_ns, plan, &lane->issued);
  }
  const size_t next = piece + layout_->lanes();
  if (until < pieces[piece].end() || next >= pieces.size() || lane->next_issued != 0) return true;
  const uint64_t bytes = std::min(pieces[next].bytes, options_.chunk_bytes);
  fetch_lane({pieces[next].offset, bytes}, budget, now_ns, plan, &lane->next_issued);
  return true;
}

// More than half of the columns are read in this row group or the one before.
bool PrefetchWindows::is_scan(size_t piece) const {
  const size_t columns = layout_->lanes();
  size_t read = 0;
  for (const Lane& lane : lanes_) {
    if (lane.column != ~0u && lane.piece <= piece && piece - lane.piece < columns) ++read;
  }
  return read * 2 > columns;
}

// Whole blocks; that in which a reader stopped he has brought himself.
void PrefetchWindows::fetch_lane(const ByteRange& wanted, PrefetchBudget& budget, uint64_t now_ns, WindowPlan* plan,
                                 uint64_t* issued) {
  const bool begins = layout_->piece_begun(wanted) != Layout::no_piece;
  const uint64_t low = (wanted.offset + (begins ? 0 : block_bytes - 1)) / block_bytes * block_bytes;
  const uint64_t high = (wanted.end() + block_bytes - 1) / block_bytes * block_bytes;
  if (low >= high) {
    *issued = wanted.end();
    return;
  }
  const uint64_t granted = budget.try_acquire({.bytes = high - low, .unit_bytes = block_bytes}, now_ns);
  if (granted == 0) return;
  budget.leave(granted);
  const ByteRange range{low, std::min(low + granted, file_bytes_) - low};
  totals_.asked_bytes += range.bytes;
  add_orphan(range);
  plan->fetches[plan->fetch_count++] = {.range = range,
                                        .stream = WindowRange::lane_stream,
                                        .scattered = range.bytes <= block_bytes,
                                        .granted_bytes = granted};
  *issued = std::min(range.end(), wanted.end());
}

}  // namespace blobcache
