// Why one thread: making, naming, truncating, punching and removing files are system calls without a form in io_uring, or
// with one that blocks a worker; they are rare (once an object, or a chunk); and done one after the other they need no
// locks between them. What cores do with files, reading and writing at known places, goes past it.
//
// The heartbeat (DiskThread::begin_work) is renewed for each job and each piece of the housekeeping, so that a disk that
// hangs is told from a long queue.
#include "cache/disk_keeper.h"

#include <algorithm>
#include <utility>

#include <unistd.h>

#include "base/log.h"
#include "cache/disk_verifier.h"

namespace blobcache {

namespace {

constexpr uint64_t tick_ns = 100'000'000;
// A tick that found nothing to do, with nothing done since: only other users of the filesystem may have changed something.
constexpr uint64_t idle_tick_ns = 5 * DiskHealth::second_ns;
constexpr unsigned jobs_between_ticks = 64;
constexpr uint64_t last_snapshot_records_max = 262'144;  // 16 MiB

}  // namespace

DiskKeeper::DiskKeeper(DiskUnit& unit)
    : unit_(unit),
      shared_(unit.shared),
      index_(unit.shared.index),
      segment_numbers_(std::make_unique_for_overwrite<uint32_t[]>(unit.shared.segments_max)) {}

void DiskKeeper::start() {
  thread_.start([this] { run(); });
}

void DiskKeeper::post(DiskJob& job) {
  {
    const std::lock_guard guard(queue_lock_);
    queue_.push_back(job);
  }
  thread_.wake();
}

void DiskKeeper::ask_drop(const ObjectId& id, uint64_t position, uint64_t blocks, uint64_t drops_seen) {
  {
    const std::lock_guard guard(requests_mutex_);
    requests_.push_back({.drop = true, .id = id, .position = position, .blocks = blocks, .drops_seen = drops_seen});
  }
  thread_.wake();
}

void DiskKeeper::ask_stamp(const ObjectId& id) {
  {
    const std::lock_guard guard(requests_mutex_);
    requests_.push_back({.id = id});
  }
  thread_.wake();
}

DiskJob* DiskKeeper::take_job() {
  const std::lock_guard guard(queue_lock_);
  return queue_.pop_front();
}

void DiskKeeper::run() {
  poster_ = std::make_unique<Poster>();
  uint64_t next_tick_ns = 0;
  while (true) {
    // Read before the queue is looked at: what was posted before the stop is still done.
    const bool last_round = thread_.stopping();
    unsigned jobs = 0;
    DiskJob* job = nullptr;
    while (jobs < jobs_between_ticks && (job = take_job()) != nullptr) {
      thread_.begin_work();
      run_job(*job);
      ++jobs;
    }
    thread_.begin_work();
    const bool worked = run_requests() || jobs > 0 || unit_.journal->pending();
    if (worked) next_tick_ns = std::min(next_tick_ns, steady_now_ns() + tick_ns);
    close_files();
    if (steady_now_ns() >= next_tick_ns || unit_.space->wants_room()) next_tick_ns = tick();
    thread_.end_work();
    if (jobs == jobs_between_ticks) continue;
    if (last_round) break;
    thread_.wait_until(next_tick_ns);
  }
  thread_.begin_work();
  finish();
  thread_.end_work();
  poster_.reset();
}

void DiskKeeper::run_job(DiskJob& job) {
  Result<void> done;
  switch (job.kind) {
    case DiskJob::Kind::open: done = run_open(static_cast<DiskOpenJob&>(job)); break;
    case DiskJob::Kind::create: done = run_create(static_cast<DiskCreateJob&>(job)); break;
    case DiskJob::Kind::written: {
      auto& written = static_cast<DiskWrittenJob&>(job);
      done = run_written(written);
      if (!done) unit_.on_shed(written.reserved_bytes);
      break;
    }
    case DiskJob::Kind::new_segment: done = run_new_segment(static_cast<DiskNewSegmentJob&>(job)); break;
    case DiskJob::Kind::packed: done = run_packed(static_cast<DiskPackedJob&>(job)); break;
    case DiskJob::Kind::end_segment: done = run_end_segment(static_cast<DiskEndSegmentJob&>(job)); break;
    case DiskJob::Kind::drop_blocks: {
      const auto& drop = static_cast<DiskDropJob&>(job);
      done = run_drop(drop.id, drop.position, drop.blocks, drop.drops_seen);
      break;
    }
    case DiskJob::Kind::remove: done = run_remove(static_cast<DiskRemoveJob&>(job)); break;
    case DiskJob::Kind::pin: done = run_pin(static_cast<DiskPinJob&>(job)); break;
    case DiskJob::Kind::unpin: done = run_unpin(static_cast<DiskUnpinJob&>(job)); break;
    case DiskJob::Kind::disarm: done = run_disarm(static_cast<DiskDisarmJob&>(job)); break;
  }
  job.failed = !done;
  if (!done) job.error = done.error();
  answer(job);
}

void DiskKeeper::answer(DiskJob& job) {
  if (job.home == nullptr) {
    job.on_done(job);
  } else if (!thread_.stopping()) {
    poster_->post(*job.home, job);
  }  // else the cores have ended: nobody takes what it brings
}

bool DiskKeeper::run_requests() {
  std::vector<Request> requests;
  {
    const std::lock_guard guard(requests_mutex_);
    requests.swap(requests_);
  }
  for (const Request& request : requests) {
    thread_.begin_work();
    if (request.drop) {
      std::ignore = run_drop(request.id, request.position, request.blocks, request.drops_seen);
    } else if (DiskFile* file = unit_.files.find(request.id)) {
      stamp(*file);
      unit_.files.release(*file);
    }
  }
  return !requests.empty();
}

uint64_t DiskKeeper::tick() {
  const uint64_t now_ns = steady_now_ns();
  if (now_ns >= next_measure_ns_) {
    next_measure_ns_ = now_ns + DiskHealth::second_ns;
    const Result<void> measured = unit_.measure();
    if (!measured) unit_.on_read_error(measured.error().os_errno);
  }
  thread_.begin_work();
  const bool more_to_evict = evict();
  thread_.begin_work();
  keep_journal();
  thread_.begin_work();
  if (unit_.health->state() == DiskState::ok) {
    sweep_orphans();
    thread_.begin_work();
    sweep(now_ns);
  }
  close_files();
  if (more_to_evict || unit_.journal->in_snapshot()) return 0;
  const bool busy = unit_.journal->pending() || sweeping_ || orphans_left() || unit_.space->reserved_bytes() != 0 ||
                    unit_.health->state() != DiskState::ok;
  return busy ? now_ns + tick_ns : std::min(now_ns + idle_tick_ns, next_sweep_ns_);
}

void DiskKeeper::keep_journal() {
  DiskJournal& journal = *unit_.journal;
  if (journal.pending()) {
    const Result<void> flushed = journal.flush();
    if (!flushed) unit_.on_write_error(flushed.error().os_errno);
  }
  if (unit_.health->state() != DiskState::ok) return;
  unit_.keep_spent();
  if (!journal.wants_snapshot() && !journal.in_snapshot()) return;
  const Result<bool> stepped = journal.step_snapshot();
  if (!stepped) unit_.on_write_error(stepped.error().os_errno);
}

// How often things were read is told by snapshots alone. Where one would take long, the last one must do.
void DiskKeeper::write_last_snapshot() {
  if (unit_.health->state() != DiskState::ok) return;
  if (uint64_t{index_.object_count()} + index_.chunk_count() > last_snapshot_records_max) return;
  while (true) {
    thread_.begin_work();
    const Result<bool> more = unit_.journal->step_snapshot();
    if (!more) unit_.on_write_error(more.error().os_errno);
    if (!more || !*more) return;
  }
}

// Stamps, so that marks survive. Files whose writes did not end have none, and are verified again.
void DiskKeeper::finish() {
  for (DiskFile* file : unit_.files.reference_all()) {
    stamp(*file);
    unit_.files.release(*file);
  }
  for (const uint32_t number : std::exchange(active_segments_, {})) {
    DiskFile* file = unit_.files.find_segment(number);
    if (file == nullptr) continue;
    const Result<disk_format::FileStamp> stamp = stamp_of_file(file->fd, shared_.boot);
    if (stamp && file->writing.load(std::memory_order_acquire) == 0)
      std::ignore = index_.record_segment_stamp(unit_.number, number, *stamp);
    unit_.files.release(*file);
  }
  close_files();
  if (orphan_folder_fd_ >= 0) ::close(std::exchange(orphan_folder_fd_, -1));
  unit_.keep_spent();
  write_last_snapshot();
  const Result<void> stopped = unit_.journal->stop();
  if (!stopped) unit_.on_write_error(stopped.error().os_errno);
}

}  // namespace blobcache
