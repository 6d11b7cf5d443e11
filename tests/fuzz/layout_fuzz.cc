// Fuzzes what files say of themselves: all layout modules.
//   Build  meson setup build/fuzz -Dfuzz=true (with CXX=clang++); meson compile -C build/fuzz layout_fuzz
//   Run    build/fuzz/tests/fuzz/layout_fuzz -max_len=65536 -rss_limit_mb=512 CORPUS_FOLDER
// The input is the file, but its first byte, which says how it is read: what is asked for (even) or in pieces from the
// front (odd). Checked besides crashes: what is asked for lies in the file, the pieces are in order and in the file, the
// end comes within as many steps as there are bytes.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/assert.h"
#include "cache/layout.h"

using namespace blobcache;

namespace {

void check(const Layout& layout, uint64_t file_bytes) {
  uint64_t end = 0;
  BC_ASSERT(layout.extents().size() <= Layout::extents_max && layout.siblings().size() <= Layout::siblings_max);
  for (const ByteRange& extent : layout.extents()) {
    BC_ASSERT(extent.offset >= end && !extent.empty());
    end = extent.end();
  }
  BC_ASSERT(end <= file_bytes && layout.lanes() >= 1);
  for (uint64_t at = 0; at < file_bytes; at += file_bytes / 7 + 1) {
    ByteRange ahead[16];
    const size_t count = layout.ahead_of({at, 1}, ahead);
    for (size_t i = 0; i < count; ++i) {
      BC_ASSERT(!ahead[i].empty() && ahead[i].offset > at && ahead[i].end() <= file_bytes);
      BC_ASSERT(i == 0 || ahead[i].offset >= ahead[i - 1].end());
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const bool in_pieces = (*data & 1) != 0;
  const size_t piece = size_t{1} + (*data >> 1) * 64;
  const std::vector<uint8_t> file(data + 1, data + size);
  const std::span<const uint8_t> bytes(file);
  const auto layout = recognise_layout(
      {.file_bytes = file.size(), .head = bytes.first(std::min<size_t>(file.size(), 512)), .tail = {}});
  if (!layout) return 0;
  if (in_pieces) {
    for (size_t at = 0; at < file.size(); at += piece) {
      layout->on_bytes(at, bytes.subspan(at, std::min(piece, file.size() - at)));
      check(*layout, file.size());
    }
  } else {
    for (size_t steps = 0; !layout->needs().empty(); ++steps) {
      BC_ASSERT(steps <= file.size() && layout->needs().end() <= file.size());
      layout->on_bytes(layout->needs().offset, bytes.subspan(layout->needs().offset, layout->needs().bytes));
    }
  }
  check(*layout, file.size());
  return 0;
}
