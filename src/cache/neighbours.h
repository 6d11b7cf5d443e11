// Which files of a directory will be opened next: the shard behind a shard, told from its name; the files behind those that
// were opened in the order of a listing, or in that of their names.
//   Owner     a directory that was listed: serve/foretell.h
//   Thread    one at a time, the caller sees to it
//   Limits    names_max names of a directory; more than sorted_max that do not come sorted are not described. streams_max
//             readers of one directory are told apart
//   Invariant the same calls give the same answers: no clock inside, no randomness
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace blobcache {

// "model-00001-of-00005.safetensors" -> "model-00002-of-00005.safetensors", of the last such pair in the name. Empty: it is no
// shard, or the last one. The first may be 0.
std::string next_shard(std::string_view name);
bool is_shard(std::string_view name);

enum class FileOrder : uint8_t { listed, by_name };

class DirectoryNames {
 public:
  static constexpr uint32_t names_max = 65536;
  static constexpr uint32_t sorted_max = 16384;  // sorting them takes 3 ms

  // In the order of the listing. False: there are too many.
  bool add(std::string_view name);
  // That were all. False: they are not described.
  bool settle();

  uint32_t count() const { return static_cast<uint32_t>(begins_.size()); }
  // They are listed by name, so the two orders are one.
  bool one_order() const { return by_name_.empty(); }
  std::string_view at(FileOrder order, uint32_t position) const {
    return name(order == FileOrder::listed || one_order() ? position : by_name_[position]);
  }
  // Where it stands in each order.
  struct Place {
    uint32_t listed = 0;
    uint32_t by_name = 0;
  };
  std::optional<Place> find(std::string_view name) const;
  // The same names, listed in the same order.
  friend bool operator==(const DirectoryNames& a, const DirectoryNames& b) {
    return a.begins_ == b.begins_ && a.text_ == b.text_;
  }
  size_t bytes() const { return text_.capacity() + (begins_.capacity() + by_name_.capacity()) * sizeof(uint32_t); }

 private:
  std::string_view name(uint32_t index) const {
    const size_t end = index + 1 < begins_.size() ? begins_[index + 1] : text_.size();
    return std::string_view(text_).substr(begins_[index], end - begins_[index]);
  }

  std::string text_;
  std::vector<uint32_t> begins_;
  std::vector<uint32_t> by_name_;  // the numbers of the listing; empty: it was sorted
};

// What to fetch before it is opened, and what not to fetch any more.
struct FilesAhead {
  FileOrder order = FileOrder::listed;
  uint32_t first = 0;
  uint32_t end = 0;     // positions in that order
  uint32_t stream = 0;  // for whom
  uint32_t stopped_count = 0;
  std::array<uint32_t, 8> stopped;  // streams

  bool empty() const { return first == end; }
};

class OpenOrder {
 public:
  static constexpr unsigned streams_max = 8;
  static constexpr uint32_t files_ahead_max = 16;
  static constexpr uint64_t bytes_ahead_max = 4u << 20;
  static constexpr uint64_t small_file_bytes_max = 1u << 20;

  struct Opened {
    DirectoryNames::Place place;
    uint32_t count = 0;  // of the names
    bool one_order = false;
    uint64_t bytes = 0;
    bool absent = false;    // it has to be fetched from the origin
    bool foretold = false;  // it was fetched, or being fetched, because we said so
  };
  FilesAhead on_open(const Opened& file);
  // What was foretold was not read: more has to be seen before anything is foretold again.
  void distrust();

 private:
  struct Stream {
    uint32_t number = 0;  // 0: none
    FileOrder order = FileOrder::listed;
    bool from_start = false;  // its first file was the first of the directory, and the first that was opened
    uint8_t misses = 0;       // opens since it moved that nobody foresaw
    uint32_t next = 0;
    uint32_t issued = 0;  // foretold before this position
    uint32_t run = 0;     // files in order
    uint64_t moved = 0;   // at which open
    uint64_t mean_bytes = 0;
  };

  Stream* move(const Opened& file);
  void miss(FilesAhead* ahead);
  void begin(const Opened& file);
  void begin_stream(const Opened& file, FileOrder order, uint32_t position);
  uint32_t run_needed(const Stream& stream, uint32_t count) const;

  std::array<Stream, streams_max> streams_;
  uint64_t opens_ = 0;
  uint32_t numbers_ = 0;
  uint8_t distrust_ = 0;
};

}  // namespace blobcache
