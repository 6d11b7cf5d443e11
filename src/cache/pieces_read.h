// PiecesRead: how far the readers of one open file have come in the pieces that its layout tells: which of them they are
// about to read, and which of its pages they have from reading a neighbour.
//   Owner     one open file, made when its layout is known, which outlives it
//   Thread    any, without a lock: two reads at once may cost a guess
//   Limits    a byte a piece
//
// What comes from a mapped file is what the kernel reads around the page that was touched, so a read around the place where
// two pieces meet is one of three things. Copies of the C library touch the first page, then the last one, then what is
// between:
//
//            piece p-1           piece p            piece p+1
//   ---|---------------------|----------------|----------------------|---
//                        [ read ]
//
//   the last page of p-1     when p-1 was begun just before
//   the first page of p      else; it says where the reader goes
//   the last page of p-1     too, when the first page of p-1 had come with the end of p-2, so that nobody saw it begin: in
//                            doubt until the next read, which lies in p-1 then
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cache/byte_range.h"
#include "cache/layout.h"

namespace blobcache {

class PiecesRead {
 public:
  static constexpr uint64_t piece_bytes = 1;  // of memory

  explicit PiecesRead(const Layout& layout) : layout_(layout), marks_(layout.extents().size()) {}

  // Told each read. Whether it begins a piece or says which one was begun: one read is enough to know where its reader goes.
  bool on_read(const ByteRange& read);
  // Where of the piece begins what came with the first page of the next one; UINT64_MAX: nothing did.
  uint64_t unread_end(size_t piece) const;

 private:
  static constexpr std::memory_order relaxed = std::memory_order_relaxed;
  enum Mark : uint8_t { started = 1, entered = 2 };

  bool on_start(size_t piece, const ByteRange& read);
  size_t ends_unseen(size_t begun, const ByteRange& read) const;
  void mark(size_t piece, Mark what) { marks_[piece].fetch_or(what, relaxed); }

  const Layout& layout_;
  std::atomic<size_t> begun_{Layout::no_piece};
  std::atomic<uint64_t> around_bytes_{0};          // that came before the first page of a piece, the last time
  std::atomic<size_t> doubted_{Layout::no_piece};  // either the next one was begun, or this one, a while ago
  std::vector<std::atomic<uint8_t>> marks_;
};

}  // namespace blobcache
