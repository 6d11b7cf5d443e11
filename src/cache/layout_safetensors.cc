// *.safetensors: eight bytes of length, so many bytes of JSON, then the data (https://github.com/huggingface/safetensors):
//   {"__metadata__": {...}, "model.embed.weight": {"dtype": "BF16", "shape": [..], "data_offsets": [0, 1048576]}, ...}
// with offsets from the end of the JSON. And the index beside the shards of a large model:
//   {"metadata": {"total_size": N}, "weight_map": {"model.embed.weight": "model-00001-of-00005.safetensors", ...}}
//
// Both are read by nlohmann's SAX parser: no tree (ten times the text), no recursion (its stack is a bit a level), no
// exceptions (a handler that returns false ends it). The format allows a header of 100 MB; real ones are below 1 MiB, and
// we take 8.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "cache/layout.h"
#include "cache/layout_bytes.h"

namespace blobcache {

namespace {

using Json = nlohmann::json;

// Follows where in the text the parser is. Returns false to end it.
struct JsonPath {
  static constexpr unsigned depth_max = 16;
  static constexpr unsigned keys_max = 2;

  std::string keys[keys_max];  // of the two outermost objects
  unsigned depth = 0;
  bool well_formed = true;

  bool enter() { return ++depth <= depth_max; }
  bool leave() {
    --depth;
    return true;
  }

  // What the parser calls, and what most of both formats ignores.
  bool null() { return true; }
  bool boolean(bool) { return true; }
  bool number_float(double, const std::string&) { return true; }
  bool binary(Json::binary_t&) { return true; }
  bool start_object(size_t) { return enter(); }
  bool end_object() { return leave(); }
  bool end_array() { return leave(); }
  bool key(std::string& name) {
    if (depth >= 1 && depth <= keys_max) keys[depth - 1] = name;
    return true;
  }
  template <class Error>
  bool parse_error(size_t, const std::string&, const Error&) {
    well_formed = false;
    return false;
  }
};

template <class Handler>
bool parse(std::span<const uint8_t> text, Handler* handler) {
  return Json::sax_parse(text.begin(), text.end(), handler) && handler->well_formed;
}

class Safetensors : public Layout {
 public:
  explicit Safetensors(uint64_t file_bytes) : Layout(LayoutKind::safetensors, file_bytes) { need({0, length_bytes}); }

 private:
  static constexpr uint64_t length_bytes = 8;

  struct Header : JsonPath {
    std::vector<ByteRange> tensors;
    uint64_t offsets[2] = {0, 0};
    unsigned offset_count = 0;

    bool in_offsets() const { return depth == 3 && keys[1] == "data_offsets"; }
    bool number_unsigned(uint64_t value) {
      if (!in_offsets()) return true;
      if (offset_count < 2) offsets[offset_count] = value;
      return ++offset_count <= 2;
    }
    bool number_integer(int64_t) { return !in_offsets(); }
    bool string(std::string&) { return true; }
    bool start_array(size_t) {
      offset_count = 0;
      return enter();
    }
    bool end_array() {
      if (in_offsets()) {
        if (offset_count != 2 || offsets[0] > offsets[1] || tensors.size() >= extents_max) return false;
        tensors.push_back({offsets[0], offsets[1] - offsets[0]});
      }
      return leave();
    }
  };

  void on_needed(std::span<const uint8_t> bytes) override {
    if (needs().offset == 0) {
      const uint64_t length = load_little<uint64_t>(bytes, 0);
      need({length_bytes, length});
      return;
    }
    const uint64_t data = needs().end();
    Header header;
    if (!parse(bytes, &header)) {
      give_up();
      return;
    }
    for (const ByteRange& tensor : header.tensors) {
      const uint64_t data_bytes = file_bytes_ - data;
      if (tensor.offset > data_bytes || tensor.bytes > data_bytes - tensor.offset) {
        extents_.clear();
        give_up();
        return;
      }
      add_extent({data + tensor.offset, tensor.bytes});
    }
    settle_extents();
    finish();
  }
};

class SafetensorsIndex : public Layout {
 public:
  explicit SafetensorsIndex(uint64_t file_bytes) : Layout(LayoutKind::safetensors_index, file_bytes) {
    need({0, file_bytes});
  }

 private:
  struct Map : JsonPath {
    std::vector<std::string> files;

    bool number_unsigned(uint64_t) { return true; }
    bool number_integer(int64_t) { return true; }
    bool start_array(size_t) { return enter(); }
    bool string(std::string& value) {
      if (depth != 2 || keys[0] != "weight_map") return true;
      // Tensors of one shard come in rows; the few others are found by the search.
      if (!files.empty() && files.back() == value) return true;
      if (std::find(files.begin(), files.end(), value) != files.end()) return true;
      if (!is_plain_name(value) || files.size() >= siblings_max) return false;
      files.push_back(value);
      return true;
    }
    // A name in this directory: the index must not lead anywhere else.
    static bool is_plain_name(const std::string& name) {
      return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
             name.find_first_of(std::string("/\0", 2)) == std::string::npos;
    }
  };

  void on_needed(std::span<const uint8_t> bytes) override {
    Map map;
    if (!parse(bytes, &map) || map.files.empty()) {
      give_up();
      return;
    }
    std::sort(map.files.begin(), map.files.end());
    siblings_ = std::move(map.files);
    finish();
  }
};

}  // namespace

std::unique_ptr<Layout> try_safetensors(const LayoutSample& sample) {
  if (sample.head.size() < 9 || sample.head[8] != '{') return nullptr;
  const uint64_t length = load_little<uint64_t>(sample.head, 0);
  if (length < 2 || length > Layout::header_bytes_max || length > sample.file_bytes - 8) return nullptr;
  return std::make_unique<Safetensors>(sample.file_bytes);
}

std::unique_ptr<Layout> try_safetensors_index(const LayoutSample& sample) {
  if (sample.head.empty() || sample.head[0] != '{' || sample.file_bytes > Layout::header_bytes_max) return nullptr;
  const std::string_view text(reinterpret_cast<const char*>(sample.head.data()), sample.head.size());
  const std::string_view beginning = text.substr(0, 4096);
  if (beginning.find("\"weight_map\"") == std::string_view::npos) return nullptr;
  return std::make_unique<SafetensorsIndex>(sample.file_bytes);
}

}  // namespace blobcache
