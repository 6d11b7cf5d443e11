// A chunk is verified under one DiskReads phase: the index is asked, up to 4 MiB are read in pieces of 1 MiB past the page
// cache, compared, and marked. The keeper waits for the phase before it punches, some milliseconds at most.
//
// A sidecar page is rewritten while it is read: the kernel gives no promise that the copy is of one moment. A page that does
// not match is read again a few times before its blocks are called damaged.
#include "cache/disk_verifier.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "base/log.h"

namespace blobcache {

using disk_format::index_chunks_of;

namespace {

constexpr uint64_t unwell_wait_ns = DiskHealth::second_ns / 4;
constexpr unsigned page_reads_max = 3;

}  // namespace

ssize_t DiskVerifier::read_at(int fd, std::byte* memory, size_t bytes, uint64_t offset) {
  ssize_t count = 0;
  do {
    count = pread(fd, memory, bytes, static_cast<off_t>(offset));
  } while (count < 0 && errno == EINTR);
  return count;
}

DiskVerifier::DiskVerifier(DiskUnit& unit)
    : unit_(unit),
      shared_(unit.shared),
      index_(unit.shared.index),
      buffer_(static_cast<std::byte*>(std::aligned_alloc(limits::page_bytes, buffer_bytes + limits::page_bytes))),
      page_(buffer_.get() + buffer_bytes) {
  BC_ASSERT(buffer_ != nullptr);
}

void DiskVerifier::start() {
  thread_.start([this] { run(); });
}

void DiskVerifier::verify_soon(const ObjectId& id) {
  {
    const std::lock_guard guard(lock_);
    if (!queue_.push(id)) return;
  }
  thread_.wake();
}

bool DiskVerifier::take(ObjectId* id_out) {
  const std::lock_guard guard(lock_);
  const ObjectId* next = queue_.front();
  if (next == nullptr) return false;
  *id_out = *next;
  queue_.pop();
  return true;
}

void DiskVerifier::run() {
  next_scrub_ns_ = steady_now_ns() + shared_.scrub_delay_ns;
  while (!thread_.stopping()) {
    const uint64_t now_ns = steady_now_ns();
    ObjectId id;
    if (unit_.health->state() != DiskState::ok) {
      if (unit_.health->wants_probe(now_ns)) probe();
    } else if (take(&id)) {
      verify_object(id);
      continue;
    } else if (take_packed()) {
      verify_packed();
      continue;
    } else if (now_ns >= next_scrub_ns_) {
      scrub();
    }
    thread_.wait_until(unit_.health->state() == DiskState::ok ? next_scrub_ns_ : steady_now_ns() + unwell_wait_ns);
  }
}

DiskFile* DiskVerifier::open(const ObjectId& id) {
  WaitedDiskJob<DiskOpenJob> job;
  job.id = id;
  job.disk = static_cast<uint8_t>(unit_.number);
  job.run_on(*unit_.keeper);
  return job.failed ? nullptr : job.file;
}

void DiskVerifier::verify_object(const ObjectId& id) {
  DiskView view;
  if (!index_.find(id, 0, &view) || view.place.disk != unit_.number || view.whole_verified) return;
  DiskFile* file = open(id);
  if (file == nullptr) return;
  bool going = true;
  for (uint64_t position = 0; going && position < index_chunks_of(view.size) && !thread_.stopping(); ++position) {
    uint64_t bytes = 0;
    going = verify_chunk(*file, id, position, Which::unverified, &bytes);
  }
  if (index_.find(id, 0, &view) && view.whole_verified) unit_.keeper->ask_stamp(id);
  unit_.files.release(*file);
}

bool DiskVerifier::read_page(const DiskFile& file, const BlockCheck& check) {
  const ChecksumPlace at = checksum_place(file, check.place, check.position);
  for (unsigned reads = 0; reads < page_reads_max; ++reads) {
    if (read_at(at.fd, page_, limits::page_bytes, at.offset) != static_cast<ssize_t>(limits::page_bytes)) return false;
    if (checksums_in(check) != nullptr) return true;
  }
  return false;
}

bool DiskVerifier::check_run(const DiskFile& file, BlockCheck check, uint64_t* good_out, uint64_t* bad_out) {
  const auto first = static_cast<unsigned>(std::countr_zero(check.blocks));
  const uint64_t in_object = check.position * disk_format::index_chunk_bytes + first * limits::block_bytes;
  const uint64_t bytes = std::min<uint64_t>(static_cast<unsigned>(std::popcount(check.blocks)) * limits::block_bytes,
                                            check.object_bytes - in_object);
  const uint64_t base = file.packed ? (uint64_t{check.place.page} + 1) * limits::page_bytes : 0;
  thread_.begin_work();
  const ssize_t got = read_at(file.fd, buffer_.get(), disk_format::round_up_to_page(bytes), base + in_object);
  const int os_errno = errno;
  thread_.end_work();
  if (got < 0) {
    unit_.on_read_error(os_errno);
    // A filesystem that is read-only refuses what it would have to write back first; the blocks are there.
    if (os_errno != EROFS) *bad_out |= check.blocks;
    return false;
  }
  check.bytes = buffer_.get();
  check.bytes_read = static_cast<uint64_t>(got);
  const uint64_t matching = check_blocks(check).matching;
  *good_out |= matching;
  *bad_out |= check.blocks & ~matching;
  return true;
}

bool DiskVerifier::verify_chunk(DiskFile& file, const ObjectId& id, uint64_t position, Which which,
                                uint64_t* bytes_out) {
  const unsigned phase = shared_.reads->enter(DiskReads::verifier_line, unit_.number);
  DiskView view;
  uint64_t wanted = 0;
  const bool same =
      index_.find(id, position, &view) && !file.gone.load(std::memory_order_seq_cst) && leads_to(view, id, file);
  if (same) wanted = which == Which::all ? view.valid : view.valid & ~view.verified;
  uint64_t good = 0;
  uint64_t bad = 0;
  bool readable = true;
  BlockCheck check{.id = id, .object_bytes = view.size, .place = view.place, .position = position, .page = page_};
  if (wanted != 0 && !read_page(file, check)) {
    bad = wanted;
    wanted = 0;
  }
  *bytes_out = static_cast<uint64_t>(std::popcount(wanted)) * limits::block_bytes;
  while (wanted != 0 && readable) {
    const auto first = static_cast<unsigned>(std::countr_zero(wanted));
    const auto run = std::min(static_cast<unsigned>(std::countr_one(wanted >> first)),
                              static_cast<unsigned>(buffer_bytes / limits::block_bytes));
    check.blocks = (((uint64_t{1} << (run - 1)) << 1) - 1) << first;
    readable = check_run(file, check, &good, &bad);
    wanted &= ~check.blocks;
  }
  const bool still = !file.gone.load(std::memory_order_seq_cst);
  if (still && good != 0) std::ignore = index_.mark_verified(id, position, good);
  const uint64_t drops_seen = unit_.keeper->drops_done();
  shared_.reads->leave(DiskReads::verifier_line, unit_.number, phase);
  if (still && bad != 0) {
    BC_LOG(warn, "{}: {} blocks of chunk {} of object {} are not what was written: dropped", unit_.directory.path(),
           std::popcount(bad), position, to_hex(id));
    unit_.keeper->ask_drop(id, position, bad, drops_seen);
  }
  return readable && still;
}

// One chunk, and then a pause as long as its bytes take at the scrubber's rate.
void DiskVerifier::scrub() {
  if (next_entry_ == entries_.size()) {
    next_entry_ = 0;
    if (!index_.copy_entries(unit_.number, &cursor_, &entries_)) {
      cursor_ = {};
      next_scrub_ns_ = steady_now_ns() + shared_.scrub_pause_ns;
      return;
    }
  }
  const DiskEntry entry = entries_[next_entry_++];
  uint64_t bytes = 0;
  if (entry.valid != 0) {
    if (DiskFile* file = open(entry.id)) {
      verify_chunk(*file, entry.id, entry.position, Which::all, &bytes);
      unit_.files.release(*file);
    }
  }
  unit_.counters.scrubbed_bytes.fetch_add(bytes, std::memory_order_relaxed);
  next_scrub_ns_ = steady_now_ns() + bytes * DiskHealth::second_ns / shared_.scrub_bytes_per_s;
}

// 0, or errno.
int DiskVerifier::try_probe() {
  constexpr const char* name = "probe.health";
  const int fd =
      openat(unit_.directory.index_fd(), name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_DIRECT, 0600);
  if (fd < 0) return errno;
  std::byte* written = buffer_.get();
  std::byte* read_back = buffer_.get() + limits::page_bytes;
  std::memset(written, 0xa5, limits::page_bytes);
  std::memset(read_back, 0, limits::page_bytes);
  int os_errno = 0;
  if (pwrite(fd, written, limits::page_bytes, 0) != static_cast<ssize_t>(limits::page_bytes))
    os_errno = errno == 0 ? EIO : errno;
  else if (read_at(fd, read_back, limits::page_bytes, 0) != static_cast<ssize_t>(limits::page_bytes))
    os_errno = errno == 0 ? EIO : errno;
  else if (std::memcmp(written, read_back, limits::page_bytes) != 0)
    os_errno = EIO;
  ::close(fd);
  if (unlinkat(unit_.directory.index_fd(), name, 0) != 0 && os_errno == 0) os_errno = errno;
  return os_errno;
}

void DiskVerifier::probe() {
  thread_.begin_work();
  errno = 0;
  const uint64_t begin_ns = steady_now_ns();
  const int os_errno = try_probe();
  thread_.end_work();
  const uint64_t now_ns = steady_now_ns();
  unit_.health->on_probe(os_errno == 0 && now_ns - begin_ns < DiskHealth::probe_max_ns, os_errno, now_ns);
}

}  // namespace blobcache
