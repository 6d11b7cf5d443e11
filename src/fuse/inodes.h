// Inodes: what the kernel's node ids stand for.
//   Owner     a volume.   Thread  any core; one lock, held for a few dozen instructions
//   Lifetime  the records lie in memfds at fixed addresses and outlive the process (layout below, recovery by scanning)
//   Identity  a directory is stable by its path; anything else is one object version, so its attributes and bytes never
//             change and nothing in the kernel's caches ever needs to be invalidated. A new version is a new node id.
//   Counts    acquire() is one LOOKUP answered; the kernel's FORGET takes lookups back; a node lives while it has lookups
//             or opens.
//   Limits    nodes_max, from the memory plan; beyond it acquire() says full. From three quarters of it the table is crowded:
//             a pruner (node/pruner.h) is woken and asks the kernel to forget the nodes used longest ago
//   Invariant a record is live exactly when `state` says so; it is written last when a node is made and first when it ends
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/file_info.h"
#include "base/memory.h"
#include "base/result.h"
#include "base/spinlock.h"

namespace blobcache::fuse {

using NodeId = uint64_t;
inline constexpr NodeId root_node = 1;

// A copy of one node; keeps nothing locked.
struct Node {
  NodeId id = 0;
  std::string key;
  FileInfo info;
  uint64_t attributes_at_ns = 0;  // when the origin last told them
  bool cache_tainted = false;     // pages of a young version may lie in the kernel's cache: the next open drops them
};

class Inodes {
 public:
  struct Options {
    unsigned volume = 0;
    uint32_t nodes_max = 0;
  };
  Inodes() = default;
  ~Inodes();
  Inodes(const Inodes&) = delete;
  Inodes& operator=(const Inodes&) = delete;

  // Makes the root, node 1, from what the origin says of "". Errors: again.
  Result<void> create(const Options& options, const FileInfo& root, uint64_t now_ns);

  // The node of what a lookup found, with one lookup more; its key becomes this one (a renamed or linked file is found by
  // its newest name). Errors: full; invalid (ENAMETOOLONG).
  Result<NodeId> acquire(std::string_view key, const FileInfo& info, uint64_t now_ns);
  void forget(NodeId id, uint64_t lookups);

  // False: no such node.
  bool get(NodeId id, Node& out);
  // New attributes of a directory (its identity is its path).
  void update_directory(NodeId id, const FileInfo& info, uint64_t now_ns);
  // Says that pages of a young version will be in the page cache from now on; returns whether they already may be.
  bool exchange_tainted(NodeId id, bool tainted);

  // How an inode's opens read: all alike at any time, or the kernel answers EIO (docs/KERNEL.md). Counted here until RELEASE.
  // An open keeps its node, whatever the kernel forgets. Where the node is gone by now (the opener was killed) the open is
  // page-cached and counted nowhere.
  // Page-cached; false: passthrough opens exist, so join them.
  bool open_cached(NodeId id);
  // One more passthrough open; false: there is none to join.
  bool join_passthrough(NodeId id, int32_t* backing_id_out);
  // A passthrough open with a backing id of its own; false: page-cached opens exist. *in_force_out is the id to answer with:
  // another one when somebody came first, and then backing_id is the caller's to close.
  bool open_passthrough(NodeId id, int32_t backing_id, int32_t* in_force_out);
  void close_cached(NodeId id);
  // The backing id to close now, or 0 while other passthrough opens share it.
  int32_t close_passthrough(NodeId id);

  uint32_t count() const { return live_.load(std::memory_order_relaxed); }
  uint32_t nodes_max() const { return options_.nodes_max; }
  static uint64_t bytes_per_node();

  // Pressure. Listings of a crowded table go out without nodes.
  bool crowded() const { return count() >= crowded_from_; }
  // How many nodes have ended so far.
  uint64_t freed() const { return freed_.load(std::memory_order_relaxed); }
  // Names nodes that the kernel may be asked to forget, those first that were used longest ago: neither open nor the root,
  // and no live node was last found in them. Looks at few (its lock is the hot one) and at looks_max at most; a round over
  // the table is count() - 1 looks, and names no node twice.
  struct Choice {
    size_t chosen = 0;
    uint32_t looked_at = 0;
  };
  Choice choose_unused(std::span<NodeId> out, bool directories, uint32_t looks_max);
  // Where the node was last found. False: it or its directory is gone.
  struct Entry {
    NodeId parent = 0;
    std::string name;
  };
  bool entry_of(NodeId id, Entry& out);
  // The next acquire() that finds the table crowded or full writes to this eventfd (not blocking), once.
  void call_when_crowded(int event_fd);

 private:
  struct Record;
  struct Header;
  static constexpr uint32_t none = ~0u;
  static constexpr uint32_t looks_per_choice = 64;  // 64 cache misses: about 10 us

  Record& record(uint32_t index);
  Record* find_live(NodeId id);
  uint32_t find_by_identity(uint64_t hash, std::string_view key, const FileInfo& info);
  uint32_t bucket_of(uint64_t hash) const;
  void insert_hash(uint32_t index);
  void remove_hash(uint32_t index);
  void split_bucket();
  uint32_t take_record();
  NodeId id_of(const Record& record);
  Record* find_directory(std::string_view key);
  uint32_t make_record(uint64_t hash, std::string_view key);
  void free_if_unused(uint32_t index);
  void touch(uint32_t index);
  void unlink_order(uint32_t index);
  void set_parent(uint32_t index, std::string_view key);
  void leave_parent(Record& record);
  bool set_key(Record& record, std::string_view key);
  std::string_view key_of(const Record& record) const;
  void free_key(Record& record);
  void fill(Record& record, const FileInfo& info, uint64_t now_ns);

  Spinlock lock_;
  Options options_;
  SharedRegion records_;
  SharedRegion keys_;
  uint32_t records_used_ = 0;      // high-water mark
  std::atomic<uint32_t> live_{0};  // written under the lock
  std::atomic<uint64_t> freed_{0};
  uint32_t crowded_from_ = ~0u;
  int crowded_fd_ = -1;     // -1: nobody waits to be called
  uint32_t oldest_ = none;  // through Record::newer
  uint32_t newest_ = none;
  uint32_t free_records_ = none;  // through Record::hash_next
  uint64_t keys_used_ = 0;
  static constexpr unsigned key_classes = 8;  // 32, 64, ... 4096 bytes
  uint64_t free_keys_[key_classes] = {};      // offset + 1 of the first free string of a class; linked in place
  // Linear hashing: grows by one bucket per insertion, so that no insertion ever stops for a rehash.
  uint32_t* buckets_ = nullptr;
  size_t buckets_reserved_ = 0;
  uint32_t bucket_count_ = 0;
  uint32_t bucket_mask_ = 0;
};

}  // namespace blobcache::fuse
