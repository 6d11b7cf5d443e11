// What uses a node: opens, the nodes found in it, and how long ago it was last looked for.
//
// The kernel forgets nodes when it runs out of its own memory, not of ours, so a table of fixed size needs a way to ask.
// Who is asked about is chosen here, the oldest first. Nodes are linked in the order of their last use; choosing takes from
// the old end and puts what it looked at, chosen or not, at the new one. That needs no second pointer and always comes
// round: what is chosen and stays is in use by somebody (the kernel knows, we do not), and deserves its second chance.
// The choice need not be exact. The kernel keeps what is in use; and a directory that loses a node found in it by another
// name (hard links) only looks emptier than it is.
#include <algorithm>
#include <mutex>

#include <sys/stat.h>

#include "base/assert.h"
#include "fuse/inode_record.h"

namespace blobcache::fuse {

bool Inodes::open_cached(NodeId id) {
  const std::lock_guard guard(lock_);
  Record* found = find_live(id);
  if (found == nullptr) return true;
  if (found->opens_passthrough > 0) return false;
  ++found->opens_cached;
  touch(static_cast<uint32_t>(id));
  return true;
}

bool Inodes::join_passthrough(NodeId id, int32_t* backing_id_out) {
  const std::lock_guard guard(lock_);
  Record* found = find_live(id);
  if (found == nullptr || found->opens_passthrough == 0) return false;
  ++found->opens_passthrough;
  touch(static_cast<uint32_t>(id));
  *backing_id_out = found->backing_id;
  return true;
}

bool Inodes::open_passthrough(NodeId id, int32_t backing_id, int32_t* in_force_out) {
  BC_ASSERT(backing_id > 0);
  const std::lock_guard guard(lock_);
  Record* found = find_live(id);
  if (found == nullptr || found->opens_cached > 0) return false;
  if (found->opens_passthrough == 0) found->backing_id = backing_id;
  ++found->opens_passthrough;
  touch(static_cast<uint32_t>(id));
  *in_force_out = found->backing_id;
  return true;
}

void Inodes::close_cached(NodeId id) {
  const std::lock_guard guard(lock_);
  Record* found = find_live(id);
  if (found == nullptr) return;
  BC_ASSERT(found->opens_cached > 0);
  --found->opens_cached;
  free_if_unused(static_cast<uint32_t>(id));
}

int32_t Inodes::close_passthrough(NodeId id) {
  const std::lock_guard guard(lock_);
  Record* found = find_live(id);
  BC_ASSERT(found != nullptr && found->opens_passthrough > 0);
  --found->opens_passthrough;
  if (found->opens_passthrough > 0) return 0;
  const int32_t backing_id = found->backing_id;
  found->backing_id = 0;
  free_if_unused(static_cast<uint32_t>(id));
  return backing_id;
}

void Inodes::touch(uint32_t index) {
  if (index == root_node) return;
  unlink_order(index);
  Record& its = record(index);
  its.older = newest_;
  its.newer = none;
  if (newest_ != none) record(newest_).newer = index;
  newest_ = index;
  if (oldest_ == none) oldest_ = index;
}

void Inodes::unlink_order(uint32_t index) {
  Record& its = record(index);
  if (its.older != none) record(its.older).newer = its.newer;
  if (its.newer != none) record(its.newer).older = its.older;
  if (oldest_ == index) oldest_ = its.newer;
  if (newest_ == index) newest_ = its.older;
  its.older = its.newer = none;
}

void Inodes::set_parent(uint32_t index, std::string_view key) {
  Record& its = record(index);
  leave_parent(its);
  const size_t slash = key.rfind('/');
  Record* directory = find_directory(slash == std::string_view::npos ? std::string_view() : key.substr(0, slash));
  if (directory == nullptr || directory == &its) return;
  its.parent = id_of(*directory);
  ++directory->children;
}

void Inodes::leave_parent(Record& its) {
  Record* directory = its.parent == 0 ? nullptr : find_live(its.parent);
  its.parent = 0;
  if (directory == nullptr) return;
  BC_ASSERT(directory->children > 0);
  --directory->children;
}

Inodes::Choice Inodes::choose_unused(std::span<NodeId> out, bool directories, uint32_t looks_max) {
  Choice choice;
  looks_max = std::min(looks_max, looks_per_choice);
  const std::lock_guard guard(lock_);
  while (choice.chosen < out.size() && choice.looked_at < looks_max && oldest_ != none) {
    const uint32_t index = oldest_;
    const Record& its = record(index);
    const bool open = its.opens_cached > 0 || its.opens_passthrough > 0;
    const bool directory = S_ISDIR(its.info.attributes.mode);
    if (!open && its.children == 0 && (directories || !directory)) out[choice.chosen++] = id_of(its);
    touch(index);
    ++choice.looked_at;
  }
  return choice;
}

bool Inodes::entry_of(NodeId id, Entry& out) {
  const std::lock_guard guard(lock_);
  const Record* found = find_live(id);
  if (found == nullptr || found->parent == 0 || find_live(found->parent) == nullptr) return false;
  const std::string_view key = key_of(*found);
  out.parent = found->parent;
  out.name = key.substr(key.rfind('/') + 1);
  return true;
}

void Inodes::call_when_crowded(int event_fd) {
  const std::lock_guard guard(lock_);
  crowded_fd_ = event_fd;
}

}  // namespace blobcache::fuse
