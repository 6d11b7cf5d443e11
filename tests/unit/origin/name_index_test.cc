// The file of names: what was written is found, and what is damaged is not believed.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include "origin/name_index.h"

using namespace blobcache;

namespace {

class Folder {
 public:
  Folder() {
    char name[] = "/tmp/name_index_XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path = name;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
};

const ObjectId identity = object_id("source", "", "names");

std::shared_ptr<const NameIndex> write_index(const std::string& path, const std::map<std::string, IndexedName>& names) {
  Result<std::unique_ptr<NameIndexWriter>> writer =
      NameIndexWriter::create({.path = path, .identity = identity, .built_s = 77});
  REQUIRE(writer);
  for (const auto& [key, name] : names) {
    IndexedName told = name;
    told.key = key;
    REQUIRE((*writer)->add(told));
  }
  Result<std::shared_ptr<const NameIndex>> index = (*writer)->finish();
  REQUIRE(index);
  return *index;
}

std::map<std::string, IndexedName> many_names() {
  std::map<std::string, IndexedName> names;
  for (uint64_t number = 0; number < 5000; ++number) {
    const std::string key =
        number % 3 == 0 ? fmt::format("a/{}", number) : fmt::format("b{}/{}-\xff\n", number % 7, number);
    names[key] = {.size = number * number, .mtime_s = -static_cast<int64_t>(number), .version = "\"etag\""};
  }
  names[std::string(4000, 'k')] = {.version = ""};
  return names;
}

std::vector<std::byte> block_bytes(const NameIndex& index, size_t block) {
  std::vector<std::byte> bytes(index.block_bytes(block));
  REQUIRE(::pread(index.fd(), bytes.data(), bytes.size(), static_cast<off_t>(index.block_offset(block))) ==
          static_cast<ssize_t>(bytes.size()));
  return bytes;
}

// All entries; nothing: a block does not match.
std::optional<std::map<std::string, IndexedName>> read_back(const NameIndex& index) {
  static std::string versions;
  std::map<std::string, IndexedName> names;
  for (size_t block = 0; block < index.blocks(); ++block) {
    const std::vector<std::byte> bytes = block_bytes(index, block);
    if (!index.verify(block, bytes)) return std::nullopt;
    std::span<const std::byte> left = bytes;
    bool first = true;
    for (IndexedName name; next_indexed_name(left, &name);) {
      if (std::exchange(first, false)) CHECK(name.key == index.first_key(block));
      CHECK(index.block_of(name.key) == block);
      const std::string key(name.key);
      CHECK((name.version.empty() || name.version == "\"etag\""));
      names[key] = {.size = name.size, .mtime_s = name.mtime_s, .version = name.version.empty() ? "" : "\"etag\""};
    }
    CHECK(left.empty());
  }
  return names;
}

bool same(const std::map<std::string, IndexedName>& a, const std::map<std::string, IndexedName>& b) {
  return std::ranges::equal(a, b, [](const auto& x, const auto& y) {
    return x.first == y.first && x.second.size == y.second.size && x.second.mtime_s == y.second.mtime_s &&
           x.second.version == y.second.version;
  });
}

}  // namespace

TEST_CASE("what is written to an index of names is read from it, in memory, on disk and by the next process") {
  const Folder folder;
  const std::map<std::string, IndexedName> names = many_names();
  CHECK(same(*read_back(*write_index("", names)), names));
  const std::string path = folder.path + "/names/one";
  const std::shared_ptr<const NameIndex> written = write_index(path, names);
  CHECK(same(*read_back(*written), names));
  CHECK(written->blocks() > 5);
  const Result<std::shared_ptr<const NameIndex>> opened = NameIndex::open(path, identity);
  REQUIRE(opened);
  CHECK((*opened)->built_s() == 77);
  CHECK((*opened)->names() == names.size());
  CHECK(same(*read_back(**opened), names));
  // A key that is not there: its place is in the block before, or the next one's beginning.
  CHECK((*opened)->block_of("") == 0);
  CHECK((*opened)->block_of("zzz") == (*opened)->blocks() - 1);
}

TEST_CASE("an index of nothing is one") {
  const Folder folder;
  write_index(folder.path + "/names/none", {});
  const Result<std::shared_ptr<const NameIndex>> opened = NameIndex::open(folder.path + "/names/none", identity);
  REQUIRE(opened);
  CHECK((*opened)->blocks() == 0);
}

TEST_CASE("keys out of order, twice or too long are refused") {
  const auto writer = *NameIndexWriter::create({.path = "", .identity = identity});
  CHECK(writer->add({.key = "b"}));
  CHECK(writer->add({.key = "b"}).error().code == Code::protocol);
  CHECK(writer->add({.key = "a"}).error().code == Code::protocol);
  CHECK(writer->add({.key = ""}).error().code == Code::protocol);
  CHECK(writer->add({.key = std::string(5000, 'x')}).error().code == Code::protocol);
  CHECK(writer->add({.key = "c", .version = std::string(64, 'v')}).error().code == Code::protocol);
  CHECK(writer->add({.key = "c", .size = uint64_t{1} << 63}).error().code == Code::protocol);
  CHECK(writer->add({.key = "c", .version = std::string(63, 'v')}));
}

TEST_CASE("an entry that nobody has written ends its block, whatever the block's checksum says") {
  struct Entry {
    std::string key;
    std::string version;
    uint64_t size;
  };
  const auto is_told = [](const Entry& entry) {
    std::string bytes;
    const auto append = [&](const auto& value) { bytes.append(reinterpret_cast<const char*>(&value), sizeof value); };
    append(static_cast<uint16_t>(entry.key.size()));
    append(static_cast<uint8_t>(entry.version.size()));
    append(entry.size);
    append(int64_t{0});
    bytes += entry.key + entry.version;
    std::span<const std::byte> block = std::as_bytes(std::span(bytes));
    IndexedName name;
    return next_indexed_name(block, &name) && name.key == entry.key && name.version == entry.version;
  };
  CHECK(is_told({"key", std::string(63, 'v'), INT64_MAX}));
  CHECK(!is_told({"key", std::string(64, 'v'), 1}));
  CHECK(!is_told({"", "v", 1}));
  CHECK(!is_told({std::string(limits::path_bytes_max + 1, 'k'), "v", 1}));
  CHECK(!is_told({"key", "v", uint64_t{1} << 63}));
}

TEST_CASE("first keys that take more memory than is planned end the writing") {
  const auto writer = *NameIndexWriter::create({.path = "", .identity = identity});
  Result<void> added;
  uint64_t number = 0;
  for (; added && number < 10'000; ++number)
    added = writer->add({.key = fmt::format("{:06}{}", number, std::string(4080, 'k'))});
  REQUIRE(!added);
  CHECK(added.error().code == Code::full);
  CHECK(number > 7000);
}

TEST_CASE("a damaged byte anywhere is no index, or no block") {
  const Folder folder;
  const std::string path = folder.path + "/names/one";
  const std::map<std::string, IndexedName> names = many_names();
  write_index(path, names);
  const auto bytes = static_cast<uint64_t>(std::filesystem::file_size(path));
  unsigned refused = 0;
  unsigned blocks = 0;
  for (uint64_t at = 0; at < bytes; at += at < 80 ? 1 : 397) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const char was = static_cast<char>(file.get());
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(was ^ 0x10));
    file.flush();
    const Result<std::shared_ptr<const NameIndex>> opened = NameIndex::open(path, identity);
    if (!opened) {
      CHECK(opened.error().code == Code::corrupt);
      ++refused;
    } else if (const auto read = read_back(**opened); !read) {
      ++blocks;
    } else {
      CHECK(same(*read, names));  // the padding
      CHECK(at < limits::page_bytes);
    }
    file.seekp(static_cast<std::streamoff>(at));
    file.put(was);
  }
  CHECK(refused > 80);
  CHECK(blocks > 100);
  for (const uint64_t left : {bytes - 1, bytes / 2, uint64_t{4096}, uint64_t{50}, uint64_t{0}}) {
    std::filesystem::resize_file(path, left);
    CHECK(NameIndex::open(path, identity).error().code == Code::corrupt);
  }
}

TEST_CASE("an index of another source is not taken, and one that is not there is told apart") {
  const Folder folder;
  write_index(folder.path + "/names/one", many_names());
  CHECK(NameIndex::open(folder.path + "/names/one", object_id("other", "", "names")).error().code == Code::corrupt);
  CHECK(NameIndex::open(folder.path + "/names/two", identity).error().code == Code::not_found);
}

TEST_CASE("one writer at a time; one that ends early leaves the old index, and nothing else") {
  const Folder folder;
  const std::string path = folder.path + "/names/one";
  write_index(path, {{"old", {}}});
  {
    const auto first = NameIndexWriter::create({.path = path, .identity = identity});
    REQUIRE(first);
    CHECK(NameIndexWriter::create({.path = path, .identity = identity}).error().code == Code::again);
    REQUIRE((*first)->add({.key = "new"}));
  }
  CHECK(read_back(**NameIndex::open(path, identity))->contains("old"));
  CHECK(!std::filesystem::exists(path + ".new"));
  // What a killed process left behind is written over.
  std::ofstream(path + ".new") << std::string(100'000, 'x');
  const std::shared_ptr<const NameIndex> old = *NameIndex::open(path, identity);
  write_index(path, {{"new", {}}});
  CHECK(read_back(**NameIndex::open(path, identity))->contains("new"));
  CHECK(read_back(*old)->contains("old"));  // who reads from it goes on
}
