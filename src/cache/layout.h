// Layout: where the pieces of a file lie that describes itself: the tensors of a model, the members of an archive, the
// columns of a table. Recognised by content, never by name.
//   Owner     one object (all its open files share it)
//   Thread    one at a time, the caller sees to it. A header of 8 MiB of JSON takes 100 ms: above header_inline_bytes
//             on_bytes is work for a helper thread, not for a core
//   Limits    extents_max pieces, siblings_max names, header_bytes_max gathered; what needs more is not described
//   Invariant extents are in file order, within the file, not empty, and do not overlap
//
// Files come from strangers: whatever is malformed is malformed() and has nothing more to say, which costs the reader
// nothing: a malformed file is just a file. What was learned before stays, clipped to the file.
//
// Protocol: recognise_layout with the first bytes of a file (a block, or all there is) and, where at hand, the last ones;
// then on_bytes with what passes by, or with needs() read for the purpose while worth_fetching().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cache/byte_range.h"

namespace blobcache {

enum class LayoutKind : uint8_t { safetensors, safetensors_index, gguf, tar, parquet, zip };

class Layout {
 public:
  static constexpr size_t header_bytes_max = 8u << 20;
  static constexpr size_t header_inline_bytes = 64u << 10;
  static constexpr size_t extents_max = 65536;
  static constexpr size_t siblings_max = 1024;

  virtual ~Layout() = default;
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;

  LayoutKind kind() const { return kind_; }
  // What it needs next to know more; empty: nothing will.
  const ByteRange& needs() const { return needs_; }
  // false: wait until a reader passes there (tar: its headers lie all over the file, and are read anyway).
  bool worth_fetching() const { return worth_fetching_; }
  bool malformed() const { return malformed_; }
  // Any piece of the file. What is needed is taken from it, front to back.
  void on_bytes(uint64_t offset, std::span<const uint8_t> bytes);

  // Pieces that are read as one, as far as they are known.
  std::span<const ByteRange> extents() const { return extents_; }
  // A reader of one piece goes on with the piece so many further (a column: as many as there are columns).
  size_t lanes() const { return lanes_; }
  // Files in the same directory that belong to it, in their order.
  std::span<const std::string> siblings() const { return siblings_; }
  // What is worth fetching after a read, in the order in which it will be read: the rest of its piece, then the pieces
  // that follow in its lane, neighbours joined. Fills `found` as far as it goes; returns how many.
  size_t ahead_of(const ByteRange& read, std::span<ByteRange> found) const;
  // Where the piece ends that has the byte at `offset`; of what lies before a piece or behind the last one, where that ends.
  uint64_t piece_end(uint64_t offset) const;
  static constexpr size_t no_piece = ~size_t{0};
  // The piece that begins within a read and that its middle is in: what the kernel reads for a fault lies around its page.
  size_t piece_begun(const ByteRange& read) const;
  // Pieces that end at `offset` or before.
  size_t pieces_before(uint64_t offset) const;

 protected:
  Layout(LayoutKind kind, uint64_t file_bytes) : kind_(kind), file_bytes_(file_bytes) {}

  // All of needs(). Calls need() for what comes next, or finish(), or give_up().
  virtual void on_needed(std::span<const uint8_t> bytes) = 0;

  // Beyond the file, empty, more than header_bytes_max, or the same again: malformed.
  void need(const ByteRange& range);
  void finish() { needs_ = {}; }
  void give_up();
  // As many as there is room for; false: no more.
  bool add_extent(const ByteRange& range);
  // Sorts, and makes the invariant hold.
  void settle_extents();

  const LayoutKind kind_;
  const uint64_t file_bytes_;
  bool worth_fetching_ = true;
  size_t lanes_ = 1;
  std::vector<ByteRange> extents_;
  std::vector<std::string> siblings_;

 private:
  ByteRange needs_;
  bool malformed_ = false;
  std::vector<uint8_t> gathered_;  // the front of needs_
};

// Null: just a file. head: from the first byte on, 512 bytes or the whole file at least; tail: up to the last byte, may
// be empty.
struct LayoutSample {
  uint64_t file_bytes = 0;
  std::span<const uint8_t> head;
  std::span<const uint8_t> tail;
};
std::unique_ptr<Layout> recognise_layout(const LayoutSample& sample);
// Whether a file that ends so is worth a look at its head: its readers begin at its end (parquet).
bool is_read_from_end(std::span<const uint8_t> tail);

// One for each format; null: it is not one. Called by recognise_layout.
std::unique_ptr<Layout> try_safetensors(const LayoutSample& sample);
std::unique_ptr<Layout> try_safetensors_index(const LayoutSample& sample);
std::unique_ptr<Layout> try_gguf(const LayoutSample& sample);
std::unique_ptr<Layout> try_tar(const LayoutSample& sample);
std::unique_ptr<Layout> try_parquet(const LayoutSample& sample);
std::unique_ptr<Layout> try_zip(const LayoutSample& sample);

}  // namespace blobcache
