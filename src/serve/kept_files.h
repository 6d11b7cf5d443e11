// KeptFiles: the files of the disk tier that a handle has used, each with a reference of the handle's.
//   Owner     a Handle.   Thread  current, keep: any core, no lock; take: whoever ends the handle, alone
//   Why       a core that found a file uses it until the end of its turn without a reference of its own, so the handle gives
//             none back before it ends. An object that was evicted, or damaged, and is cached again has another file
//   Limits    files_max: readers of an object that was cached anew more often while they had it open go the long way
#pragma once

#include <atomic>

#include "cache/disk_file.h"

namespace blobcache::serve {

class KeptFiles {
 public:
  static constexpr unsigned files_max = 4;

  // The newest one; null: none yet.
  DiskFile* current() const {
    for (unsigned i = files_max; i-- > 0;) {
      if (DiskFile* file = files_[i].load(std::memory_order_acquire)) return file;
    }
    return nullptr;
  }
  // True: it is the newest now, and the caller's reference is ours. False: it was there already, or there is no place.
  bool keep(DiskFile& file) {
    for (std::atomic<DiskFile*>& place : files_) {
      DiskFile* there = nullptr;
      if (place.compare_exchange_strong(there, &file, std::memory_order_acq_rel)) return true;
      if (there == &file) return false;
    }
    return false;
  }
  // Out of it, one by one; null: it is empty. The reference is the caller's.
  DiskFile* take() {
    for (std::atomic<DiskFile*>& place : files_) {
      if (DiskFile* file = place.exchange(nullptr, std::memory_order_acq_rel)) return file;
    }
    return nullptr;
  }

 private:
  std::atomic<DiskFile*> files_[files_max] = {};
};

}  // namespace blobcache::serve
