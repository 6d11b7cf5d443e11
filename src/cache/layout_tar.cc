// tar (POSIX.1-1988 ustar, GNU and pax): a header of 512 bytes, the member padded to 512, the next header ... Its headers
// are spread over the file, so they are taken as they pass: a scan (which is how shards are read) shows each in its turn.
// A long name or attributes that precede a member belong to it. Neighbours whose names agree up to the first dot are one
// sample, as WebDataset has it ("000017.jpg", "000017.cls").
#include <algorithm>
#include <string_view>

#include "cache/layout.h"
#include "cache/layout_bytes.h"

namespace blobcache {

namespace {

constexpr uint64_t block = 512;

// Octal digits, or base 256 where the first bit is set (GNU). UINT64_MAX: neither.
uint64_t number(std::span<const uint8_t> field) {
  uint64_t value = 0;
  if ((field[0] & 0x80) != 0) {
    for (size_t i = 0; i < field.size(); ++i) {
      if (value >> 54 != 0) return UINT64_MAX;
      value = value << 8 | (i == 0 ? field[i] & 0x7f : field[i]);
    }
    return value;
  }
  size_t at = 0;
  while (at < field.size() && field[at] == ' ') ++at;
  for (; at < field.size() && field[at] >= '0' && field[at] <= '7'; ++at) value = value << 3 | (field[at] - '0');
  return at == field.size() || field[at] == 0 || field[at] == ' ' ? value : UINT64_MAX;
}

bool is_header(std::span<const uint8_t> bytes) {
  if (!has_magic(bytes, 257, "ustar")) return false;
  uint64_t sum = 0;
  for (size_t i = 0; i < block; ++i) sum += i >= 148 && i < 156 ? ' ' : bytes[i];
  return number(bytes.subspan(148, 8)) == sum;
}

std::string_view sample_name(std::span<const uint8_t> header) {
  const char* name = reinterpret_cast<const char*>(header.data());
  const std::string_view whole(name, strnlen(name, 100));
  const size_t base = whole.rfind('/') == std::string_view::npos ? 0 : whole.rfind('/') + 1;
  return whole.substr(0, whole.find('.', base));
}

class Tar : public Layout {
 public:
  explicit Tar(uint64_t file_bytes) : Layout(LayoutKind::tar, file_bytes) {
    worth_fetching_ = false;
    need({0, block});
  }

 private:
  void on_needed(std::span<const uint8_t> bytes) override {
    if (std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; })) {
      finish();
      return;
    }
    const uint64_t size = number(bytes.subspan(124, 12));
    const uint64_t position = needs().offset;
    if (!is_header(bytes) || size > file_bytes_ - position) {
      give_up();
      return;
    }
    const char type = static_cast<char>(bytes[156]);
    const bool has_data = type != '1' && type != '2' && type != '5';  // links and directories have none
    const uint64_t end = position + block + (has_data ? (size + block - 1) / block * block : 0);
    if (type == 'L' || type == 'K' || type == 'x' || type == 'g') {
      if (prefix_bytes_ == 0) prefix_offset_ = position;
      prefix_bytes_ = end - prefix_offset_;
    } else {
      add_member({position - prefix_bytes_, end - position + prefix_bytes_}, sample_name(bytes));
      prefix_bytes_ = 0;
    }
    if (file_bytes_ - std::min(end, file_bytes_) < block) {
      finish();
    } else {
      need({end, block});
    }
  }

  void add_member(ByteRange member, std::string_view name) {
    member.bytes = std::min(member.bytes, file_bytes_ - member.offset);
    if (!extents_.empty() && !name.empty() && name == last_name_ && extents_.back().end() == member.offset) {
      extents_.back().bytes += member.bytes;
    } else if (!add_extent(member)) {
      extents_.erase(extents_.begin(), extents_.begin() + extents_max / 2);  // far behind the reader
      add_extent(member);
    }
    last_name_ = name;
  }

  uint64_t prefix_offset_ = 0;
  uint64_t prefix_bytes_ = 0;
  std::string last_name_;
};

}  // namespace

std::unique_ptr<Layout> try_tar(const LayoutSample& sample) {
  if (sample.head.size() < block || !is_header(sample.head.first(block))) return nullptr;
  return std::make_unique<Tar>(sample.file_bytes);
}

}  // namespace blobcache
