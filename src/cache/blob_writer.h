// BlobWriter: one upload, from its first byte to its name.
//   Owner     who uploads.   Thread  one at a time; blocks on the disk and hashes: never on a core
//   Limits    512 KiB of memory, whatever is uploaded
//   Lifetime  destroyed before finish(), or after it failed: nothing is kept
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "cache/blob_store.h"

namespace blobcache {

class BlobWriter {
 public:
  static constexpr size_t buffer_bytes = 8 * limits::block_bytes;
  static_assert(blob_format::group_data_bytes % buffer_bytes == 0);  // a buffer lies within a group

  ~BlobWriter();
  BlobWriter(const BlobWriter&) = delete;
  BlobWriter& operator=(const BlobWriter&) = delete;

  // Errors: full, io, stopping; the upload is over then.
  Result<void> append(std::span<const std::byte> bytes);
  // Errors: corrupt (another blob than expected), full, io, stopping.
  using Stored = BlobStore::Published;
  Result<Stored> finish();
  uint64_t bytes() const { return bytes_; }

 private:
  friend class BlobStore;
  BlobWriter(BlobStore& store, unsigned disk, const BlobStore::Put& put, uint64_t reserved_bytes);
  Result<void> create();
  Result<Stored> publish();
  Result<void> flush();
  Result<void> write_sums();
  // Makes the staged file complete and durable.
  Result<void> seal(const BlobId& id, int64_t stored_s, int64_t expires_s);

  BlobStore& store_;
  const unsigned disk_;
  const BlobStore::Put put_;
  uint64_t reserved_bytes_;
  std::string staged_name_;  // below blobs/; empty: nothing is staged
  FileFd fd_;
  BlobHash hash_;
  PageBuffer buffer_;
  PageBuffer sums_;
  uint64_t nonce_[2] = {0, 0};
  uint64_t bytes_ = 0;      // appended
  size_t buffered_ = 0;     // the last of them
  bool sums_open_ = false;  // of the group in hand something was written
  Result<void> failed_;
  bool counted_ = false;  // by the store, what became of it
};

}  // namespace blobcache
