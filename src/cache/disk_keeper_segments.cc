// The keeper's jobs on segments. A segment is written once, by the core that asked for it, and leaves as a whole.
//
// Which objects lie in a segment is asked of the index, by a walk over all of it (some 20 ms for a million objects), once
// for a batch of segments; the other way, from header to header through the segment, is thousands of reads.
#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "cache/disk_keeper.h"
#include "cache/disk_verifier.h"

namespace blobcache {

uint64_t DiskKeeper::segment_bytes() const {
  const uint64_t least = std::max<uint64_t>(8 * limits::MiB, 2 * shared_.cache.chunk_bytes);
  return std::clamp<uint64_t>(unit_.space->limit_bytes() / 1024 / limits::MiB * limits::MiB, least, 256 * limits::MiB);
}

void DiskKeeper::add_known_segment(uint32_t number, uint64_t bytes) {
  const uint32_t entry = shared_.segment_entry(unit_.number, number);
  if (unit_.space->bytes_of(entry) != 0 && segment_numbers_[number % shared_.segments_max] != number) return;
  segment_numbers_[number % shared_.segments_max] = number;
  unit_.space->add(entry, segment_hash(unit_.number, number), bytes);
  if (index_.pinned_in_segment(unit_.number, number) == 0) return;
  unit_.space->hold(entry);
  unit_.counters.pinned_segment_bytes.fetch_add(bytes, std::memory_order_relaxed);
}

bool DiskKeeper::is_active(uint32_t number) const {
  return std::ranges::find(active_segments_, number) != active_segments_.end();
}

DiskFile& DiskKeeper::publish_segment(uint32_t number, int fd) {
  auto* file = new DiskFile();
  file->packed = true;
  file->segment = number;
  file->disk = static_cast<uint8_t>(unit_.number);
  file->fd = fd;
  file->references.store(1, std::memory_order_relaxed);
  unit_.files.publish(*file);
  return *file;
}

Result<void> DiskKeeper::run_new_segment(DiskNewSegmentJob& job) {
  if (unit_.health->state() != DiskState::ok) return fail(Code::full);
  uint32_t number = index_.next_segment(unit_.number);
  const uint32_t end = number + shared_.segments_max;
  while (number < end && unit_.space->bytes_of(shared_.segment_entry(unit_.number, number)) != 0) ++number;
  if (number == end || number > INT32_MAX) return fail(Code::full);
  const int root_fd = unit_.directory.root_fd();
  const std::string path = disk_format::segment_path(number);
  unlinkat(root_fd, path.c_str(), 0);  // of no segment that the index knows
  const int fd = openat(root_fd, path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return full_or_io(errno);
  const Result<void> added = index_.add_segment(unit_.number, number);
  if (!added) {
    ::close(fd);
    unlinkat(root_fd, path.c_str(), 0);
    return added;
  }
  job.file = &publish_segment(number, fd);
  active_segments_.push_back(number);
  return {};
}

Result<void> DiskKeeper::add_packed(const DiskPackedItem& item, uint32_t segment) {
  const Result<void> added = index_.add(
      {.id = item.id,
       .size = item.size,
       .place = {.disk = static_cast<uint8_t>(unit_.number), .packed = true, .segment = segment, .page = item.page}});
  if (!added) return added;
  for (uint64_t position = 0; position < disk_format::index_chunks_of(item.size); ++position) {
    const Result<void> valid = index_.add_valid(item.id, position, disk_format::blocks_mask(item.size, position));
    if (valid) continue;
    std::ignore = index_.remove(item.id);
    return valid;
  }
  return {};
}

Result<void> DiskKeeper::run_packed(DiskPackedJob& job) {
  unit_.space->unreserve(job.reserved_bytes);
  const DiskFile& file = *job.file;
  if (file.gone.load(std::memory_order_relaxed)) {
    unit_.on_shed(job.reserved_bytes);
    return fail(Code::not_found);
  }
  uint64_t bytes = 0;
  Result<void> done;
  for (const DiskPackedItem& item : job.items) {
    const uint64_t item_bytes = disk_format::packed_pages(item.size) * limits::page_bytes;
    bytes += item_bytes;  // also of those passed over: it was written
    DiskView view;
    if (index_.find(item.id, 0, &view)) continue;
    if (done) done = add_packed(item, file.segment);
    if (!done) {
      unit_.on_shed(item_bytes);
      continue;
    }
    unit_.verifier->verify_packed_soon({.id = item.id,
                                        .segment = file.segment,
                                        .page = item.page,
                                        .pages = static_cast<uint32_t>(disk_format::packed_pages(item.size))});
  }
  if (bytes != 0) add_known_segment(file.segment, bytes);
  for (const DiskPackedItem& item : job.items) pin_if_awaited(item.id);
  unit_.counters.written_bytes.fetch_add(bytes, std::memory_order_relaxed);
  return done;
}

Result<void> DiskKeeper::run_end_segment(DiskEndSegmentJob& job) {
  DiskFile& file = *job.file;
  std::erase(active_segments_, file.segment);
  if (!file.gone.load(std::memory_order_relaxed)) {
    const Result<disk_format::FileStamp> taken = stamp_of_file(file.fd, shared_.boot);
    if (taken) std::ignore = index_.record_segment_stamp(unit_.number, file.segment, *taken);
    // Nothing was ever written to it.
    const uint32_t entry = shared_.segment_entry(unit_.number, file.segment);
    if (unit_.space->bytes_of(entry) == 0) remove_segments({file.segment});
  }
  unit_.files.release(file);
  return {};
}

Result<DiskFile*> DiskKeeper::open_segment(uint32_t number) {
  if (DiskFile* file = unit_.files.find_segment(number)) return file;
  const std::string path = disk_format::segment_path(number);
  const int fd = openat(unit_.directory.root_fd(), path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    const int os_errno = errno;
    if (os_errno == EIO) unit_.on_read_error(os_errno);
    if (os_errno != ENOENT) return fail(Code::io, os_errno);
    remove_segments({number}, Pinned::lost);
    return fail(Code::not_found);
  }
  const Result<disk_format::FileStamp> stamp = stamp_of_file(fd, shared_.boot);
  std::ignore = index_.confirm_segment(unit_.number, number, stamp ? *stamp : 0);
  return &publish_segment(number, fd);
}

size_t DiskKeeper::remove_segments(std::vector<uint32_t> numbers, Pinned pinned) {
  if (pinned == Pinned::kept)
    std::erase_if(numbers, [&](uint32_t number) { return index_.pinned_in_segment(unit_.number, number) > 0; });
  if (numbers.empty()) return 0;
  std::ranges::sort(numbers);
  std::vector<std::pair<uint32_t, ObjectId>> objects;
  DiskCursor cursor;
  std::vector<DiskEntry> entries;
  while (index_.copy_entries(unit_.number, &cursor, &entries)) {
    for (const DiskEntry& entry : entries) {
      if (!entry.packed || entry.position != 0 || !std::ranges::binary_search(numbers, entry.segment)) continue;
      objects.emplace_back(entry.segment, entry.id);
    }
  }
  size_t removed = 0;
  for (const auto& [segment, id] : objects) {
    DiskView view;
    if (pinned == Pinned::lost && index_.find(id, 0, &view) && view.pinned) lose_pin(id, view);
    std::ignore = index_.remove(id);
  }
  for (const uint32_t number : numbers) {
    if (!index_.remove_segment(unit_.number, number)) continue;  // it is gone already
    ++removed;
    std::erase(active_segments_, number);
    const uint64_t bytes = unit_.space->remove(shared_.segment_entry(unit_.number, number));
    unlinkat(unit_.directory.root_fd(), disk_format::segment_path(number).c_str(), 0);
    if (DiskFile* file = unit_.files.find_segment(number)) {
      retire(*file, bytes);
      unit_.files.release(*file);
    } else {
      unit_.space->settle(bytes);
    }
  }
  return removed;
}

}  // namespace blobcache
