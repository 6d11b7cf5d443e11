// DiskFiles: the open files of one disk, by object or segment.
//   Owner     DiskUnit.   Thread  find, release: any, also cores; publish, retire, take_closing: the disk's keeper
//   Limits    unused_max files stay open without references, those longest unused are closed first
//   Invariant a file without references is in unused_ or in closing_; the last reference is given up under the lock, so
//             that nobody finds a file that is about to be closed
//   Closing   never on a core: the keeper takes what is to be closed, closes and frees it
//   At the end every file is closed, whoever refers to it: the answer that carried the reference may have come to nobody
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/spinlock.h"
#include "cache/disk_file.h"

namespace blobcache {

class DiskFiles {
 public:
  explicit DiskFiles(uint32_t unused_max) : unused_max_(unused_max), buckets_(new DiskFile*[bucket_count]()) {}
  ~DiskFiles();
  DiskFiles(const DiskFiles&) = delete;
  DiskFiles& operator=(const DiskFiles&) = delete;

  // With a reference; null: not open.
  DiskFile* find(const ObjectId& id) { return find_key(id.hash(), false, id); }
  DiskFile* find_segment(uint32_t number) { return find_key(number, true, {}); }
  void release(DiskFile& file);

  // file has one reference, and nobody knows it yet.
  void publish(DiskFile& file);
  // Nobody finds it any more. It goes to closing when nobody refers to it.
  void retire(DiskFile& file);
  // Null: nothing is to be closed. The caller's then, and gone from here.
  DiskFile* take_closing();
  // All that can be found, each with a reference. Slow, for the keeper.
  std::vector<DiskFile*> reference_all();

 private:
  static constexpr uint32_t bucket_count = 1024;

  static uint64_t key_of(const DiskFile& file) { return file.packed ? file.segment : file.id.hash(); }
  static uint32_t bucket_of(uint64_t key) { return static_cast<uint32_t>(key * 0x9e3779b97f4a7c15u >> 54); }
  DiskFile* find_key(uint64_t key, bool packed, const ObjectId& id);
  void refer_locked(DiskFile& file);
  void unchain_locked(DiskFile& file);

  const uint32_t unused_max_;
  mutable Spinlock lock_;
  std::unique_ptr<DiskFile*[]> buckets_;
  List<DiskFile> unused_;  // the longest unused first
  uint32_t unused_count_ = 0;
  uint32_t file_count_ = 0;  // that can be found
  List<DiskFile> held_;      // retired, and referred to
  List<DiskFile> closing_;
};

}  // namespace blobcache
