// InodeRecord: one node as it lies in the memfd of records. For inodes*.cc alone.
//   Invariant  everything but hash_next, older and newer means something to a successor; those three it rebuilds
#pragma once

#include "fuse/inodes.h"

namespace blobcache::fuse {

struct Inodes::Record {
  enum State : uint32_t { free = 0, live = 1 };
  std::atomic<uint32_t> state;
  uint32_t generation;
  uint64_t lookups;
  uint64_t hash;
  uint64_t key_offset;
  uint32_t key_bytes;
  uint32_t hash_next;
  uint64_t attributes_at_ns;
  // The directory that it was last found in (it may be gone), and how many live nodes were last found in this one.
  NodeId parent;
  uint32_t children;
  // Neighbours in the order of last use.
  uint32_t older;
  uint32_t newer;
  // Opens of each mode, and the backing id that the passthrough ones share.
  uint32_t opens_cached;
  uint32_t opens_passthrough;
  int32_t backing_id;
  bool cache_tainted;
  FileInfo info;
};

struct Inodes::Header {
  uint64_t magic;
  uint32_t layout_version;
  uint32_t record_bytes;
};

}  // namespace blobcache::fuse
