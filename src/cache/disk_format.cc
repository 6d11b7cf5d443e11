// Checks of what was read, and the text of FORMAT. FORMAT is text so that a person who finds the directory can tell what
// it is; its last line is a checksum of the lines before it.
#include "cache/disk_format.h"

#include <cstdlib>

#include <fmt/format.h>

namespace blobcache::disk_format {
namespace {

constexpr uint64_t packed_magic = 0x314b43415042;   // "BPACK1"
constexpr uint64_t sidecar_magic = 0x534d55534244;  // "DBSUMS"
constexpr uint64_t budget_magic = 0x315447444542;   // "BEDGT1"
constexpr std::string_view format_title = "blobcache cache directory\n";

uint64_t text_checksum(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

// Takes "label VALUE\n" off the front of text; an empty view when it is not there.
std::string_view take_line(std::string_view& text, std::string_view label) {
  if (!text.starts_with(label)) return {};
  const size_t end = text.find('\n');
  if (end == std::string_view::npos) return {};
  const std::string_view value = text.substr(label.size(), end - label.size());
  text.remove_prefix(end + 1);
  return value;
}

bool parse_hex(std::string_view text, uint64_t* value_out) {
  if (text.size() != 16) return false;
  uint64_t value = 0;
  for (const char c : text) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && (c < 'a' || c > 'f')) return false;
    value = value << 4 | static_cast<uint64_t>(digit ? c - '0' : c - 'a' + 10);
  }
  *value_out = value;
  return true;
}

bool parse_uuid(std::string_view text, Uuid* uuid_out) {
  return text.size() == 32 && parse_hex(text.substr(0, 16), &uuid_out->words[0]) &&
         parse_hex(text.substr(16), &uuid_out->words[1]) && !uuid_out->is_null();
}

std::string_view prefix_of(IndexFileKind kind) { return kind == IndexFileKind::log ? "log." : "snapshot."; }

}  // namespace

bool check(const IndexFileHeader& header, const Uuid& disk, IndexFileKind kind) {
  return header.checksum == checksum_of(&header, sizeof header, header_seed(disk)) &&
         header.kind == static_cast<uint64_t>(kind) && header.version == version &&
         header.record_bytes == sizeof(IndexRecord) && header.disk[0] == disk.words[0] &&
         header.disk[1] == disk.words[1] && header.generation != 0;
}

void seal(BudgetFile& budget, const Uuid& disk) {
  budget.magic = budget_magic;
  budget.version = version;
  budget.checksum = checksum_of(&budget, sizeof budget, header_seed(disk));
}

bool check(const BudgetFile& budget, const Uuid& disk) {
  return budget.checksum == checksum_of(&budget, sizeof budget, header_seed(disk)) && budget.magic == budget_magic &&
         budget.version == version;
}

void seal(PackedHeader& header, uint64_t place) {
  header.magic = packed_magic;
  header.version = version;
  header.checksum = checksum_of(&header, sizeof header, seed_of(place, 0, packed_magic));
}

bool check(const PackedHeader& header, uint64_t place, const ObjectId& id, uint64_t size) {
  if (header.checksum != checksum_of(&header, sizeof header, seed_of(place, 0, packed_magic))) return false;
  if (header.magic != packed_magic || header.version != version) return false;
  if (header.size == 0 || header.size > packed_bytes_max) return false;
  if (header.block_count != (header.size + limits::block_bytes - 1) / limits::block_bytes) return false;
  if (id.is_null()) return (header.id[0] | header.id[1]) != 0;
  return header.size == size && header.id[0] == id.words[0] && header.id[1] == id.words[1];
}

void seal(SidecarPage& page, const ObjectId& id, uint64_t page_index) {
  page.magic = sidecar_magic;
  page.version = version;
  page.page = page_index;
  page.checksum = checksum_of(&page, sizeof page, seed_of(id.words[0], id.words[1], page_index));
}

bool check(const SidecarPage& page, const ObjectId& id, uint64_t page_index) {
  return page.checksum == checksum_of(&page, sizeof page, seed_of(id.words[0], id.words[1], page_index)) &&
         page.magic == sidecar_magic && page.version == version && page.page == page_index;
}

std::string object_path(const ObjectId& id) {
  const std::string name = to_hex(id);
  return fmt::format("objects/{}/{}", std::string_view(name).substr(0, 2), name);
}
std::string sidecar_path(const ObjectId& id) { return object_path(id) + ".sums"; }
std::string segment_path(uint32_t segment) { return fmt::format("segments/{:08x}", segment); }
std::string log_name(uint64_t generation) { return fmt::format("log.{:016x}", generation); }
std::string snapshot_name(uint64_t generation) { return fmt::format("snapshot.{:016x}", generation); }

uint64_t generation_of(const char* name, IndexFileKind kind) {
  std::string_view text = name;
  const std::string_view prefix = prefix_of(kind);
  if (!text.starts_with(prefix)) return 0;
  text.remove_prefix(prefix.size());
  uint64_t generation = 0;
  return parse_hex(text, &generation) ? generation : 0;
}

std::string to_text(const Uuid& uuid) { return fmt::format("{:016x}{:016x}", uuid.words[0], uuid.words[1]); }

std::string print(const FormatFile& format) {
  std::string text = fmt::format("{}version {}\nnode {}\ndisk {}\n", format_title, format.version, to_text(format.node),
                                 to_text(format.disk));
  return text + fmt::format("checksum {:016x}\n", text_checksum(text));
}

Result<FormatFile> parse_format(std::string_view text) {
  const std::string_view whole = text;
  FormatFile format;
  if (text.size() > format_bytes_max || !text.starts_with(format_title)) return fail(Code::corrupt);
  text.remove_prefix(format_title.size());
  const std::string_view version_text = take_line(text, "version ");
  if (version_text.empty() || version_text.size() > 9) return fail(Code::corrupt);
  for (const char c : version_text) {
    if (c < '0' || c > '9') return fail(Code::corrupt);
    format.version = format.version * 10 + static_cast<uint32_t>(c - '0');
  }
  // The last line is the same in every version, so that a damaged one is not taken for another one.
  const size_t last = whole.rfind("checksum ");
  if (last == std::string_view::npos || whole.back() != '\n' || whole[last - 1] != '\n') return fail(Code::corrupt);
  uint64_t checksum = 0;
  const std::string_view checksum_text = whole.substr(last + 9, whole.size() - last - 10);
  if (!parse_hex(checksum_text, &checksum) || checksum != text_checksum(whole.substr(0, last)))
    return fail(Code::corrupt);
  if (format.version != version) return format;
  if (!parse_uuid(take_line(text, "node "), &format.node)) return fail(Code::corrupt);
  if (!parse_uuid(take_line(text, "disk "), &format.disk)) return fail(Code::corrupt);
  return format;
}

uint64_t bytes_of_blocks(uint64_t object_bytes, uint64_t position, uint64_t blocks) {
  uint64_t bytes = uint64_t(std::popcount(blocks)) * limits::block_bytes;
  const uint64_t last_block = (object_bytes - 1) / limits::block_bytes;
  const uint64_t first_block = position * limits::blocks_per_chunk_frame;
  if (last_block - first_block < limits::blocks_per_chunk_frame && last_block >= first_block &&
      (blocks >> (last_block - first_block) & 1) != 0) {
    const uint64_t last_bytes = object_bytes - last_block * limits::block_bytes;
    bytes -= limits::block_bytes - round_up_to_page(last_bytes);
  }
  return bytes;
}

}  // namespace blobcache::disk_format
