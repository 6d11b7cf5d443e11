// The content store as an origin: a directory of blobs, named by their ids in lower case. source = "blobs:".
//   Thread, lifetime, limits: as Origin. Created after the last fork: its helper threads do not survive one.
//   Versions  the id: what has the name has the bytes. Reads of an open blob go on after it was removed
//   How       names are asked of the source's table at once; what may wait for a disk goes to helper threads
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/blob_id.h"
#include "base/config.h"
#include "origin/origin.h"

namespace blobcache {

// The store, as the origin needs it. Thread: any.
class BlobSource {
 public:
  struct Blob {
    BlobId id;
    uint64_t bytes = 0;
    int64_t stored_s = 0;
  };
  struct Facts {
    uint64_t limit_bytes = 0;
    uint64_t used_bytes = 0;
    uint64_t blobs = 0;
    uint64_t blobs_max = 0;
    uint64_t changes = 0;  // blobs that came or went
    int64_t changed_s = 0;
  };
  // Without waiting.
  virtual std::optional<Blob> find_blob(const BlobId& id) const = 0;
  // In order of ids, those behind `after`.
  virtual std::vector<Blob> list_blobs(const std::optional<BlobId>& after, size_t count_max) const = 0;
  virtual Facts blob_facts() const = 0;
  // May wait for a disk. Errors: not_found, corrupt, io. A handle, for the two below.
  virtual Result<int> open_blob(const BlobId& id) = 0;
  // From the start of a block to the end of one, or of the blob. Errors: corrupt, io.
  virtual Result<void> read_blob(int handle, uint64_t offset, std::span<std::byte> to) = 0;
  virtual void close_blob(int handle) = 0;

 protected:
  ~BlobSource() = default;
};

inline constexpr std::string_view blobs_scheme = "blobs:";

// source: outlives it.
std::unique_ptr<Origin> create_blobs_origin(BlobSource& source, const VolumeConfig& volume);

}  // namespace blobcache
