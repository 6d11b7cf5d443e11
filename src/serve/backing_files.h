// BackingFiles: which file of the disk tier is behind a backing id of the connection, while inodes are open with it.
//   Owner     a Volume.   Thread  any; a lock, held for a look-up. Opens and their ends only, no read
//   Owns      one reference to each file, given back by whoever takes the id out (a DiskDisarmJob does)
//   Why       the open that made the id may end before those that joined it, so no handle can own the file
#pragma once

#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "base/assert.h"
#include "base/spinlock.h"

namespace blobcache {
struct DiskFile;
}

namespace blobcache::serve {

class BackingFiles {
 public:
  void put(int32_t backing_id, DiskFile& file) {
    const std::lock_guard guard(lock_);
    const bool added = files_.emplace(backing_id, &file).second;
    BC_ASSERT(added);
  }
  DiskFile& take(int32_t backing_id) {
    const std::lock_guard guard(lock_);
    const auto found = files_.find(backing_id);
    BC_ASSERT(found != files_.end());
    DiskFile& file = *found->second;
    files_.erase(found);
    return file;
  }

 private:
  Spinlock lock_;
  std::unordered_map<int32_t, DiskFile*> files_;
};

}  // namespace blobcache::serve
