// Parquet (https://parquet.apache.org/docs/file-format/): "PAR1", column chunks, a footer, its length, "PAR1". The footer
// is a FileMetaData in Thrift's compact protocol, of which three numbers of each column chunk are wanted:
//   FileMetaData.4 row_groups[] . 1 columns[] . 3 meta_data . { 7 total_compressed_size, 9 data_page_offset,
//                                                               11 dictionary_page_offset }
// All else is skipped by its type. Every element takes a byte at least, so the time is bounded by the footer's length.
// A reader of some columns goes from one row group to the same column of the next: as many pieces on as there are columns.
#include <algorithm>

#include "cache/layout.h"
#include "cache/layout_bytes.h"

namespace blobcache {

namespace {

// https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
class Thrift {
 public:
  enum Type : uint8_t {
    yes = 1,
    no = 2,
    byte = 3,
    i16 = 4,
    i32 = 5,
    i64 = 6,
    real = 7,
    binary = 8,
    list = 9,
    set = 10,
    map = 11,
    structure = 12
  };

  explicit Thrift(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  bool good() const { return good_; }

  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const uint8_t part = take();
      value |= uint64_t{part & 0x7fu} << shift;
      if ((part & 0x80) == 0) return value;
    }
    good_ = false;
    return 0;
  }
  int64_t integer() {  // zigzag
    const uint64_t value = varint();
    return static_cast<int64_t>(value >> 1) ^ -static_cast<int64_t>(value & 1);
  }

  // on_field(id, type) reads the value, or returns false to have it skipped.
  template <class OnField>
  void fields(unsigned depth, OnField&& on_field) {
    if (depth > depth_max) good_ = false;
    int64_t id = 0;
    while (good_) {
      const uint8_t head = take();
      if (head == 0) return;
      id = head >> 4 != 0 ? id + (head >> 4) : integer();
      const uint8_t type = head & 15;
      if (!on_field(id, type)) skip(type, depth, false);
    }
  }
  // on_element() reads each; of another type than asked for: malformed.
  template <class OnElement>
  void elements(uint8_t type, OnElement&& on_element) {
    const uint8_t head = take();
    uint64_t count = head >> 4;
    if (count == 15) count = varint();
    if (count > 0 && (head & 15) != type) good_ = false;
    for (; good_ && count > 0; --count) on_element();
  }

 private:
  static constexpr unsigned depth_max = 32;

  uint8_t take() {
    if (at_ < bytes_.size()) return bytes_[at_++];
    good_ = false;
    return 0;
  }
  void pass(uint64_t count) {
    if (count > bytes_.size() - at_) good_ = false;
    if (good_) at_ += count;
  }

  // A bool is in its field's type, but a byte where it is an element.
  void skip(uint8_t type, unsigned depth, bool is_element) {
    if (depth > depth_max) good_ = false;
    if (!good_) return;
    if (type == yes || type == no) {
      if (is_element) pass(1);
    } else if (type == byte) {
      pass(1);
    } else if (type == i16 || type == i32 || type == i64) {
      varint();
    } else if (type == real) {
      pass(8);
    } else if (type == binary) {
      pass(varint());
    } else if (type == structure) {
      fields(depth + 1, [](int64_t, uint8_t) { return false; });
    } else if (type == list || type == set) {
      const uint8_t head = take();
      uint64_t count = head >> 4;
      if (count == 15) count = varint();
      for (; good_ && count > 0; --count) skip(head & 15, depth + 1, true);
    } else if (type == map) {
      uint64_t count = varint();
      const uint8_t types = count > 0 ? take() : 0;
      for (; good_ && count > 0; --count) {
        skip(types >> 4, depth + 1, true);
        skip(types & 15, depth + 1, true);
      }
    } else {
      good_ = false;
    }
  }

  std::span<const uint8_t> bytes_;
  size_t at_ = 0;
  bool good_ = true;
};

class Parquet : public Layout {
 public:
  explicit Parquet(uint64_t file_bytes) : Layout(LayoutKind::parquet, file_bytes) {
    need({file_bytes - end_bytes, end_bytes});
  }

 private:
  static constexpr uint64_t end_bytes = 8;

  void on_needed(std::span<const uint8_t> bytes) override {
    if (needs().end() == file_bytes_) {
      const uint64_t length = load_little<uint32_t>(bytes, 0);
      if (!has_magic(bytes, 4, "PAR1") || length > file_bytes_ - end_bytes) {
        give_up();
      } else {
        need({file_bytes_ - end_bytes - length, length});
      }
      return;
    }
    Thrift thrift(bytes);
    thrift.fields(0, [&](int64_t id, uint8_t type) {
      if (id != 4 || type != Thrift::list) return false;
      thrift.elements(Thrift::structure, [&] { row_group(thrift); });
      return true;
    });
    if (!thrift.good()) {
      extents_.clear();
      give_up();
      return;
    }
    const size_t chunks = extents_.size();
    settle_extents();
    lanes_ = even_ && columns_ > 0 && extents_.size() == chunks ? columns_ : 1;
    finish();
  }

  void row_group(Thrift& thrift) {
    size_t columns = 0;
    thrift.fields(1, [&](int64_t id, uint8_t type) {
      if (id != 1 || type != Thrift::list) return false;
      thrift.elements(Thrift::structure, [&] {
        ++columns;
        thrift.fields(2, [&](int64_t field, uint8_t field_type) {
          if (field != 3 || field_type != Thrift::structure) return false;
          column(thrift);
          return true;
        });
      });
      return true;
    });
    if (columns_ != 0 && columns != columns_) even_ = false;
    columns_ = columns;
  }

  void column(Thrift& thrift) {
    int64_t bytes = 0;
    int64_t data = 0;
    int64_t dictionary = 0;
    thrift.fields(3, [&](int64_t id, uint8_t type) {
      if (type != Thrift::i64 || (id != 7 && id != 9 && id != 11)) return false;
      (id == 7 ? bytes : id == 9 ? data : dictionary) = thrift.integer();
      return true;
    });
    const int64_t start = dictionary > 0 && dictionary < data ? dictionary : data;
    if (start > 0 && bytes > 0 && !add_extent({static_cast<uint64_t>(start), static_cast<uint64_t>(bytes)})) {
      even_ = false;
    }
  }

  size_t columns_ = 0;
  bool even_ = true;  // all row groups have as many columns
};

}  // namespace

bool is_read_from_end(std::span<const uint8_t> tail) {
  return tail.size() >= 4 && has_magic(tail, tail.size() - 4, "PAR1");
}

std::unique_ptr<Layout> try_parquet(const LayoutSample& sample) {
  if (sample.file_bytes < 12 || !has_magic(sample.head, 0, "PAR1")) return nullptr;
  return std::make_unique<Parquet>(sample.file_bytes);
}

}  // namespace blobcache
