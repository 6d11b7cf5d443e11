// Two regions: fixed-size records (index in the low half of the node id, generation in the high half) and keys in power-of-
// two classes. The hash table and the free lists are this process's own: a successor rebuilds them from the live records.
//
// The kernel drops nodes only when it wants to, so the table is sized by memory, not by use: a record of 320 bytes and a
// key of 32 to 128 make 10 M nodes 4 GiB; nodes_max comes from the memory plan.
#include "fuse/inodes.h"

#include <bit>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/assert.h"
#include "base/limits.h"
#include "fuse/address_space.h"
#include "fuse/inode_record.h"

namespace blobcache::fuse {

namespace {

constexpr uint64_t region_magic = 0x31646f6e6963'6c62;  // "blcinod1"
constexpr uint32_t region_layout_version = 2;
constexpr size_t grow_bytes = 4 * limits::MiB;
constexpr unsigned key_bytes_smallest = 32;
constexpr uint32_t buckets_at_start = 1024;

bool is_directory(const FileInfo& info) { return S_ISDIR(info.attributes.mode); }

// What makes two lookups the same node.
uint64_t identity_hash(std::string_view key, const FileInfo& info) {
  if (is_directory(info)) return XXH3_64bits_withSeed(key.data(), key.size(), 1);
  const uint64_t seed = info.key_in_identity ? XXH3_64bits_withSeed(key.data(), key.size(), 2) : 3;
  return XXH3_64bits_withSeed(info.version.bytes, info.version.length, seed);
}

unsigned key_class(size_t bytes) {
  const size_t rounded = std::bit_ceil(bytes < key_bytes_smallest ? size_t{key_bytes_smallest} : bytes);
  return static_cast<unsigned>(std::countr_zero(rounded) - std::countr_zero(unsigned{key_bytes_smallest}));
}

}  // namespace

Inodes::~Inodes() {
  if (buckets_ != nullptr) munmap(buckets_, buckets_reserved_);
}

uint64_t Inodes::bytes_per_node() { return sizeof(Record) + 64 + sizeof(uint32_t); }

Result<void> Inodes::create(const Options& options, const FileInfo& root, uint64_t now_ns) {
  options_ = options;
  // Indices 0 and 1 are reserved: 0 is no node, and 1 with generation 0 is the root's id in the protocol.
  const size_t record_region = limits::page_bytes + (size_t{options.nodes_max} + 2) * sizeof(Record);
  Result<void> created = records_.create({.name = "blobcache-inodes",
                                          .address = address_space::inode_records(options.volume),
                                          .reserve_bytes = record_region + grow_bytes,
                                          .bytes = grow_bytes,
                                          .populate = false});
  if (!created) return created;
  created = keys_.create({.name = "blobcache-keys",
                          .address = address_space::inode_keys(options.volume),
                          .reserve_bytes = address_space::inode_keys_stride,
                          .bytes = grow_bytes,
                          .populate = false});
  if (!created) return created;
  new (records_.bytes().data())
      Header{.magic = region_magic, .layout_version = region_layout_version, .record_bytes = sizeof(Record)};

  buckets_reserved_ = std::bit_ceil(size_t{options.nodes_max} + buckets_at_start) * sizeof(uint32_t);
  void* memory =
      mmap(nullptr, buckets_reserved_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return fail(Code::again, errno);
  buckets_ = static_cast<uint32_t*>(memory);
  bucket_count_ = buckets_at_start;
  bucket_mask_ = buckets_at_start - 1;
  for (uint32_t i = 0; i < bucket_count_; ++i) buckets_[i] = none;
  crowded_from_ = options.nodes_max - options.nodes_max / 4;

  records_used_ = 2;
  Record& first = record(1);
  first.generation = 0;
  first.lookups = 1;
  if (!set_key(first, "")) return fail(Code::again, ENOMEM);
  first.hash = identity_hash("", root);
  first.parent = 0;
  first.children = 0;
  first.older = first.newer = none;
  fill(first, root, now_ns);
  insert_hash(1);
  first.state.store(Record::live, std::memory_order_release);
  live_.store(1, std::memory_order_relaxed);
  return {};
}

Inodes::Record& Inodes::record(uint32_t index) {
  auto* base = records_.bytes().data() + limits::page_bytes;
  return *reinterpret_cast<Record*>(base + size_t{index} * sizeof(Record));
}

NodeId Inodes::id_of(const Record& its) {
  return uint64_t{its.generation} << 32 | static_cast<uint64_t>(&its - &record(0));
}

Inodes::Record* Inodes::find_live(NodeId id) {
  const auto index = static_cast<uint32_t>(id);
  if (index == 0 || index >= records_used_) return nullptr;
  Record& found = record(index);
  if (found.state.load(std::memory_order_relaxed) != Record::live || found.generation != id >> 32) return nullptr;
  return &found;
}

void Inodes::fill(Record& record, const FileInfo& info, uint64_t now_ns) {
  record.info = info;
  record.attributes_at_ns = now_ns;
}

Result<NodeId> Inodes::acquire(std::string_view key, const FileInfo& info, uint64_t now_ns) {
  if (key.size() >= limits::path_bytes_max) return fail(Code::invalid, ENAMETOOLONG);
  const uint64_t hash = identity_hash(key, info);
  Result<NodeId> id = fail(Code::full, ENFILE);
  int to_call = -1;
  {
    const std::lock_guard guard(lock_);
    uint32_t index = find_by_identity(hash, key, info);
    if (index == none) index = make_record(hash, key);
    if (index != none) {
      Record& found = record(index);
      // A name that cannot be stored leaves the older one, which is as good until it goes.
      if (key_of(found) != key && set_key(found, key)) set_parent(index, key);
      fill(found, info, now_ns);
      found.state.store(Record::live, std::memory_order_release);
      ++found.lookups;
      touch(index);
      id = id_of(found);
    }
    if (!id || crowded()) to_call = std::exchange(crowded_fd_, -1);
  }
  if (to_call >= 0) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(to_call, &one, sizeof one);
  }
  return id;
}

// A new node but for its attributes; none: no room.
uint32_t Inodes::make_record(uint64_t hash, std::string_view key) {
  const uint32_t index = take_record();
  if (index == none) return none;
  Record& fresh = record(index);
  if (!set_key(fresh, key)) {
    fresh.hash_next = free_records_;
    free_records_ = index;
    return none;
  }
  fresh.hash = hash;
  fresh.lookups = 0;
  fresh.opens_cached = fresh.opens_passthrough = 0;
  fresh.backing_id = 0;
  fresh.cache_tainted = false;
  fresh.parent = 0;
  fresh.children = 0;
  fresh.older = fresh.newer = none;
  insert_hash(index);
  set_parent(index, key);
  live_.store(count() + 1, std::memory_order_relaxed);
  return index;
}

void Inodes::forget(NodeId id, uint64_t lookups) {
  const std::lock_guard guard(lock_);
  Record* found = find_live(id);
  if (found == nullptr || id == root_node) return;
  found->lookups -= lookups < found->lookups ? lookups : found->lookups;
  free_if_unused(static_cast<uint32_t>(id));
}

// The kernel forgets an inode only after the last RELEASE was answered; one that is not yet through here keeps the node,
// and with it the backing id.
void Inodes::free_if_unused(uint32_t index) {
  Record& its = record(index);
  if (its.lookups > 0 || its.opens_cached > 0 || its.opens_passthrough > 0) return;
  its.state.store(Record::free, std::memory_order_release);
  remove_hash(index);
  leave_parent(its);
  unlink_order(index);
  free_key(its);
  ++its.generation;
  its.hash_next = free_records_;
  free_records_ = index;
  live_.store(count() - 1, std::memory_order_relaxed);
  freed_.fetch_add(1, std::memory_order_relaxed);
}

bool Inodes::get(NodeId id, Node& out) {
  const std::lock_guard guard(lock_);
  const Record* found = find_live(id);
  if (found == nullptr) return false;
  out.id = id;
  out.key = key_of(*found);
  out.info = found->info;
  out.attributes_at_ns = found->attributes_at_ns;
  out.cache_tainted = found->cache_tainted;
  return true;
}

void Inodes::update_directory(NodeId id, const FileInfo& info, uint64_t now_ns) {
  const std::lock_guard guard(lock_);
  Record* found = find_live(id);
  if (found != nullptr && is_directory(found->info) && is_directory(info)) fill(*found, info, now_ns);
}

bool Inodes::exchange_tainted(NodeId id, bool tainted) {
  const std::lock_guard guard(lock_);
  Record* found = find_live(id);
  if (found == nullptr) return true;
  const bool before = found->cache_tainted;
  found->cache_tainted = tainted;
  return before;
}

Inodes::Record* Inodes::find_directory(std::string_view key) {
  FileInfo directory;
  directory.attributes.mode = S_IFDIR;
  const uint32_t index = find_by_identity(identity_hash(key, directory), key, directory);
  return index == none ? nullptr : &record(index);
}

uint32_t Inodes::find_by_identity(uint64_t hash, std::string_view key, const FileInfo& info) {
  const bool directory = is_directory(info);
  for (uint32_t index = buckets_[bucket_of(hash)]; index != none; index = record(index).hash_next) {
    Record& candidate = record(index);
    if (candidate.hash != hash || is_directory(candidate.info) != directory) continue;
    if (directory) {
      if (key_of(candidate) == key) return index;
      continue;
    }
    if (!(candidate.info.version == info.version) || candidate.info.key_in_identity != info.key_in_identity) continue;
    if (!info.key_in_identity || key_of(candidate) == key) return index;
  }
  return none;
}

uint32_t Inodes::bucket_of(uint64_t hash) const {
  const uint32_t bucket = static_cast<uint32_t>(hash) & bucket_mask_;
  if (bucket < bucket_count_) return bucket;
  return bucket & (bucket_mask_ >> 1);
}

void Inodes::insert_hash(uint32_t index) {
  if (count() > bucket_count_ && (bucket_count_ + 1) * sizeof(uint32_t) <= buckets_reserved_) split_bucket();
  uint32_t& bucket = buckets_[bucket_of(record(index).hash)];
  record(index).hash_next = bucket;
  bucket = index;
}

void Inodes::remove_hash(uint32_t index) {
  uint32_t* link = &buckets_[bucket_of(record(index).hash)];
  while (*link != index) {
    BC_ASSERT(*link != none);
    link = &record(*link).hash_next;
  }
  *link = record(index).hash_next;
}

void Inodes::split_bucket() {
  const uint32_t added = bucket_count_;
  if (added > bucket_mask_) bucket_mask_ = bucket_mask_ * 2 + 1;
  const uint32_t old = added & (bucket_mask_ >> 1);
  ++bucket_count_;
  uint32_t rest = buckets_[old];
  buckets_[old] = buckets_[added] = none;
  while (rest != none) {
    const uint32_t index = rest;
    rest = record(index).hash_next;
    uint32_t& bucket = buckets_[bucket_of(record(index).hash)];
    record(index).hash_next = bucket;
    bucket = index;
  }
}

uint32_t Inodes::take_record() {
  if (free_records_ != none) {
    const uint32_t index = free_records_;
    free_records_ = record(index).hash_next;
    return index;
  }
  if (count() >= options_.nodes_max) return none;
  const size_t end = limits::page_bytes + (size_t{records_used_} + 1) * sizeof(Record);
  if (end > records_.bytes().size() && !records_.grow(records_.bytes().size() + grow_bytes)) return none;
  return records_used_++;
}

std::string_view Inodes::key_of(const Record& record) const {
  return {reinterpret_cast<const char*>(keys_.bytes().data()) + record.key_offset, record.key_bytes};
}

bool Inodes::set_key(Record& record, std::string_view key) {
  BC_ASSERT(key.size() <= limits::path_bytes_max);
  const unsigned wanted = key_class(key.size());
  uint64_t offset = 0;
  if (free_keys_[wanted] != 0) {
    offset = free_keys_[wanted] - 1;
    std::memcpy(&free_keys_[wanted], keys_.bytes().data() + offset, sizeof(uint64_t));
  } else {
    const size_t bytes = size_t{key_bytes_smallest} << wanted;
    if (keys_used_ + bytes > keys_.bytes().size() && !keys_.grow(keys_.bytes().size() + grow_bytes)) return false;
    offset = keys_used_;
    keys_used_ += bytes;
  }
  std::memcpy(keys_.bytes().data() + offset, key.data(), key.size());
  if (record.state.load(std::memory_order_relaxed) == Record::live) free_key(record);
  record.key_offset = offset;
  record.key_bytes = static_cast<uint32_t>(key.size());
  return true;
}

void Inodes::free_key(Record& record) {
  const unsigned its_class = key_class(record.key_bytes);
  std::memcpy(keys_.bytes().data() + record.key_offset, &free_keys_[its_class], sizeof(uint64_t));
  free_keys_[its_class] = record.key_offset + 1;
}

}  // namespace blobcache::fuse
