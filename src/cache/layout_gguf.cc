// GGUF 2 and 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), little-endian:
//   "GGUF" version tensor_count key_count | keys: name type value ... | tensors: name dimensions type offset ... | data
// A string is a length of 8 bytes and its bytes. Offsets count from the data, which begins at the next multiple of
// general.alignment (32 unless told). A tokenizer makes the keys some 10 MiB long, but most of it is strings to pass over:
// so this reads 128 KiB at a time, forward, keeps nothing of it but the tensors' offsets, and leaps over what is long.
#include <algorithm>

#include "cache/layout.h"
#include "cache/layout_bytes.h"

namespace blobcache {

namespace {

enum Type : uint32_t { string_type = 8, array_type = 9, type_count = 13 };
constexpr uint8_t type_bytes[type_count] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

class Gguf : public Layout {
 public:
  explicit Gguf(uint64_t file_bytes) : Layout(LayoutKind::gguf, file_bytes) { need({0, header_bytes}); }

 private:
  static constexpr uint64_t header_bytes = 24;
  static constexpr uint64_t step_bytes = 128u << 10;
  static constexpr uint64_t name_bytes_max = 65535;
  static constexpr size_t arrays_max = 4;
  static constexpr uint32_t dimensions_max = 8;

  struct Array {
    uint32_t type;
    uint64_t left;
  };
  enum class Step : uint8_t { taken, needs_more, wrong };

  void on_needed(std::span<const uint8_t> bytes) override {
    if (needs().offset == 0) {
      tensors_left_ = load_little<uint64_t>(bytes, 8);
      keys_left_ = load_little<uint64_t>(bytes, 16);
      position_ = header_bytes;
      if (tensors_left_ == 0 || tensors_left_ > extents_max) {
        give_up();
      } else {
        need_more();
      }
      return;
    }
    window_ = bytes;
    window_offset_ = needs().offset;
    Step step = Step::taken;
    while (step == Step::taken && (tensors_left_ > 0 || keys_left_ > 0 || !arrays_.empty())) {
      step = !arrays_.empty() ? take_element() : keys_left_ > 0 ? take_key() : take_tensor();
      if (position_ > file_bytes_) step = Step::wrong;
    }
    if (step == Step::wrong) {
      give_up();
    } else if (step == Step::needs_more) {
      need_more();
    } else {
      settle();
    }
  }

  // Where nothing was taken from a whole window, need() sees the same range again and gives up.
  void need_more() { need({position_, std::min(step_bytes, file_bytes_ - std::min(position_, file_bytes_))}); }
  bool has(uint64_t bytes) const {
    return position_ - window_offset_ <= window_.size() && bytes <= window_.size() - (position_ - window_offset_);
  }
  template <class Number>
  Number load(uint64_t behind_position) const {
    return load_little<Number>(window_, position_ - window_offset_ + behind_position);
  }
  // Leaps; what is absurd lands beyond the file.
  void pass(uint64_t bytes) { position_ += std::min(bytes, file_bytes_ + 1); }

  Step take_value(uint32_t type) {
    if (type >= type_count) return Step::wrong;
    if (type == string_type) {
      if (!has(8)) return Step::needs_more;
      const uint64_t length = load<uint64_t>(0);
      pass(8);
      pass(length);
    } else if (type == array_type) {
      if (!has(12)) return Step::needs_more;
      const Array array{load<uint32_t>(0), load<uint64_t>(4)};
      if (arrays_.size() == arrays_max || array.type >= type_count) return Step::wrong;
      pass(12);
      if (type_bytes[array.type] == 0) {
        arrays_.push_back(array);
      } else {
        if (array.left > file_bytes_) return Step::wrong;
        pass(array.left * type_bytes[array.type]);
      }
    } else {
      pass(type_bytes[type]);
    }
    return Step::taken;
  }

  Step take_element() {
    if (arrays_.back().left == 0) {
      arrays_.pop_back();
      return Step::taken;
    }
    const size_t index = arrays_.size() - 1;
    const Step step = take_value(arrays_[index].type);
    if (step == Step::taken) --arrays_[index].left;
    return step;
  }

  Step take_key() {
    if (!has(8)) return Step::needs_more;
    const uint64_t length = load<uint64_t>(0);
    if (length > name_bytes_max) return Step::wrong;
    if (!has(8 + length + 16)) {  // with the first bytes of its value, which may end the file only after tensors
      return Step::needs_more;
    }
    const bool is_alignment =
        has_magic(window_.subspan(position_ - window_offset_ + 8, length), 0, "general.alignment");
    const uint32_t type = load<uint32_t>(8 + length);
    pass(8 + length + 4);
    if (is_alignment && type == 4) alignment_ = load<uint32_t>(0);
    if (alignment_ == 0) return Step::wrong;
    const Step step = take_value(type);
    --keys_left_;
    return step;
  }

  Step take_tensor() {
    if (!has(8)) return Step::needs_more;
    const uint64_t length = load<uint64_t>(0);
    if (length > name_bytes_max) return Step::wrong;
    if (!has(8 + length + 4)) return Step::needs_more;
    const uint32_t dimensions = load<uint32_t>(8 + length);
    if (dimensions > dimensions_max) return Step::wrong;
    const uint64_t bytes = 8 + length + 4 + dimensions * 8 + 4 + 8;
    if (!has(bytes)) return Step::needs_more;
    const uint64_t offset = load<uint64_t>(bytes - 8);
    if (offset >= file_bytes_) return Step::wrong;
    offsets_.push_back(offset);  // at most extents_max: tensors_left_ was
    pass(bytes);
    --tensors_left_;
    return Step::taken;
  }

  // A tensor ends where the next begins.
  void settle() {
    const uint64_t data = (position_ + alignment_ - 1) / alignment_ * alignment_;
    std::sort(offsets_.begin(), offsets_.end());
    for (size_t i = 0; i < offsets_.size(); ++i) {
      const uint64_t end = i + 1 < offsets_.size() ? data + offsets_[i + 1] : file_bytes_;
      const uint64_t start = data + offsets_[i];
      if (start < end) add_extent({start, end - start});
    }
    settle_extents();
    finish();
  }

  uint64_t position_ = 0;
  uint64_t keys_left_ = 0;
  uint64_t tensors_left_ = 0;
  uint64_t alignment_ = 32;
  std::vector<Array> arrays_;
  std::vector<uint64_t> offsets_;  // of tensors, from the data
  std::span<const uint8_t> window_;
  uint64_t window_offset_ = 0;
};

}  // namespace

std::unique_ptr<Layout> try_gguf(const LayoutSample& sample) {
  if (sample.file_bytes < 32 || sample.head.size() < 8 || !has_magic(sample.head, 0, "GGUF")) return nullptr;
  const uint32_t version = load_little<uint32_t>(sample.head, 4);
  if (version != 2 && version != 3) return nullptr;
  return std::make_unique<Gguf>(sample.file_bytes);
}

}  // namespace blobcache
