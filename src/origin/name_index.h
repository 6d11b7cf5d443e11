// NameIndex: the names of a whole volume in one file: key, size, mtime and version of each, in the order of keys as bytes.
//   Thread    a NameIndex never changes: any. A writer: one at a time
//   Lifetime  shared by those who read from it; the file may be replaced or removed under it
//   Trust     nothing: every part has a checksum, and what does not match is no index, or no block
//   Limits    first keys of all blocks, which stay in memory: name_index_table_bytes_max (some 10 million names)
//   Format    native byte order, for the machine that wrote it:
//               Header, padded to 4 KiB | blocks of entries, 16 KiB and one entry at most | Block for each | their first keys
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "base/object_id.h"
#include "base/result.h"

namespace blobcache {

inline constexpr size_t name_index_table_bytes_max = 8 * limits::MiB;

struct IndexedName {
  std::string_view key;
  uint64_t size = 0;
  int64_t mtime_s = 0;
  std::string_view version;  // at most 63 bytes; empty: not known
};

class NameIndex {
 public:
  // Errors: not_found (there is none), corrupt (not one of ours, of another identity or damaged), io.
  static Result<std::shared_ptr<const NameIndex>> open(const std::string& path, const ObjectId& identity);
  ~NameIndex();
  NameIndex(const NameIndex&) = delete;
  NameIndex& operator=(const NameIndex&) = delete;

  int64_t built_s() const { return built_s_; }  // since 1970: when its listing began
  uint64_t names() const { return names_; }
  size_t blocks() const { return blocks_.size(); }
  int fd() const { return fd_; }
  uint64_t block_offset(size_t block) const { return blocks_[block].offset; }
  uint32_t block_bytes(size_t block) const { return blocks_[block].bytes; }
  std::string_view first_key(size_t block) const {
    return std::string_view(first_keys_).substr(blocks_[block].key_offset, blocks_[block].key_bytes);
  }
  // The first key that is not less than `key` lies in this block, or is the first of the next. There is a block.
  size_t block_of(std::string_view key) const;
  // Whether those are the block's bytes, as they were written.
  bool verify(size_t block, std::span<const std::byte> bytes) const;

 private:
  friend class NameIndexWriter;
  struct Header;
  struct Block {
    uint64_t offset;
    uint64_t checksum;
    uint64_t key_offset;
    uint32_t bytes;
    uint32_t key_bytes;
  };
  NameIndex() = default;
  Result<void> load(const ObjectId& identity);
  bool is_in_order(uint64_t table_offset) const;
  uint64_t table_checksum() const;

  int fd_ = -1;
  int64_t built_s_ = 0;
  uint64_t names_ = 0;
  std::vector<Block> blocks_;
  std::string first_keys_;
};

// The entries of a verified block, one after the other. False: no more, or what follows is none.
bool next_indexed_name(std::span<const std::byte>& block, IndexedName* out);

class NameIndexWriter {
 public:
  struct Options {
    std::string path;  // of the index; written beside it first. Empty: in memory
    ObjectId identity;
    int64_t built_s = 0;
  };
  // Errors: again (somebody else is writing it), io.
  static Result<std::unique_ptr<NameIndexWriter>> create(const Options& options);
  ~NameIndexWriter();
  NameIndexWriter(const NameIndexWriter&) = delete;
  NameIndexWriter& operator=(const NameIndexWriter&) = delete;

  // Errors: protocol (the key does not come behind the last one), full (more than an index holds), io.
  Result<void> add(const IndexedName& name);
  // On the disk, and in the place of the one before. Errors: io.
  Result<std::shared_ptr<const NameIndex>> finish();

 private:
  explicit NameIndexWriter(const Options& options) : options_(options) {}
  Result<void> write(const void* bytes, size_t count, uint64_t offset);
  Result<void> end_block();

  const Options options_;
  std::string path_new_;
  std::shared_ptr<NameIndex> index_;
  std::string block_;
  std::string last_key_;
  uint64_t offset_ = limits::page_bytes;
};

}  // namespace blobcache
