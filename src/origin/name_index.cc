// Why a file of our own and not a database: it is written once from front to back in the order in which listings come, read
// by the ring a block at a time, and thrown away whole. A look-up is a search among the first keys in memory and one read of
// 16 KiB; a million names of 40 bytes are 6,000 blocks and 430 KB of first keys.
//
// The file is written under another name, locked against a second writer of the same source, synced and renamed: a process
// that dies leaves the old index or none.
#include "origin/name_index.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file_info.h"

namespace blobcache {
namespace {

constexpr char magic[8] = {'B', 'C', 'N', 'A', 'M', 'E', 'S', '1'};
constexpr size_t block_bytes_wanted = 16 * limits::KiB;
constexpr uint64_t size_max = INT64_MAX;
constexpr size_t entry_head_bytes = 2 + 1 + 8 + 8;
constexpr size_t version_bytes_max = sizeof FileVersion::bytes;
constexpr size_t block_bytes_max = block_bytes_wanted + entry_head_bytes + limits::path_bytes_max + version_bytes_max;

template <class T>
void append(std::string& to, const T& value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <class T>
T take(std::span<const std::byte>& from) {
  T value;
  std::memcpy(&value, from.data(), sizeof value);
  from = from.subspan(sizeof value);
  return value;
}

bool read_all(int fd, void* to, size_t count, uint64_t offset) {
  auto* at = static_cast<char*>(to);
  while (count > 0) {
    const ssize_t got = ::pread(fd, at, count, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
    count -= static_cast<size_t>(got);
    offset += static_cast<uint64_t>(got);
  }
  return true;
}

}  // namespace

struct NameIndex::Header {
  char magic[8];
  uint64_t identity[2];
  int64_t built_s;
  uint64_t names;
  uint64_t blocks;
  uint64_t table_offset;
  uint64_t first_keys_bytes;
  uint64_t table_checksum;
  uint64_t checksum;  // of all before it
};

// Reading.

NameIndex::~NameIndex() {
  if (fd_ >= 0) ::close(fd_);
}

Result<std::shared_ptr<const NameIndex>> NameIndex::open(const std::string& path, const ObjectId& identity) {
  const std::shared_ptr<NameIndex> index(new NameIndex);
  index->fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (index->fd_ < 0) return fail(errno == ENOENT ? Code::not_found : Code::io, errno);
  if (const Result<void> loaded = index->load(identity); !loaded) return std::unexpected(loaded.error());
  return index;
}

Result<void> NameIndex::load(const ObjectId& identity) {
  Header header;
  struct stat status{};
  if (::fstat(fd_, &status) != 0 || !read_all(fd_, &header, sizeof header, 0)) return fail(Code::corrupt, EIO);
  const auto file_bytes = static_cast<uint64_t>(status.st_size);
  if (std::memcmp(header.magic, magic, sizeof magic) != 0 ||
      XXH3_64bits(&header, offsetof(Header, checksum)) != header.checksum || header.identity[0] != identity.words[0] ||
      header.identity[1] != identity.words[1] || header.blocks > name_index_table_bytes_max / sizeof(Block) ||
      header.first_keys_bytes > name_index_table_bytes_max || header.table_offset > file_bytes) {
    return fail(Code::corrupt, EIO);
  }
  blocks_.resize(header.blocks);
  first_keys_.resize(header.first_keys_bytes);
  const size_t blocks_bytes = blocks_.size() * sizeof(Block);
  if (!read_all(fd_, blocks_.data(), blocks_bytes, header.table_offset) ||
      !read_all(fd_, first_keys_.data(), first_keys_.size(), header.table_offset + blocks_bytes)) {
    return fail(Code::corrupt, EIO);
  }
  if (table_checksum() != header.table_checksum) return fail(Code::corrupt, EIO);
  if (!is_in_order(header.table_offset)) return fail(Code::corrupt, EIO);
  built_s_ = header.built_s;
  names_ = header.names;
  return {};
}

// Whether the blocks lie in the file one behind the other, and their first keys ascend.
bool NameIndex::is_in_order(uint64_t table_offset) const {
  uint64_t offset = limits::page_bytes;
  std::string_view key_before;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    if (block.bytes == 0 || block.bytes > block_bytes_max || block.offset < offset || block.offset > table_offset ||
        block.bytes > table_offset - block.offset || block.key_offset > first_keys_.size() ||
        block.key_bytes > first_keys_.size() - block.key_offset || first_key(i) <= key_before) {
      return false;
    }
    offset = block.offset + block.bytes;
    key_before = first_key(i);
  }
  return true;
}

uint64_t NameIndex::table_checksum() const {
  const XXH64_hash_t of_blocks = XXH3_64bits(blocks_.data(), blocks_.size() * sizeof(Block));
  return XXH3_64bits_withSeed(first_keys_.data(), first_keys_.size(), of_blocks);
}

size_t NameIndex::block_of(std::string_view key) const {
  size_t low = 0;
  size_t high = blocks_.size();
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    (first_key(middle) <= key ? low : high) = middle;
  }
  return low;
}

bool NameIndex::verify(size_t block, std::span<const std::byte> bytes) const {
  return bytes.size() == blocks_[block].bytes && XXH3_64bits(bytes.data(), bytes.size()) == blocks_[block].checksum;
}

bool next_indexed_name(std::span<const std::byte>& block, IndexedName* out) {
  if (block.size() < entry_head_bytes) return false;
  const auto key_bytes = take<uint16_t>(block);
  const auto version_bytes = take<uint8_t>(block);
  out->size = take<uint64_t>(block);
  out->mtime_s = take<int64_t>(block);
  if (block.size() < size_t{key_bytes} + version_bytes) return false;
  // What no writer of ours has written, whatever its checksum says.
  if (key_bytes == 0 || key_bytes > limits::path_bytes_max || version_bytes > version_bytes_max ||
      out->size > size_max) {
    return false;
  }
  const auto* text = reinterpret_cast<const char*>(block.data());
  out->key = {text, key_bytes};
  out->version = {text + key_bytes, version_bytes};
  block = block.subspan(size_t{key_bytes} + version_bytes);
  return true;
}

// Writing.

Result<std::unique_ptr<NameIndexWriter>> NameIndexWriter::create(const Options& options) {
  std::unique_ptr<NameIndexWriter> writer(new NameIndexWriter(options));
  writer->index_.reset(new NameIndex);
  NameIndex& index = *writer->index_;
  index.built_s_ = options.built_s;
  if (options.path.empty()) {
    index.fd_ = ::memfd_create("blobcache-names", MFD_CLOEXEC);
    if (index.fd_ < 0) return fail(Code::io, errno);
    return writer;
  }
  const std::string directory = options.path.substr(0, options.path.rfind('/'));
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) return fail(Code::io, errno);
  const std::string path_new = options.path + ".new";
  index.fd_ = ::open(path_new.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (index.fd_ < 0) return fail(Code::io, errno);
  // Between our open and our lock another writer may have finished: then this is his index, and not ours to write to.
  struct stat ours{};
  struct stat named{};
  if (::flock(index.fd_, LOCK_EX | LOCK_NB) != 0 || ::fstat(index.fd_, &ours) != 0 ||
      ::stat(path_new.c_str(), &named) != 0 || ours.st_ino != named.st_ino) {
    return fail(Code::again, EAGAIN);
  }
  writer->path_new_ = path_new;
  if (::ftruncate(index.fd_, 0) != 0) return fail(Code::io, errno);
  return writer;
}

NameIndexWriter::~NameIndexWriter() {
  if (!path_new_.empty()) ::unlink(path_new_.c_str());
}

Result<void> NameIndexWriter::write(const void* bytes, size_t count, uint64_t offset) {
  const auto* at = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t done = ::pwrite(index_->fd_, at, count, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return fail(errno == ENOSPC ? Code::full : Code::io, errno);
    at += done;
    count -= static_cast<size_t>(done);
    offset += static_cast<uint64_t>(done);
  }
  return {};
}

Result<void> NameIndexWriter::end_block() {
  if (block_.empty()) return {};
  NameIndex::Block& block = index_->blocks_.back();
  block.offset = offset_;
  block.bytes = static_cast<uint32_t>(block_.size());
  block.checksum = XXH3_64bits(block_.data(), block_.size());
  if (const Result<void> written = write(block_.data(), block_.size(), offset_); !written) return written;
  offset_ += block_.size();
  block_.clear();
  return {};
}

Result<void> NameIndexWriter::add(const IndexedName& name) {
  if (index_->names_ > 0 && name.key <= last_key_) return fail(Code::protocol, EPROTO);
  if (name.key.empty() || name.key.size() > limits::path_bytes_max || name.version.size() > version_bytes_max ||
      name.size > size_max) {
    return fail(Code::protocol, EPROTO);
  }
  if (block_.size() >= block_bytes_wanted) {
    if (const Result<void> ended = end_block(); !ended) return ended;
  }
  if (block_.empty()) {
    const size_t table_bytes = (index_->blocks_.size() + 1) * sizeof(NameIndex::Block) + index_->first_keys_.size();
    if (table_bytes + name.key.size() > name_index_table_bytes_max) return fail(Code::full, EFBIG);
    index_->blocks_.push_back({.offset = 0,
                               .checksum = 0,
                               .key_offset = index_->first_keys_.size(),
                               .bytes = 0,
                               .key_bytes = static_cast<uint32_t>(name.key.size())});
    index_->first_keys_ += name.key;
  }
  append(block_, static_cast<uint16_t>(name.key.size()));
  append(block_, static_cast<uint8_t>(name.version.size()));
  append(block_, name.size);
  append(block_, name.mtime_s);
  block_.append(name.key).append(name.version);
  last_key_ = name.key;
  ++index_->names_;
  return {};
}

Result<std::shared_ptr<const NameIndex>> NameIndexWriter::finish() {
  if (const Result<void> ended = end_block(); !ended) return std::unexpected(ended.error());
  NameIndex::Header header{};
  std::memcpy(header.magic, magic, sizeof magic);
  header.identity[0] = options_.identity.words[0];
  header.identity[1] = options_.identity.words[1];
  header.built_s = options_.built_s;
  header.names = index_->names_;
  header.blocks = index_->blocks_.size();
  header.table_offset = offset_;
  header.first_keys_bytes = index_->first_keys_.size();
  const size_t blocks_bytes = index_->blocks_.size() * sizeof(NameIndex::Block);
  header.table_checksum = index_->table_checksum();
  header.checksum = XXH3_64bits(&header, offsetof(NameIndex::Header, checksum));
  Result<void> written = write(index_->blocks_.data(), blocks_bytes, offset_);
  if (written) written = write(index_->first_keys_.data(), index_->first_keys_.size(), offset_ + blocks_bytes);
  std::string page(limits::page_bytes, '\0');
  std::memcpy(page.data(), &header, sizeof header);
  if (written) written = write(page.data(), page.size(), 0);
  if (!written) return std::unexpected(written.error());
  if (!path_new_.empty()) {
    if (::fdatasync(index_->fd_) != 0 || ::rename(path_new_.c_str(), options_.path.c_str()) != 0) {
      return fail(Code::io, errno);
    }
    path_new_.clear();
    ::flock(index_->fd_, LOCK_UN);
  }
  return std::shared_ptr<const NameIndex>(std::move(index_));
}

}  // namespace blobcache
