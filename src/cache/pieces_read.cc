#include "cache/pieces_read.h"

#include <algorithm>

namespace blobcache {

namespace {

// Of the small pieces that one read may begin or end.
constexpr size_t looked_at_max = 16;

}  // namespace

bool PiecesRead::on_read(const ByteRange& read) {
  if (read.empty()) return false;
  const size_t begun = layout_.piece_begun(read);
  if (begun != Layout::no_piece) return on_start(begun, read);
  const size_t piece = layout_.pieces_before(read.offset + read.bytes / 2);
  if (piece == marks_.size()) return false;
  // Behind the end of the piece before the kernel reads on by a request or two: that is not the reader's wish.
  if (read.offset >= layout_.extents()[piece].offset + 4 * around_bytes_.load(relaxed)) mark(piece, entered);
  return doubted_.exchange(Layout::no_piece, relaxed) == piece;
}

bool PiecesRead::on_start(size_t piece, const ByteRange& read) {
  const std::span<const ByteRange> pieces = layout_.extents();
  const uint64_t bytes_before = pieces[piece].offset - read.offset;
  size_t doubted = Layout::no_piece;
  if (bytes_before >= read.bytes / 4) {  // around a page; read(2) begins with it
    doubted = ends_unseen(piece, read);
    around_bytes_.store(bytes_before, relaxed);
    // Read before, so the kernel has lost it since: a second pass.
    const bool again = (marks_[piece].load(relaxed) & started) != 0;
    size_t i = piece;
    for (; i < pieces.size() && pieces[i].offset < read.end() && i - piece < looked_at_max; ++i) {
      if (again) marks_[i].store(0, relaxed);
      mark(i, started);
    }
    if (again && i < pieces.size()) marks_[i].store(0, relaxed);
  }
  const size_t before = begun_.exchange(piece, relaxed);
  const bool ends =
      before != Layout::no_piece && pieces[before].end() >= read.offset && pieces[before].end() <= read.end();
  const bool known = piece == before || ends;
  doubted_.store(known ? Layout::no_piece : doubted, relaxed);
  return !known && doubted == Layout::no_piece;
}

// The piece before this one of which the read may show the last page, when nothing else was seen of it yet.
size_t PiecesRead::ends_unseen(size_t begun, const ByteRange& read) const {
  const std::span<const ByteRange> pieces = layout_.extents();
  for (size_t i = begun; i-- > 0 && pieces[i].end() >= read.offset && begun - i <= looked_at_max;) {
    if (pieces[i].bytes >= 4 * read.bytes && marks_[i].load(relaxed) == started) return i;
  }
  return Layout::no_piece;
}

uint64_t PiecesRead::unread_end(size_t piece) const {
  if (piece + 1 >= marks_.size() || (marks_[piece + 1].load(relaxed) & started) == 0) return UINT64_MAX;
  const ByteRange& extent = layout_.extents()[piece];
  return extent.end() - std::min(extent.bytes, around_bytes_.load(relaxed));
}

}  // namespace blobcache
