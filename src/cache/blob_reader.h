// BlobReader: one blob, open for reading; every block is compared with its checksum each time.
//   Owner     who reads; it holds the file, so the bytes stay readable when the blob is removed.   Thread  any
//   Blocks    on the disk: never on a core
#pragma once

#include <cstdint>
#include <mutex>
#include <span>

#include "cache/blob_store.h"

namespace blobcache {

class BlobReader {
 public:
  BlobReader(BlobStore& store, unsigned disk, FileFd fd, const blob_format::Seal& seal);

  const BlobInfo& info() const { return info_; }
  // Bytes [offset, offset + to.size()) of the blob: from the start of a block to the end of one, or of the blob. `to` begins
  // on a page. Errors: corrupt (the blob was set aside, and what is in `to` means nothing), io.
  Result<void> read(uint64_t offset, std::span<std::byte> to);

 private:
  Result<void> read_once(uint64_t offset, std::span<std::byte> to);
  Result<void> load_sums(uint64_t group);

  BlobStore& store_;
  const unsigned disk_;
  const FileFd fd_;
  const ObjectId sums_id_;
  BlobInfo info_;
  std::mutex mutex_;  // of what follows, for a copy out of it
  PageBuffer sums_;
  uint64_t sums_group_ = ~uint64_t{0};  // whose checksums sums_ are
};

}  // namespace blobcache
