#include "cache/disk_files.h"

#include <mutex>

#include <unistd.h>

namespace blobcache {

using Guard = std::lock_guard<Spinlock>;

DiskFiles::~DiskFiles() {
  for (uint32_t bucket = 0; bucket < bucket_count; ++bucket) {
    while (DiskFile* file = buckets_[bucket]) retire(*file);
  }
  while (DiskFile* file = held_.pop_front()) closing_.push_back(*file);
  while (DiskFile* file = take_closing()) {
    if (file->fd >= 0) ::close(file->fd);
    if (file->sums_fd >= 0) ::close(file->sums_fd);
    delete file;
  }
}

void DiskFiles::refer_locked(DiskFile& file) {
  if (file.references.fetch_add(1, std::memory_order_relaxed) > 0) return;
  file.unlink();
  --unused_count_;
}

DiskFile* DiskFiles::find_key(uint64_t key, bool packed, const ObjectId& id) {
  const Guard guard(lock_);
  DiskFile* file = buckets_[bucket_of(key)];
  const auto is_it = [&](const DiskFile& f) { return f.packed == packed && (packed ? f.segment == key : f.id == id); };
  while (file != nullptr && !is_it(*file)) file = file->chain;
  if (file != nullptr) refer_locked(*file);
  return file;
}

void DiskFiles::release(DiskFile& file) {
  uint32_t references = file.references.load(std::memory_order_relaxed);
  while (references > 1) {
    if (file.references.compare_exchange_weak(references, references - 1, std::memory_order_release)) return;
  }
  const Guard guard(lock_);
  if (file.references.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  if (!file.found) {
    file.unlink();
    closing_.push_back(file);
    return;
  }
  unused_.push_back(file);
  if (++unused_count_ <= unused_max_) return;
  DiskFile* oldest = unused_.pop_front();
  --unused_count_;
  unchain_locked(*oldest);
  closing_.push_back(*oldest);
}

void DiskFiles::publish(DiskFile& file) {
  BC_ASSERT(file.references.load(std::memory_order_relaxed) == 1 && !file.found);
  const Guard guard(lock_);
  DiskFile*& head = buckets_[bucket_of(key_of(file))];
  file.chain = head;
  file.found = true;
  head = &file;
  ++file_count_;
}

void DiskFiles::unchain_locked(DiskFile& file) {
  DiskFile** link = &buckets_[bucket_of(key_of(file))];
  while (*link != &file) {
    BC_ASSERT(*link != nullptr);
    link = &(*link)->chain;
  }
  *link = file.chain;
  file.chain = nullptr;
  file.found = false;
  --file_count_;
}

void DiskFiles::retire(DiskFile& file) {
  const Guard guard(lock_);
  if (!file.found) return;
  unchain_locked(file);
  if (file.references.load(std::memory_order_acquire) > 0) {
    held_.push_back(file);
    return;
  }
  file.unlink();
  --unused_count_;
  closing_.push_back(file);
}

DiskFile* DiskFiles::take_closing() {
  const Guard guard(lock_);
  return closing_.pop_front();
}

std::vector<DiskFile*> DiskFiles::reference_all() {
  std::vector<DiskFile*> files;
  for (uint32_t room = 0;; room = file_count_) {
    files.reserve(room + 16);  // not under the lock
    const Guard guard(lock_);
    if (file_count_ > files.capacity()) continue;
    for (uint32_t bucket = 0; bucket < bucket_count; ++bucket) {
      for (DiskFile* file = buckets_[bucket]; file != nullptr; file = file->chain) {
        refer_locked(*file);
        files.push_back(file);
      }
    }
    return files;
  }
}

}  // namespace blobcache
