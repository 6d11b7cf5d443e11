// zip (PKWARE APPNOTE 6.3; what torch.save writes): entries, each behind a local header; at the end the central directory,
// then its end record. Found from the end of the file:
//   the last 64 KiB -> end record ( -> zip64 end record, when a number of it is all ones) -> central directory
// An entry reaches to where the next one begins.
#include <algorithm>

#include "cache/layout.h"
#include "cache/layout_bytes.h"

namespace blobcache {

namespace {

class Zip : public Layout {
 public:
  explicit Zip(uint64_t file_bytes) : Layout(LayoutKind::zip, file_bytes) {
    const uint64_t bytes = std::min(file_bytes, end_search_bytes);
    need({file_bytes - bytes, bytes});
  }

 private:
  static constexpr uint64_t end_bytes = 22;
  static constexpr uint64_t locator_bytes = 20;
  static constexpr uint64_t end64_bytes = 56;
  static constexpr uint64_t entry_bytes = 46;
  static constexpr uint64_t end_search_bytes = end_bytes + 65535 + locator_bytes;
  enum class Part : uint8_t { end, end64, directory };

  void on_needed(std::span<const uint8_t> bytes) override {
    if (part_ == Part::end) {
      on_end(bytes);
    } else if (part_ == Part::end64) {
      part_ = Part::directory;
      if (!has_magic(bytes, 0, "PK\x06\x06")) return give_up();
      need({load_little<uint64_t>(bytes, 48), load_little<uint64_t>(bytes, 40)});
    } else {
      on_directory(bytes);
    }
  }

  void on_end(std::span<const uint8_t> bytes) {
    if (bytes.size() < end_bytes) return give_up();
    size_t at = bytes.size() - end_bytes;
    // Its comment reaches to the end of the file, or the four letters are part of one.
    while (!has_magic(bytes, at, "PK\x05\x06") ||
           load_little<uint16_t>(bytes, at + 20) != bytes.size() - end_bytes - at) {
      if (at-- == 0) return give_up();
    }
    const uint64_t size = load_little<uint32_t>(bytes, at + 12);
    const uint64_t offset = load_little<uint32_t>(bytes, at + 16);
    const bool is64 = at >= locator_bytes && has_magic(bytes, at - locator_bytes, "PK\x06\x07");
    if (is64 && (size == UINT32_MAX || offset == UINT32_MAX || load_little<uint16_t>(bytes, at + 10) == UINT16_MAX)) {
      part_ = Part::end64;
      need({load_little<uint64_t>(bytes, at - locator_bytes + 8), end64_bytes});
    } else {
      part_ = Part::directory;
      need({offset, size});
    }
  }

  void on_directory(std::span<const uint8_t> bytes) {
    size_t at = 0;
    while (bytes.size() - at >= entry_bytes && has_magic(bytes, at, "PK\x01\x02")) {
      const size_t name = load_little<uint16_t>(bytes, at + 28);
      const size_t extra = load_little<uint16_t>(bytes, at + 30);
      const size_t comment = load_little<uint16_t>(bytes, at + 32);
      if (bytes.size() - at - entry_bytes < name + extra + comment) break;
      const uint64_t offset =
          entry_offset(bytes.subspan(at, entry_bytes), bytes.subspan(at + entry_bytes + name, extra));
      if (offset < needs().offset && !add_extent({offset, 0})) break;
      at += entry_bytes + name + extra + comment;
    }
    if (extents_.empty()) return give_up();
    std::sort(extents_.begin(), extents_.end(),
              [](const ByteRange& a, const ByteRange& b) { return a.offset < b.offset; });
    for (size_t i = 0; i < extents_.size(); ++i) {
      const uint64_t end = i + 1 < extents_.size() ? extents_[i + 1].offset : needs().offset;
      extents_[i].bytes = end - extents_[i].offset;
    }
    settle_extents();
    finish();
  }

  // In the header, or behind what else is all ones there, in the extra field 1. UINT64_MAX: told nowhere.
  static uint64_t entry_offset(std::span<const uint8_t> header, std::span<const uint8_t> extra) {
    const uint32_t offset = load_little<uint32_t>(header, 42);
    if (offset != UINT32_MAX) return offset;
    size_t skipped = 0;
    for (const size_t field : {24, 20}) skipped += load_little<uint32_t>(header, field) == UINT32_MAX ? 8 : 0;
    while (extra.size() >= 4) {
      const size_t length = load_little<uint16_t>(extra, 2);
      if (extra.size() - 4 < length) break;
      if (load_little<uint16_t>(extra, 0) == 1) {
        return length >= skipped + 8 ? load_little<uint64_t>(extra, 4 + skipped) : UINT64_MAX;
      }
      extra = extra.subspan(4 + length);
    }
    return UINT64_MAX;
  }

  Part part_ = Part::end;
};

}  // namespace

std::unique_ptr<Layout> try_zip(const LayoutSample& sample) {
  if (sample.file_bytes < 22 || !has_magic(sample.head, 0, "PK\x03\x04")) return nullptr;
  return std::make_unique<Zip>(sample.file_bytes);
}

}  // namespace blobcache
