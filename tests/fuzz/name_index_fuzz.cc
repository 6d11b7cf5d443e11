// Fuzzes the reader of an index of names, a file on the cache's disk.
//   Build  meson setup build/fuzz -Dfuzz=true (with CXX=clang++); meson compile -C build/fuzz name_index_fuzz
//   Run    build/fuzz/tests/fuzz/name_index_fuzz -max_len=65536 -rss_limit_mb=512 CORPUS_FOLDER tests/fuzz/seeds/name_index
// The first byte chooses. 'r': the input is the file as it is, which hardly passes a checksum. 's': the input is a header and a
// table by its fields, and what lies behind is blocks and keys; every checksum is then made right, as a program gone wrong
// would write them. 'w': the input's lines are names, written and read back. Checked besides crashes: whatever is told of a
// name is what may be shown of one, no block of a file is beyond it, and what was written comes back.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/assert.h"
#include "base/file_info.h"
#include "base/limits.h"
#include "base/object_id.h"
#include "origin/name_index.h"

using namespace blobcache;

namespace {

constexpr ObjectId identity{{1, 2}};

// As name_index.cc has them.
struct Header {
  char magic[8];
  uint64_t identity[2];
  int64_t built_s;
  uint64_t names;
  uint64_t blocks;
  uint64_t table_offset;
  uint64_t first_keys_bytes;
  uint64_t table_checksum;
  uint64_t checksum;
};
struct Block {
  uint64_t offset;
  uint64_t checksum;
  uint64_t key_offset;
  uint32_t bytes;
  uint32_t key_bytes;
};

// A file in memory with a name, as the reader opens it.
const std::string& folder() {
  static const std::string made = [] {
    char name[] = "/dev/shm/name_index_fuzz.XXXXXX";
    BC_ASSERT(::mkdtemp(name) != nullptr);
    std::atexit([] { ::rmdir(folder().c_str()); });
    return std::string(name);
  }();
  return made;
}

struct Input {
  const uint8_t* data;
  size_t size;

  template <class T>
  T take() {
    T value{};
    const size_t count = std::min(size, sizeof value);
    std::memcpy(&value, data, count);
    data += count;
    size -= count;
    return value;
  }
};

// A file of some blocks whose checksums are right, whatever their places and bytes are.
std::string sealed(Input input) {
  Header header{};
  std::memcpy(header.magic, "BCNAMES1", sizeof header.magic);
  header.identity[0] = identity.words[0];
  header.identity[1] = identity.words[1];
  header.names = input.take<uint8_t>();
  std::vector<Block> blocks(input.take<uint8_t>() % 6);
  for (Block& block : blocks) {
    // Near the places that exist; now and then anywhere.
    const auto far = input.take<uint8_t>() == 0xff;
    block.offset = far ? input.take<uint64_t>() : limits::page_bytes + input.take<uint16_t>() % 512;
    block.bytes = far ? input.take<uint32_t>() : input.take<uint16_t>() % 512;
    block.key_offset = far ? input.take<uint64_t>() : input.take<uint8_t>();
    block.key_bytes = far ? input.take<uint32_t>() : input.take<uint8_t>();
  }
  const size_t keys_bytes = std::min<size_t>(input.take<uint8_t>(), input.size);
  const std::string keys(reinterpret_cast<const char*>(input.data), keys_bytes);
  std::string file(limits::page_bytes, '\0');
  file.append(reinterpret_cast<const char*>(input.data) + keys_bytes, input.size - keys_bytes);
  for (Block& block : blocks) {
    if (block.offset > file.size() || block.bytes > file.size() - block.offset) continue;
    block.checksum = XXH3_64bits(file.data() + block.offset, block.bytes);
  }
  header.blocks = blocks.size();
  header.table_offset = file.size();
  header.first_keys_bytes = keys.size();
  header.table_checksum =
      XXH3_64bits_withSeed(keys.data(), keys.size(), XXH3_64bits(blocks.data(), blocks.size() * sizeof(Block)));
  header.checksum = XXH3_64bits(&header, offsetof(Header, checksum));
  std::memcpy(file.data(), &header, sizeof header);
  if (!blocks.empty()) file.append(reinterpret_cast<const char*>(blocks.data()), blocks.size() * sizeof(Block));
  return file + keys;
}

void check_name(const IndexedName& name) {
  BC_ASSERT(!name.key.empty() && name.key.size() <= limits::path_bytes_max);
  BC_ASSERT(name.version.size() <= sizeof FileVersion::bytes && name.size <= INT64_MAX);
}

// As look-ups and listings read it. How many names there are.
size_t read_through(const NameIndex& index) {
  size_t names = 0;
  for (size_t block = 0; block < index.blocks(); ++block) {
    BC_ASSERT(index.block_of(index.first_key(block)) < index.blocks());
    std::vector<std::byte> bytes(index.block_bytes(block));
    const ssize_t got = ::pread(index.fd(), bytes.data(), bytes.size(), static_cast<off_t>(index.block_offset(block)));
    if (got != static_cast<ssize_t>(bytes.size()) || !index.verify(block, bytes)) continue;
    std::span<const std::byte> left = bytes;
    for (IndexedName name; next_indexed_name(left, &name); ++names) {
      check_name(name);
      BC_ASSERT(index.block_of(name.key) < index.blocks());
    }
  }
  if (index.blocks() > 0) BC_ASSERT(index.block_of("") == 0 && index.block_of("\xff") < index.blocks());
  return names;
}

void write_and_read(std::string_view text) {
  const auto writer = NameIndexWriter::create({.path = "", .identity = identity});
  BC_ASSERT(writer);
  size_t taken = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    const size_t tab = std::min(line.find('\t'), line.size());
    const std::string_view version = line.substr(std::min(tab + 1, line.size()));
    taken += (*writer)->add({.key = line.substr(0, tab), .size = end, .version = version}).has_value();
    at = end + 1;
  }
  const auto index = (*writer)->finish();
  BC_ASSERT(index && (*index)->names() == taken && read_through(**index) == taken);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  if (*data == 'w') {
    write_and_read(text);
    return 0;
  }
  const std::string file = *data == 's' ? sealed({data + 1, size - 1}) : std::string(text);
  const std::string path = folder() + "/index";
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  BC_ASSERT(fd >= 0 && ::write(fd, file.data(), file.size()) == static_cast<ssize_t>(file.size()));
  ::close(fd);
  const auto index = NameIndex::open(path, identity);
  ::unlink(path.c_str());
  if (index) read_through(**index);
  return 0;
}
