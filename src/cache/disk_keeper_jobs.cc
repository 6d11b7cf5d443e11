// The keeper's jobs on objects with a file of their own.
//
// Creating: index, then files; a crash between leaves an object whose file is not there, which the first open finds out.
// The other way round a file would be left that only a sweep finds.
//
// Written: sidecar, tail, index. What is in the index has its checksum on disk as far as this process knows; what a power
// cut takes of the sidecar shows as a page that does not match, and its blocks as damaged.
//
// Whole: the stamp is recorded when the last block came and nothing is being written; verifying is the verifier's.
#include <bit>
#include <cerrno>
#include <tuple>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "cache/disk_keeper.h"
#include "cache/disk_verifier.h"

namespace blobcache {

using disk_format::blocks_mask;
using disk_format::index_chunks_of;

namespace {

// Cuts a tail that was written in whole pages: who reads the file past us would read what lies behind the object's end.
// found_out: the file's size before. False: it is of another size, or no file that holds data.
bool cut_tail(int fd, uint64_t size, uint64_t* found_out) {
  struct stat status;
  *found_out = 0;
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return false;
  *found_out = static_cast<uint64_t>(status.st_size);
  if (*found_out == size) return true;
  return *found_out == disk_format::round_up_to_page(size) && ftruncate(fd, static_cast<off_t>(size)) == 0;
}

// After a block was written that the index had already (two loads of one block).
bool cut_tail(const DiskFile& file) {
  uint64_t found = 0;
  return cut_tail(file.fd, file.object_bytes, &found);
}

void close_fds(const DiskFile& file) {
  if (file.fd >= 0) ::close(file.fd);
  if (file.sums_fd >= 0) ::close(file.sums_fd);
}

// A filesystem that has become read-only is still read.
int open_file(int root_fd, const char* path, int flags) {
  int fd = openat(root_fd, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags);
  if (fd < 0 && errno == EROFS) fd = openat(root_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | flags);
  return fd;
}

}  // namespace

Result<void> DiskKeeper::full_or_io(int os_errno) {
  unit_.on_write_error(os_errno);
  if (os_errno == ENOSPC || os_errno == EDQUOT) next_measure_ns_ = 0;
  return fail(os_errno == ENOSPC || os_errno == EDQUOT ? Code::full : Code::io, os_errno);
}

Result<void> DiskKeeper::run_open(DiskOpenJob& job) {
  DiskView view;
  if (!index_.find(job.id, 0, &view) || view.place.disk != unit_.number) return fail(Code::not_found);
  if (unit_.health->state() == DiskState::down) return fail(Code::io);
  Result<DiskFile*> file = view.place.packed ? open_segment(view.place.segment) : open_own(job.id, view.size);
  if (!file) return std::unexpected(file.error());
  job.file = *file;
  if (view.place.packed) return {};
  // Now that the stamp was compared, the marks say what they are worth.
  if (index_.find(job.id, 0, &view) && view.whole && !view.whole_verified) unit_.verifier->verify_soon(job.id);
  arm(job);
  return {};
}

// Between the check and the ioctl nothing can be dropped: that is this thread's work. Verified blocks do not change by
// others, and who begins a write looks at `armed`.
void DiskKeeper::arm(DiskOpenJob& job) {
  DiskView view;
  DiskFile& file = *job.file;
  if (job.open_backing == nullptr) return;
  file.armed.fetch_add(1, std::memory_order_seq_cst);
  const bool may_arm = index_.find(job.id, 0, &view) && view.whole_verified && !unit_.directory.stacked() &&
                       shared_.cache.verify == Verify::first && file.writing.load(std::memory_order_seq_cst) == 0 &&
                       cut_tail(file);
  if (may_arm) job.backing_id = job.open_backing(job.connection_fd, file.fd);
  if (job.backing_id <= 0) file.armed.fetch_sub(1, std::memory_order_seq_cst);
}

Result<void> DiskKeeper::run_disarm(DiskDisarmJob& job) {
  if (job.close_backing != nullptr) job.close_backing(job.connection_fd, job.backing_id);
  BC_ASSERT(job.file->armed.fetch_sub(1, std::memory_order_seq_cst) > 0);
  unit_.files.release(*job.file);
  return {};
}

// The object's data, of the right size. Errors: not_found (missing or damaged: the object is of no use), io.
Result<int> DiskKeeper::open_data(const ObjectId& id, uint64_t size) {
  const int fd = open_file(unit_.directory.root_fd(), disk_format::object_path(id).c_str(), O_DIRECT);
  if (fd < 0) {
    if (errno == ENOENT || errno == ELOOP) return fail(Code::not_found, errno);
    const int os_errno = errno;
    if (os_errno == EIO) unit_.on_read_error(os_errno);
    return fail(Code::io, os_errno);
  }
  uint64_t found = 0;
  if (cut_tail(fd, size, &found)) return fd;  // uncut when the process ended behind the write
  ::close(fd);
  BC_LOG(warn, "cached object {} has {} bytes on disk, not {}: removed", to_hex(id), found, size);
  return fail(Code::not_found);
}

Result<DiskFile*> DiskKeeper::open_own(const ObjectId& id, uint64_t size) {
  if (DiskFile* file = unit_.files.find(id)) return file;
  const Result<int> fd = open_data(id, size);
  int sums_fd = -1;
  Error error = fd ? Error{Code::not_found} : fd.error();
  if (fd) {
    sums_fd = open_file(unit_.directory.root_fd(), disk_format::sidecar_path(id).c_str(), 0);
    if (sums_fd < 0 && errno != ENOENT) error = {Code::io, errno};
  }
  if (!fd || sums_fd < 0) {
    if (fd) ::close(*fd);
    if (error.code != Code::not_found) return std::unexpected(error);
    DiskView view;
    if (index_.find(id, 0, &view)) std::ignore = remove_damaged(id, view);
    return fail(Code::not_found);
  }
  const Result<disk_format::FileStamp> stamp = stamp_of_file(*fd, shared_.boot);
  const Result<bool> confirmed = index_.confirm(id, stamp ? *stamp : 0);
  auto* file = new DiskFile();
  file->id = id;
  file->object_bytes = size;
  file->disk = static_cast<uint8_t>(unit_.number);
  file->fd = *fd;
  file->sums_fd = sums_fd;
  file->dirty = confirmed && !*confirmed;  // a new stamp, once there are marks again
  file->references.store(1, std::memory_order_relaxed);
  unit_.files.publish(*file);
  return file;
}

Result<void> DiskKeeper::run_create(DiskCreateJob& job) {
  DiskView view;
  if (index_.find(job.id, 0, &view)) {
    if (view.place.packed || view.place.disk != unit_.number || view.size != job.object_bytes)
      return fail(Code::invalid);
    Result<DiskFile*> file = open_own(job.id, view.size);
    if (file) job.file = *file;
    if (file) return {};
    if (file.error().code != Code::not_found) return std::unexpected(file.error());
  }
  if (unit_.health->state() != DiskState::ok) return fail(Code::full);
  const Result<void> added =
      index_.add({.id = job.id, .size = job.object_bytes, .place = {.disk = static_cast<uint8_t>(unit_.number)}});
  if (!added) return added;
  auto file = std::make_unique<DiskFile>();
  const Result<void> created = create_files(job.id, job.object_bytes, file.get());
  if (!created) {
    close_fds(*file);
    unlinkat(unit_.directory.root_fd(), disk_format::object_path(job.id).c_str(), 0);
    unlinkat(unit_.directory.root_fd(), disk_format::sidecar_path(job.id).c_str(), 0);
    std::ignore = index_.remove(job.id);
    return created;
  }
  file->id = job.id;
  file->object_bytes = job.object_bytes;
  file->disk = static_cast<uint8_t>(unit_.number);
  file->counted = true;
  file->references.store(1, std::memory_order_relaxed);
  job.file = file.release();
  unit_.files.publish(*job.file);
  pin_if_awaited(job.id);
  return {};
}

Result<void> DiskKeeper::create_files(const ObjectId& id, uint64_t size, DiskFile* file) {
  const int root_fd = unit_.directory.root_fd();
  const std::string data = disk_format::object_path(id);
  const std::string sums = disk_format::sidecar_path(id);
  // What lies there is of no object that the index knows.
  unlinkat(root_fd, data.c_str(), 0);
  unlinkat(root_fd, sums.c_str(), 0);
  constexpr int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
  file->fd = openat(root_fd, data.c_str(), flags | O_DIRECT, 0600);
  if (file->fd < 0 || ftruncate(file->fd, static_cast<off_t>(size)) != 0) return full_or_io(errno);
  file->sums_fd = openat(root_fd, sums.c_str(), flags, 0600);
  if (file->sums_fd < 0) return full_or_io(errno);
  return {};
}

Result<void> DiskKeeper::write_checksums(const DiskFile& file, const DiskWrittenJob& job) {
  const uint64_t page_index = job.position / disk_format::sidecar_chunks_per_page;
  const uint64_t first = job.position % disk_format::sidecar_chunks_per_page * limits::blocks_per_chunk_frame;
  const auto offset = static_cast<off_t>(page_index * sizeof(disk_format::SidecarPage));
  disk_format::SidecarPage page;
  const ssize_t count = pread(file.sums_fd, &page, sizeof page, offset);
  if (count < 0) return fail(Code::io, errno);
  // None yet, or damaged: then the checksums of other blocks on it are lost, and those blocks with them.
  if (count != sizeof page || !check(page, file.id, page_index)) page = {};
  for (uint64_t left = job.blocks; left != 0; left &= left - 1) {
    const auto block = static_cast<unsigned>(std::countr_zero(left));
    page.block_checksums[first + block] = job.checksums[block];
  }
  seal(page, file.id, page_index);
  return write_all(file.sums_fd, std::as_bytes(std::span(&page, 1)), static_cast<uint64_t>(offset));
}

Result<void> DiskKeeper::run_written(DiskWrittenJob& job) {
  unit_.space->unreserve(job.reserved_bytes);
  DiskFile& file = *job.file;
  DiskView view;
  if (file.gone.load(std::memory_order_relaxed) || !index_.find(file.id, job.position, &view))
    return fail(Code::not_found);
  const uint64_t added = job.blocks & ~view.valid & ~dropped_since(file.id, job.position, job.drops_seen);
  if (added == 0) {
    std::ignore = cut_tail(file);
    return {};
  }
  const uint64_t mask = blocks_mask(file.object_bytes, job.position);
  if ((job.blocks & ~mask) != 0 || job.position >= index_chunks_of(file.object_bytes)) return fail(Code::invalid);
  const Result<void> summed = write_checksums(file, job);
  if (!summed) return full_or_io(summed.error().os_errno);
  const bool has_tail = job.position + 1 == index_chunks_of(file.object_bytes) && (job.blocks & ~(mask >> 1)) != 0;
  if (has_tail && file.object_bytes % limits::page_bytes != 0 &&
      ftruncate(file.fd, static_cast<off_t>(file.object_bytes)) != 0)
    return full_or_io(errno);
  count_full_chunks(file);
  const Result<void> made_valid = index_.add_valid(file.id, job.position, added);
  if (!made_valid) return made_valid;
  const uint64_t bytes = disk_format::bytes_of_blocks(file.object_bytes, job.position, added);
  BC_ASSERT(index_.find(file.id, job.position, &view));
  unit_.space->add(view.entry, chunk_hash(file.id, job.position), bytes);
  if (view.pinned) unit_.space->hold(view.entry);
  unit_.counters.written_bytes.fetch_add(bytes, std::memory_order_relaxed);
  on_chunk_changed(file, job.position, view.valid & ~added, view.valid);
  file.dirty = true;
  if (file.chunks_full == index_chunks_of(file.object_bytes)) {
    stamp(file);
    unit_.verifier->verify_soon(file.id);
  }
  return {};
}

void DiskKeeper::count_full_chunks(DiskFile& file) {
  if (file.counted) return;
  file.counted = true;
  file.chunks_full = 0;
  DiskView view;
  for (uint64_t position = 0; position < index_chunks_of(file.object_bytes); ++position) {
    if (index_.find(file.id, position, &view) && view.valid == blocks_mask(file.object_bytes, position))
      ++file.chunks_full;
  }
}

void DiskKeeper::on_chunk_changed(DiskFile& file, uint64_t position, uint64_t before, uint64_t after) {
  if (!file.counted) return;
  const uint64_t mask = blocks_mask(file.object_bytes, position);
  if (before == mask && after != mask) --file.chunks_full;
  if (before != mask && after == mask) ++file.chunks_full;
}

void DiskKeeper::stamp(DiskFile& file) {
  if (file.packed || !file.dirty || file.gone.load(std::memory_order_relaxed)) return;
  if (file.writing.load(std::memory_order_acquire) != 0) return;
  const Result<disk_format::FileStamp> taken = stamp_of_file(file.fd, shared_.boot);
  if (!taken) return;
  count_full_chunks(file);
  const bool whole = file.chunks_full == index_chunks_of(file.object_bytes);
  if (index_.record_stamp(file.id, *taken, whole)) file.dirty = false;
}

void DiskKeeper::close_files() {
  while (DiskFile* file = unit_.files.take_closing()) {
    stamp(*file);
    close_fds(*file);
    unit_.space->settle_kept(file->kept_bytes);
    delete file;
  }
}

}  // namespace blobcache
