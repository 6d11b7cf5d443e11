// DiskKeeper: the one thread that makes, measures, punches and removes files of a disk and changes what is valid in its index.
//   Owner     DiskUnit.   Thread  post, ask_*, wake: any; the rest is its own
//   Lifetime  start() -> begin_stop() -> join_until(); the verifier of the disk ends before
//   Order     one job after the other; between jobs, each 100 ms while there are some, 5 s else, or when room is wanted: eviction, journal,
//             limits, sweeps
//   Blocks    as long as the disk does; who waits for it must not be a core
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/spinlock.h"
#include "cache/disk_jobs.h"
#include "cache/disk_thread.h"
#include "cache/disk_unit.h"
#include "ring/poster.h"

namespace blobcache {

class DiskKeeper {
 public:
  explicit DiskKeeper(DiskUnit& unit);

  void start();
  void begin_stop() { thread_.begin_stop(); }
  DiskThread& thread() { return thread_; }

  // job.home null: on_done runs on the keeper's thread.
  void post(DiskJob& job);
  void wake() { thread_.wake(); }
  // As a DiskDropJob that nobody waits for.
  void ask_drop(const ObjectId& id, uint64_t position, uint64_t blocks, uint64_t drops_seen);
  uint64_t drops_done() const { return drops_done_.load(std::memory_order_acquire); }
  // The object was verified: its stamp is taken anew if nothing is being written.
  void ask_stamp(const ObjectId& id);
  // Before start(): a segment that the index knows.
  void add_known_segment(uint32_t number, uint64_t bytes);
  void add_known_pin(const DiskEntry& entry);
  uint64_t segment_bytes() const;

 private:
  struct Request {
    bool drop = false;  // else a stamp
    ObjectId id;
    uint64_t position = 0;
    uint64_t blocks = 0;
    uint64_t drops_seen = 0;
  };
  struct Dropped {
    ObjectId id;
    uint64_t position = 0;
    uint64_t blocks = 0;
    uint64_t number = 0;  // 0: none
  };
  struct Punch {
    ObjectId id;
    uint64_t position = 0;
    uint64_t blocks = 0;
    uint64_t bytes = 0;
  };

  void run();
  DiskJob* take_job();
  void run_job(DiskJob& job);
  bool run_requests();  // false: there was none
  void answer(DiskJob& job);
  uint64_t tick();  // when it wants to be called again
  void keep_journal();
  void finish();
  void write_last_snapshot();

  // disk_keeper_jobs.cc
  Result<void> run_open(DiskOpenJob& job);
  Result<void> run_create(DiskCreateJob& job);
  Result<void> run_written(DiskWrittenJob& job);
  Result<void> run_disarm(DiskDisarmJob& job);
  Result<DiskFile*> open_own(const ObjectId& id, uint64_t size);  // with a reference
  Result<int> open_data(const ObjectId& id, uint64_t size);
  Result<void> create_files(const ObjectId& id, uint64_t size, DiskFile* file);
  Result<void> write_checksums(const DiskFile& file, const DiskWrittenJob& job);
  void arm(DiskOpenJob& job);
  void count_full_chunks(DiskFile& file);
  void on_chunk_changed(DiskFile& file, uint64_t position, uint64_t before, uint64_t after);
  void stamp(DiskFile& file);
  Result<void> full_or_io(int os_errno);

  // disk_keeper_segments.cc
  Result<void> run_new_segment(DiskNewSegmentJob& job);
  Result<void> run_packed(DiskPackedJob& job);
  Result<void> add_packed(const DiskPackedItem& item, uint32_t segment);
  Result<void> run_end_segment(DiskEndSegmentJob& job);
  Result<DiskFile*> open_segment(uint32_t number);  // with a reference
  DiskFile& publish_segment(uint32_t number, int fd);
  // With all that lies in them. Kept: but for those that a pinned object lies in. Those that left.
  enum class Pinned : uint8_t { kept, lost };
  size_t remove_segments(std::vector<uint32_t> numbers, Pinned pinned = Pinned::kept);
  bool is_active(uint32_t number) const;

  // disk_keeper_remove.cc
  Result<void> run_drop(const ObjectId& id, uint64_t position, uint64_t blocks, uint64_t drops_seen);
  // Blocks that were dropped since: what was written to their place before may be what was punched.
  uint64_t dropped_since(const ObjectId& id, uint64_t position, uint64_t drops_seen) const;
  Result<void> drop(const ObjectId& id, const DiskView& view, uint64_t position, uint64_t blocks);
  Result<void> run_remove(const DiskRemoveJob& job);
  Result<void> remove_damaged(const ObjectId& id, const DiskView& view);
  Result<void> remove_object(const ObjectId& id, const DiskView& view, uint64_t leaving_bytes);
  void punch(const std::vector<Punch>& punches);
  void punch_file(const Punch& piece, uint64_t object_bytes);
  void retire(DiskFile& file, uint64_t leaving_bytes);
  void close_files();
  bool evict();
  bool try_evict(uint32_t entry, bool desperate, std::vector<Punch>* punches);

  // disk_keeper_pins.cc
  Result<void> run_pin(DiskPinJob& job);
  Result<void> run_unpin(DiskUnpinJob& job);
  uint64_t pinned_bytes() const;
  uint64_t bytes_to_pin(const DiskView& view) const;
  Result<void> pin(const ObjectId& id);
  Result<void> tell_of_pins();
  void unpin(const ObjectId& id, const DiskView& view);
  void lose_pin(const ObjectId& id, const DiskView& view);
  void pin_if_awaited(const ObjectId& id);
  bool await(const ObjectId& id, uint64_t bytes);
  bool stop_awaiting(const ObjectId& id);

  // disk_keeper_sweep.cc
  void sweep(uint64_t now_ns);
  void sweep_expired_segments();
  void sweep_object(const DiskEntry& entry);
  bool is_expired(const std::string& path) const;
  void sweep_orphans();
  bool orphans_left() const { return orphan_folder_ <= disk_format::fan_out || orphan_folder_fd_ >= 0; }
  void open_orphan_folder();
  void sweep_names();
  bool is_orphan(const char* name, bool in_segments);

  DiskUnit& unit_;
  DiskShared& shared_;
  DiskIndex& index_;
  DiskThread thread_;
  std::unique_ptr<Poster> poster_;

  Spinlock queue_lock_;
  List<DiskJob> queue_;
  std::mutex requests_mutex_;
  std::vector<Request> requests_;
  std::atomic<uint64_t> drops_done_{0};

  // Its own.
  std::array<Dropped, 64> dropped_{};            // the last ones
  std::vector<uint32_t> active_segments_;        // being written
  std::unique_ptr<uint32_t[]> segment_numbers_;  // by entry
  uint64_t next_measure_ns_ = 0;
  uint64_t next_sweep_ns_ = 0;
  uint64_t sweep_ttl_ns_ = 0;  // of the sweep that goes on, or was the last
  bool sweeping_ = false;
  DiskCursor sweep_cursor_;
  std::vector<DiskEntry> swept_;
  unsigned orphan_folder_ = 0;  // the next one
  int orphan_folder_fd_ = -1;   // of the one before, while it is looked through
  uint64_t orphans_removed_ = 0;
  struct IdHash {
    size_t operator()(const ObjectId& id) const { return id.hash(); }
  };
  std::unordered_map<ObjectId, uint64_t, IdHash> awaited_;  // to be pinned, and what they count with
  uint64_t awaited_bytes_ = 0;
};

// Runs the job on the keeper and waits for it. Not for cores, nor for the keeper.
template <class Job>
struct WaitedDiskJob : Job {
  std::mutex mutex;
  std::condition_variable done_condition;
  bool done = false;

  void run_on(DiskKeeper& keeper) {
    this->on_done = [](DiskJob& job) {
      auto& self = static_cast<WaitedDiskJob&>(job);
      const std::lock_guard guard(self.mutex);
      self.done = true;
      self.done_condition.notify_all();
    };
    keeper.post(*this);
    std::unique_lock guard(mutex);
    done_condition.wait(guard, [this] { return done; });
  }
};

}  // namespace blobcache
