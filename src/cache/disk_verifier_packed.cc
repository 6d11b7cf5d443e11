// Packed objects are verified soon after they were written, neighbours by one read:
//
//   the keeper tells them in the order of the segment --> a run of adjacent ones, 1 MiB at most --> one read --> each is checked
//
// Otherwise the first epoch that reads them from disk pays: a read of the header page beside the one of the data, a frame and
// a copy, 28 us more of two processors for a file of 60 KB. Here it is a sixteenth of a read and the checksum.
#include <algorithm>
#include <array>
#include <cerrno>

#include "base/log.h"
#include "cache/disk_verifier.h"

namespace blobcache {

void DiskVerifier::verify_packed_soon(const Packed& packed) {
  {
    const std::lock_guard guard(lock_);
    if (!packed_.push(packed)) return;
  }
  thread_.wake();
}

bool DiskVerifier::take_packed() {
  const std::lock_guard guard(lock_);
  run_count_ = 0;
  size_t bytes = 0;
  while (run_count_ < run_max) {
    const Packed* front = packed_.front();
    if (front == nullptr) break;
    const Packed& next = *front;
    bytes += next.pages * limits::page_bytes;
    const bool adjacent = run_count_ == 0 || (next.segment == run_[0].segment &&
                                              next.page == run_[run_count_ - 1].page + run_[run_count_ - 1].pages);
    if (!adjacent || (run_count_ > 0 && bytes > buffer_bytes)) break;
    run_[run_count_++] = next;
    packed_.pop();
  }
  return run_count_ > 0;
}

// With a reference. An object that has left meanwhile, or was packed again elsewhere, opens nothing or another one. Null: all
// of the run has left.
DiskFile* DiskVerifier::open_segment() {
  DiskFile* file = unit_.files.find_segment(run_[0].segment);
  for (unsigned i = 0; file == nullptr && i < run_count_; ++i) {
    file = open(run_[i].id);
    if (file == nullptr || (file->packed && file->segment == run_[0].segment)) continue;
    unit_.files.release(*file);
    file = nullptr;
  }
  return file;
}

void DiskVerifier::verify_packed() {
  const Packed& first = run_[0];
  const Packed& last = run_[run_count_ - 1];
  const size_t bytes = (last.page + last.pages - first.page) * limits::page_bytes;
  if (bytes > buffer_bytes) return verify_object(first.id);  // it is alone
  DiskFile* file = open_segment();
  if (file == nullptr) return;
  const unsigned phase = shared_.reads->enter(DiskReads::verifier_line, unit_.number);
  thread_.begin_work();
  const ssize_t got = read_at(file->fd, buffer_.get(), bytes, uint64_t{first.page} * limits::page_bytes);
  const int os_errno = errno;
  thread_.end_work();
  std::array<uint64_t, run_max> bad{};
  for (unsigned i = 0; got > 0 && i < run_count_; ++i) {
    const size_t in_buffer = (run_[i].page - first.page) * limits::page_bytes;
    bad[i] = check_packed(*file, run_[i], in_buffer, static_cast<size_t>(got));
  }
  const uint64_t drops_seen = unit_.keeper->drops_done();
  shared_.reads->leave(DiskReads::verifier_line, unit_.number, phase);
  if (got < 0) unit_.on_read_error(os_errno);
  for (unsigned i = 0; i < run_count_; ++i) {
    if (bad[i] == 0) continue;
    BC_LOG(warn, "{}: object {} in segment {} is not what was written: dropped", unit_.directory.path(),
           to_hex(run_[i].id), run_[i].segment);
    unit_.keeper->ask_drop(run_[i].id, 0, bad[i], drops_seen);
  }
  unit_.files.release(*file);
}

// While the read counts in DiskReads. Nothing is wrong with an object that has left, or lies elsewhere by now.
uint64_t DiskVerifier::check_packed(const DiskFile& file, const Packed& packed, size_t in_buffer, size_t bytes_read) {
  DiskView view;
  const auto is_there = [&] {
    return index_.find(packed.id, 0, &view) && !file.gone.load(std::memory_order_seq_cst) &&
           leads_to(view, packed.id, file) && view.place.page == packed.page;
  };
  if (!is_there() || view.valid != disk_format::blocks_mask(view.size, 0) || in_buffer >= bytes_read) return 0;
  if (view.verified == view.valid) return 0;
  const size_t data_at = in_buffer + limits::page_bytes;
  const size_t data_end = std::min(in_buffer + packed.pages * limits::page_bytes, bytes_read);
  const BlockCheckResult result = check_blocks({.id = packed.id,
                                                .object_bytes = view.size,
                                                .place = view.place,
                                                .position = 0,
                                                .page = buffer_.get() + in_buffer,
                                                .blocks = view.valid,
                                                .bytes = buffer_.get() + data_at,
                                                .bytes_read = data_end > data_at ? data_end - data_at : 0});
  if (!is_there()) return 0;  // it may lie in another segment meanwhile
  const uint64_t good = result.matching & ~view.verified;
  if (good != 0) std::ignore = index_.mark_verified(packed.id, 0, good);
  return view.valid & ~result.matching;
}

}  // namespace blobcache
