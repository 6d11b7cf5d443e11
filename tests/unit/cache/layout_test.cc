// Files that describe themselves: what is learned from each format, in pieces as they come, and from damaged ones.
#include "cache/layout.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace blobcache {

namespace {

using Bytes = std::vector<uint8_t>;

void put(Bytes& to, const std::string& text) { to.insert(to.end(), text.begin(), text.end()); }
template <class Number>
void put_number(Bytes& to, Number value) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
  to.insert(to.end(), bytes, bytes + sizeof value);
}

std::span<const uint8_t> head_of(const Bytes& file) {
  return std::span(file).first(std::min<size_t>(file.size(), 512));
}

// As the program does it: recognise by the first bytes, then read what it asks for.
std::unique_ptr<Layout> learn(const Bytes& file, size_t* asked_bytes = nullptr) {
  std::unique_ptr<Layout> layout = recognise_layout({.file_bytes = file.size(), .head = head_of(file), .tail = {}});
  for (int i = 0; layout && !layout->needs().empty(); ++i) {
    REQUIRE(i < 100'000);
    const ByteRange range = layout->needs();
    REQUIRE(range.end() <= file.size());
    if (asked_bytes != nullptr) *asked_bytes += range.bytes;
    layout->on_bytes(range.offset, std::span(file).subspan(range.offset, range.bytes));
  }
  return layout;
}

// As it passes by, in pieces of a reader.
std::unique_ptr<Layout> watch(const Bytes& file, size_t piece) {
  std::unique_ptr<Layout> layout = recognise_layout({.file_bytes = file.size(), .head = head_of(file), .tail = {}});
  for (size_t at = 0; layout && at < file.size(); at += piece) {
    layout->on_bytes(at, std::span(file).subspan(at, std::min(piece, file.size() - at)));
  }
  return layout;
}

std::vector<ByteRange> extents_of(const Layout& layout) { return {layout.extents().begin(), layout.extents().end()}; }

Bytes safetensors(const std::string& json, size_t data_bytes) {
  Bytes file;
  put_number<uint64_t>(file, json.size());
  put(file, json);
  file.resize(file.size() + data_bytes, 7);
  return file;
}

const std::string three_tensors = R"({"__metadata__":{"format":"pt","data_offsets":"[1,2]"},)"
                                  R"("b":{"dtype":"F32","shape":[2,500],"data_offsets":[1000,5000]},)"
                                  R"("a":{"dtype":"U8","shape":[1000],"data_offsets":[0,1000]},)"
                                  R"("empty":{"dtype":"U8","shape":[0],"data_offsets":[5000,5000]},)"
                                  R"("c":{"dtype":"U8","shape":[3],"data_offsets":[5000,5003]}}   )";

void put_string(Bytes& to, const std::string& text) {
  put_number<uint64_t>(to, text.size());
  put(to, text);
}

Bytes gguf(uint32_t tokens) {
  Bytes file;
  put(file, "GGUF");
  put_number<uint32_t>(file, 3);
  put_number<uint64_t>(file, 3);  // tensors
  put_number<uint64_t>(file, 5);  // keys
  put_string(file, "general.architecture");
  put_number<uint32_t>(file, 8);
  put_string(file, "llama");
  put_string(file, "general.alignment");
  put_number<uint32_t>(file, 4);
  put_number<uint32_t>(file, 64);
  put_string(file, "tokenizer.ggml.tokens");
  put_number<uint32_t>(file, 9);
  put_number<uint32_t>(file, 8);
  put_number<uint64_t>(file, tokens);
  for (uint32_t i = 0; i < tokens; ++i) put_string(file, "token" + std::to_string(i));
  put_string(file, "tokenizer.ggml.scores");
  put_number<uint32_t>(file, 9);
  put_number<uint32_t>(file, 6);
  put_number<uint64_t>(file, tokens);
  file.resize(file.size() + tokens * 4);
  put_string(file, "nested");
  put_number<uint32_t>(file, 9);
  put_number<uint32_t>(file, 9);
  put_number<uint64_t>(file, 2);
  for (int i = 0; i < 2; ++i) {
    put_number<uint32_t>(file, 5);
    put_number<uint64_t>(file, 3);
    file.resize(file.size() + 12);
  }
  const uint64_t offsets[3] = {4096, 0, 64};  // not in the file's order
  for (const uint64_t offset : offsets) {
    put_string(file, "blk.weight");
    put_number<uint32_t>(file, 2);
    put_number<uint64_t>(file, 10);
    put_number<uint64_t>(file, 20);
    put_number<uint32_t>(file, 0);
    put_number<uint64_t>(file, offset);
  }
  file.resize((file.size() + 63) / 64 * 64);
  return file;
}

void put_member(Bytes& file, const std::string& name, size_t size, char type = '0') {
  char header[512] = {};
  std::memcpy(header, name.data(), name.size());
  std::snprintf(header + 124, 12, "%011zo", size);
  header[156] = type;
  std::memcpy(header + 257, "ustar", 6);
  std::memset(header + 148, ' ', 8);
  unsigned sum = 0;
  for (const char byte : header) sum += static_cast<uint8_t>(byte);
  std::snprintf(header + 148, 8, "%06o", sum);
  file.insert(file.end(), header, header + 512);
  file.resize(file.size() + (size + 511) / 512 * 512, 'd');
}

Bytes zip(bool is64, const std::string& comment) {
  Bytes file;
  std::vector<uint32_t> offsets;
  for (const size_t size : {100, 5000, 64}) {
    offsets.push_back(static_cast<uint32_t>(file.size()));
    put(file, "PK\x03\x04");
    file.resize(file.size() + 26 + 8 + size, 'e');
  }
  const uint64_t directory = file.size();
  std::swap(offsets[0], offsets[2]);  // the directory has an order of its own
  for (const uint32_t offset : offsets) {
    const size_t at = file.size();
    put(file, "PK\x01\x02");
    file.resize(at + 46);
    file[at + 28] = 4;  // name
    if (is64) {
      file[at + 30] = 4 + 4 + 12;  // another extra field before
      std::memset(&file[at + 20], 0xff, 4);
      std::memset(&file[at + 42], 0xff, 4);
    } else {
      std::memcpy(&file[at + 42], &offset, 4);
    }
    put(file, "name");
    if (!is64) continue;
    put(file, std::string("\x99\x00\x00\x00\x01\x00\x10\x00", 8));
    put_number<uint64_t>(file, 77);  // compressed size
    put_number<uint64_t>(file, offset);
    file[at + 30] = 4 + 4 + 16;
  }
  const uint64_t directory_bytes = file.size() - directory;
  if (is64) {
    const uint64_t end64 = file.size();
    put(file, "PK\x06\x06");
    file.resize(file.size() + 36);
    put_number<uint64_t>(file, directory_bytes);
    put_number<uint64_t>(file, directory);
    put(file, "PK\x06\x07");
    put_number<uint32_t>(file, 0);
    put_number<uint64_t>(file, end64);
    put_number<uint32_t>(file, 1);
  }
  put(file, "PK\x05\x06");
  file.resize(file.size() + 8);
  put_number<uint32_t>(file, is64 ? UINT32_MAX : static_cast<uint32_t>(directory_bytes));
  put_number<uint32_t>(file, is64 ? UINT32_MAX : static_cast<uint32_t>(directory));
  put_number<uint16_t>(file, static_cast<uint16_t>(comment.size()));
  put(file, comment);
  return file;
}

void put_varint(Bytes& to, uint64_t value) {
  for (; value >= 0x80; value >>= 7) to.push_back(static_cast<uint8_t>(value | 0x80));
  to.push_back(static_cast<uint8_t>(value));
}
void put_integer(Bytes& to, uint8_t head, int64_t value) {
  to.push_back(head);
  put_varint(to, static_cast<uint64_t>(value << 1 ^ value >> 63));
}

// groups x columns chunks of 1000 bytes, the first 4 bytes behind the magic.
Bytes parquet(unsigned groups, unsigned columns) {
  Bytes file;
  put(file, "PAR1");
  file.resize(4 + groups * columns * 1000);
  Bytes footer;
  put_integer(footer, 0x15, 1);                                          // 1: version, i32
  footer.insert(footer.end(), {0x19, 0x1c, 0x48, 3, 'a', 'b', 'c', 0});  // 2: schema, one element with a name
  put_integer(footer, 0x16, 12345);                                      // 3: num_rows
  footer.push_back(0x19);                                                // 4: row_groups, a list of structs
  footer.push_back(static_cast<uint8_t>(0xfc));
  put_varint(footer, groups);
  int64_t at = 4;
  for (unsigned group = 0; group < groups; ++group) {
    footer.insert(footer.end(), {0x19, static_cast<uint8_t>(columns << 4 | 0x0c)});
    for (unsigned column = 0; column < columns; ++column, at += 1000) {
      put_integer(footer, 0x26, at);                                // ColumnChunk.2 file_offset
      footer.push_back(0x1c);                                       // .3 meta_data
      put_integer(footer, 0x15, 1);                                 // type
      footer.insert(footer.end(), {0x19, 0x25, 0, 6});              // encodings: two i32
      footer.insert(footer.end(), {0x19, 0x18, 3, 'c', 'o', 'l'});  // path_in_schema: one string
      put_integer(footer, 0x15, 0);                                 // codec
      put_integer(footer, 0x16, 50);                                // num_values
      put_integer(footer, 0x16, 2000);                              // total_uncompressed_size
      put_integer(footer, 0x16, 1000);                              // total_compressed_size
      const bool dictionary = column % 2 == 0;
      put_integer(footer, 0x26, at + (dictionary ? 100 : 0));  // data_page_offset
      if (dictionary) put_integer(footer, 0x26, at);           // dictionary_page_offset
      footer.push_back(0);
      footer.push_back(0);
    }
    put_integer(footer, 0x16, 3000);  // total_byte_size
    footer.push_back(0);
  }
  footer.push_back(0);
  file.insert(file.end(), footer.begin(), footer.end());
  put_number<uint32_t>(file, static_cast<uint32_t>(footer.size()));
  put(file, "PAR1");
  return file;
}

struct Sample {
  LayoutKind kind;
  Bytes file;
};

std::vector<Sample> samples() {
  Bytes tar;
  put_member(tar, "a/0.jpg", 3000);
  put_member(tar, "a/0.cls", 1);
  put_member(tar, "a/1.jpg", 10000);
  tar.resize(tar.size() + 1024);
  const std::string index =
      R"({"metadata":{"total_size":9},"weight_map":{"x":"m-2.safetensors","y":"m-1.safetensors"}})";
  return {{LayoutKind::safetensors, safetensors(three_tensors, 5003)},
          {LayoutKind::safetensors_index, Bytes(index.begin(), index.end())},
          {LayoutKind::gguf, gguf(300)},
          {LayoutKind::tar, tar},
          {LayoutKind::parquet, parquet(3, 4)},
          {LayoutKind::zip, zip(false, "")},
          {LayoutKind::zip, zip(true, "")}};
}

}  // namespace

TEST_CASE("safetensors: every tensor, in file order, from one header") {
  const Bytes file = safetensors(three_tensors, 5003);
  size_t asked_bytes = 0;
  const std::unique_ptr<Layout> layout = learn(file, &asked_bytes);
  REQUIRE(layout);
  CHECK(layout->kind() == LayoutKind::safetensors);
  CHECK(!layout->malformed());
  const uint64_t data = 8 + three_tensors.size();
  CHECK(extents_of(*layout) == std::vector<ByteRange>{{data, 1000}, {data + 1000, 4000}, {data + 5000, 3}});
  CHECK(asked_bytes <= data);
}

TEST_CASE("safetensors: offsets beyond the file, or none, make it just a file") {
  for (const char* json :
       {R"({"a":{"data_offsets":[0,5001]}})", R"({"a":{"data_offsets":[7,3]}})", R"({"a":{"data_offsets":[1]}})",
        R"({"a":{"data_offsets":[-1,3]}})", R"({"a":{"data_offsets":[1,2,3]}})", R"({"a":{"data_offsets":[0,1]})",
        R"({"a":{"data_offsets":[0,18446744073709551616]}})", "{]"}) {
    CAPTURE(json);
    const std::unique_ptr<Layout> layout = learn(safetensors(json, 5000));
    REQUIRE(layout);
    CHECK(layout->malformed());
    CHECK(layout->extents().empty());
  }
}

TEST_CASE("safetensors: deep nesting and overlapping tensors do no harm") {
  std::string deep = R"({"a":)";
  deep.append(100'000, '[');
  CHECK(learn(safetensors(deep, 10))->malformed());
  const std::unique_ptr<Layout> layout =
      learn(safetensors(R"({"a":{"data_offsets":[0,100]},"b":{"data_offsets":[50,200]}})", 200));
  REQUIRE(layout->extents().size() == 2);
  CHECK(layout->extents()[1].offset == layout->extents()[0].end());
}

TEST_CASE("safetensors: a header of more than 8 MiB is not taken") {
  Bytes file = safetensors("{}", 100);
  const uint64_t length = Layout::header_bytes_max + 1;
  std::memcpy(file.data(), &length, 8);
  CHECK(!recognise_layout({.file_bytes = 1u << 30, .head = file, .tail = {}}));
}

TEST_CASE("the index of shards names the siblings once, in order, and leads nowhere else") {
  const std::string good = R"({"weight_map":{"a":"m-00002.safetensors","b":"m-00001.safetensors",
                              "c":"m-00002.safetensors"},"metadata":{"total_size":5}})";
  const std::unique_ptr<Layout> layout = learn(Bytes(good.begin(), good.end()));
  REQUIRE(layout);
  CHECK(layout->kind() == LayoutKind::safetensors_index);
  CHECK(std::vector<std::string>(layout->siblings().begin(), layout->siblings().end()) ==
        std::vector<std::string>{"m-00001.safetensors", "m-00002.safetensors"});
  for (const char* name : {"../m", "/etc/passwd", "..", ".", "", "a/b", "a\\u0000b"}) {
    CAPTURE(name);
    const std::string bad = R"({"weight_map":{"a":")" + std::string(name) + "\"}}";
    const std::unique_ptr<Layout> refused = learn(Bytes(bad.begin(), bad.end()));
    REQUIRE(refused);
    CHECK(refused->malformed());
    CHECK(refused->siblings().empty());
  }
}

TEST_CASE("GGUF: tensors behind keys of any length, of which only what is needed is asked for") {
  for (const uint32_t tokens : {0u, 300u, 50'000u}) {
    CAPTURE(tokens);
    Bytes file = gguf(tokens);
    const uint64_t data = file.size();
    file.resize(data + 10'000);
    size_t asked_bytes = 0;
    const std::unique_ptr<Layout> layout = learn(file, &asked_bytes);
    REQUIRE(layout);
    CHECK(!layout->malformed());
    CHECK(extents_of(*layout) == std::vector<ByteRange>{{data, 64}, {data + 64, 4032}, {data + 4096, 5904}});
    // Steps of 128 KiB may reach beyond the keys, and begin anew where an item was cut.
    CHECK(asked_bytes <= data + (256u << 10));
  }
}

TEST_CASE("GGUF: absurd counts and lengths are refused at once") {
  Bytes file = gguf(10);
  file.resize(file.size() + 10'000);
  for (const size_t at : {8, 16, 24, 24 + 8 + 20 + 4}) {
    CAPTURE(at);
    Bytes bad = file;
    std::memset(&bad[at], 0x7f, 8);
    const std::unique_ptr<Layout> layout = learn(bad);
    REQUIRE(layout);
    CHECK(layout->malformed());
  }
}

TEST_CASE("GGUF: an alignment of nothing is refused") {
  Bytes file = gguf(10);
  const std::string key = "general.alignment";
  const auto at = std::search(file.begin(), file.end(), key.begin(), key.end());
  REQUIRE(at != file.end());
  std::fill_n(at + key.size() + 4, 4, 0);
  CHECK(learn(file)->malformed());
}

TEST_CASE("tar: samples as they pass, with their long names") {
  Bytes file;
  put_member(file, "shard/000001.jpg", 70'000);
  put_member(file, "shard/000001.cls", 2);
  put_member(file, "././@LongLink", 200, 'L');
  put_member(file, "shard/a-name-that-was-cut", 1000);
  put_member(file, "shard/000002.jpg", 5);
  put_member(file, "shard", 0, '5');
  file.resize(file.size() + 1024);
  for (const size_t piece : {100u, 512u, 4096u, 1'000'000u}) {
    CAPTURE(piece);
    const std::unique_ptr<Layout> layout = watch(file, piece);
    REQUIRE(layout);
    CHECK(!layout->worth_fetching());
    CHECK(!layout->malformed());
    CHECK(layout->needs().empty());
    CHECK(extents_of(*layout) ==
          std::vector<ByteRange>{
              {0, 512 + 70'144 + 512 + 512}, {71'680, 1024 + 512 + 1024}, {74'240, 1024}, {75'264, 512}});
  }
  SUBCASE("a header that does not add up ends it, and what was learned stays") {
    file[71'680 + 3] ^= 1;
    const std::unique_ptr<Layout> layout = watch(file, 4096);
    CHECK(layout->malformed());
    CHECK(layout->extents().size() == 1);
  }
}

TEST_CASE("parquet: column chunks, and a reader of one column goes on in the next row group") {
  const Bytes file = parquet(5, 4);
  size_t asked_bytes = 0;
  const std::unique_ptr<Layout> layout = learn(file, &asked_bytes);
  REQUIRE(layout);
  CHECK(!layout->malformed());
  REQUIRE(layout->extents().size() == 20);
  for (uint64_t i = 0; i < 20; ++i) CHECK(layout->extents()[i] == ByteRange{4 + i * 1000, 1000});
  CHECK(layout->lanes() == 4);
  CHECK(asked_bytes == file.size() - 4 - 20'000);
  ByteRange ahead[8];
  REQUIRE(layout->ahead_of({4 + 2000, 300}, ahead) == 5);
  CHECK(ahead[0] == ByteRange{4 + 2300, 700});
  CHECK(ahead[1] == ByteRange{4 + 6000, 1000});
  CHECK(ahead[4] == ByteRange{4 + 18'000, 1000});
}

TEST_CASE("zip: entries from the central directory, also zip64, also behind a comment") {
  for (const bool is64 : {false, true}) {
    for (const char* comment : {"", "a comment with PK\x05\x06 in it and more than 22 bytes behind it"}) {
      CAPTURE(is64);
      CAPTURE(comment);
      const std::unique_ptr<Layout> layout = learn(zip(is64, comment));
      REQUIRE(layout);
      CHECK(!layout->malformed());
      CHECK(extents_of(*layout) == std::vector<ByteRange>{{0, 138}, {138, 5038}, {5176, 102}});
    }
  }
}

TEST_CASE("what is ahead of a read: the rest of its piece, then all that follows, joined") {
  const std::unique_ptr<Layout> layout = learn(safetensors(three_tensors, 6000));
  const uint64_t data = 8 + three_tensors.size();
  ByteRange ahead[4];
  REQUIRE(layout->ahead_of({data + 1500, 100}, ahead) == 1);
  CHECK(ahead[0] == ByteRange{data + 1600, 3403});
  REQUIRE(layout->ahead_of({0, 8}, ahead) == 1);
  CHECK(ahead[0] == ByteRange{data, 5003});
  CHECK(layout->ahead_of({data + 5002, 1}, ahead) == 0);
  CHECK(layout->ahead_of({data, 1}, {}) == 0);
}

TEST_CASE("other files are just files") {
  for (const std::string& text : {std::string(), std::string("{"), std::string(4096, '\0'), std::string("{\"a\": 1}"),
                                  std::string("GGUF"), std::string("PK\x03\x04"), std::string("PAR1")}) {
    const Bytes file(text.begin(), text.end());
    CHECK(!recognise_layout({.file_bytes = file.size(), .head = file, .tail = {}}));
  }
}

TEST_CASE("a tail at hand spares the question") {
  const Bytes file = zip(false, "");
  const std::unique_ptr<Layout> layout =
      recognise_layout({.file_bytes = file.size(), .head = head_of(file), .tail = std::span(file).subspan(100)});
  REQUIRE(layout);
  CHECK(layout->needs().offset == 0);  // the file is shorter than the search for the end of the directory
  layout->on_bytes(0, file);
  CHECK(layout->extents().size() == 3);
}

TEST_CASE("every format survives truncation at any byte, and any one byte changed") {
  for (const Sample& sample : samples()) {
    CAPTURE(static_cast<int>(sample.kind));
    const std::unique_ptr<Layout> whole = learn(sample.file);
    REQUIRE(whole);
    CHECK(whole->kind() == sample.kind);
    CHECK(!whole->malformed());
    const size_t step = std::max<size_t>(1, sample.file.size() / 800);
    for (size_t at = 0; at < sample.file.size(); at += step) {
      Bytes cut(sample.file.begin(), sample.file.begin() + at);
      Bytes changed = sample.file;
      changed[at] ^= 0xff;
      for (const Bytes& file : {cut, changed}) {
        const std::unique_ptr<Layout> layout = learn(file);
        if (!layout) continue;
        uint64_t end = 0;
        for (const ByteRange& extent : layout->extents()) {
          REQUIRE(extent.offset >= end);
          REQUIRE(!extent.empty());
          end = extent.end();
        }
        REQUIRE(end <= file.size());
      }
    }
  }
}

}  // namespace blobcache
