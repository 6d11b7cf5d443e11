// VolumeServer: one volume on one core: its requests, and the flows that answer them.
//   Owner     a Core (node/).   Thread  the core's
//   Lifetime  start() -> on_closed of its transports and the last task -> idle() -> destroyed
//   Flows     dispatch.cc opcode -> handler; read.cc the read path, disk_read.cc its disk hits; fill.cc loads, disk_load.cc
//             those from disk; open.cc open and release; meta.cc lookup, attributes; directory.cc listings; xattr.cc
//   Limits    as many requests as the transport has slots; loads_max fills in flight; calls_max of each metadata call;
//             armings_max opens that wait for a backing file
//   Jobs      of the disk tier are answered by message, so the tier is stopped before this is destroyed
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/pool.h"
#include "cache/disk_writer.h"
#include "fuse/transport.h"
#include "ring/reactor.h"
#include "serve/counters.h"
#include "serve/disk_range.h"
#include "serve/prefetch.h"
#include "serve/reply.h"
#include "serve/request.h"
#include "serve/volume.h"

namespace blobcache::serve {

// A call to the origin that outlives the request that asked for it: an interrupted request lets go, the call ends alone.
template <class Call>
struct Pending : Call {
  uint64_t handle_id = 0;  // ListCall only: the handle that it lists for
  VolumeServer* server = nullptr;
  Request* request = nullptr;  // null: nobody waits any more
  bool done = false;
};

struct alignas(limits::page_bytes) ChecksumPage {
  std::byte bytes[limits::page_bytes];
};

// Blocks of one frame on their way from the disk or the origin, in one run of adjacent blocks after the other.
struct Load : ListNode {
  struct LoadCall : ReadCall {
    Load* load = nullptr;
  } call;
  VolumeServer* server = nullptr;
  Request* request = nullptr;  // that began it, and waits while its trail's id is request_id; null: prefetch
  uint64_t request_id = 0;
  Handle* handle = nullptr;
  Frame* frame = nullptr;
  uint64_t frame_offset = 0;   // in the object
  uint64_t blocks_left = 0;    // not in the frame yet
  uint64_t blocks_in_run = 0;  // of them when the run began
  bool from_disk = false;      // the run
  bool prefetch = false;       // nobody asked for it yet
  bool chained = false;        // the read of the run may be canceled by the failure of another
  uint32_t bytes = 0;          // of all blocks it began with
  // The load of the next frame, whose bytes come by the same request of the origin (fill.cc). Null: none does.
  Load* joined = nullptr;
  ReadPiece pieces[Plan::spans_max];  // of that request

  // Runs from disk (disk_load.cc). Bits of the frame become bits of the index's chunk by a shift.
  struct Read : Op {
    Load* load = nullptr;
    int32_t result = 0;
  };
  struct OpenJob : DiskOpenJob {
    Load* load = nullptr;
  } open_job;
  struct RemoveJob : DiskRemoveJob {
    Load* load = nullptr;
  } remove_job;
  Read data;
  Read sums;
  ChecksumPage* page = nullptr;  // null: every block of the run is verified already
  unsigned page_reads = 0;
  uint64_t run_since_ns = 0;
  bool past_disk = false;    // the disk is not asked
  bool abandoned = false;    // its readers went elsewhere (disk_patience.cc)
  DiskFile* file = nullptr;  // with a reference
  DiskView view;             // of the run, asked for between enter and leave
  uint8_t phase = 0;
  bool open_tried = false;
  uint64_t blocks_tried = 0;  // on disk, in vain
  uint64_t drops_seen = 0;    // DiskTier::drops_done(), at the end of its last read

  uint64_t position() const { return frame_offset / limits::chunk_frame_bytes; }
  unsigned shift() const {
    return static_cast<unsigned>(frame_offset % limits::chunk_frame_bytes / limits::block_bytes);
  }
};

// An OPEN that waits until its object's file is a backing file. Disposes of itself when nobody waits any more.
struct Arming {
  Arming() : patience(&Arming::on_patience) { open.arming = disarm.arming = patience.arming = this; }

  struct Open : DiskOpenJob {
    Arming* arming = nullptr;
  } open;
  struct Disarm : DiskDisarmJob {
    Arming* arming = nullptr;
  } disarm;
  struct Patience : Timer {
    using Timer::Timer;
    Arming* arming = nullptr;
  } patience;
  VolumeServer* server = nullptr;
  Request* request = nullptr;  // null: nobody waits any more
  bool done = false;

 private:
  static void on_patience(Timer& timer) {
    Arming& self = *static_cast<Patience&>(timer).arming;
    if (self.request != nullptr) self.request->event.set();
  }
};

// What an OPEN is answered with.
struct OpenChoice {
  OpenMode mode = OpenMode::untold;
  int32_t backing_id = 0;
};

// Tells the other cores' servers of the same volume that a request was interrupted.
class InterruptRouter {
 public:
  virtual void broadcast_interrupt(uint64_t unique) = 0;

 protected:
  ~InterruptRouter() = default;
};

class VolumeServer final : public fuse::RequestHandler {
 public:
  struct Options {
    Volume* volume = nullptr;
    Reactor* reactor = nullptr;
    InterruptRouter* interrupts = nullptr;
    DiskWriter* writer = nullptr;    // this core's; null: no disks
    bool registered_buffers = true;  // the ring knows the arena
    unsigned cores = 1;              // that share the origin's connections
    uint32_t slots = 0;              // of all transports together
    unsigned transports = 1;
    void (*on_idle)(VolumeServer& server, void* context) = nullptr;  // the connection ended and no task is left
    void* on_idle_context = nullptr;
  };
  // Runs of loads at the disks at a time: what keeps an NVMe device busy at 64 KiB a read.
  static constexpr unsigned disk_loads_max = 64;
  explicit VolumeServer(const Options& options);
  ~VolumeServer();

  void on_request(fuse::Slot& slot) override;
  void on_reply_broken(fuse::Slot& slot) override;
  void on_closed() override;
  // True when a request of this number was being served here.
  bool interrupt(uint64_t unique, fuse::Transport& transport);

  Volume& volume() const { return *options_.volume; }
  const Counters& counters() const { return counters_; }
  Reactor& reactor() { return *options_.reactor; }

 private:
  friend class Prefetcher;  // prefetch_loads.cc

  // dispatch.cc
  void dispatch(Request& request, uint32_t opcode);
  void dispatch_meta(Request& request, uint32_t opcode);
  void on_forget(fuse::Slot& slot);
  void on_batch_forget(fuse::Slot& slot);
  void on_interrupt(fuse::Slot& slot);
  void begin(Request& request, Task task);
  void finish(Request& request);
  void reply(Request& request, uint32_t bytes) {
    count_latency(request);
    send_reply(*request.slot, bytes);
  }
  void reply_error(Request& request, int os_errno) {
    count_latency(request);
    send_error(*request.slot, os_errno);
  }
  // The clock, not the time of the turn: what a turn itself takes is most of a hit's time.
  void count_latency(const Request& request) {
    counters_.latency[static_cast<unsigned>(request.kind)].add(reactor().ring().now_ns() - request.arrived_ns);
  }
  void reply_failure(Request& request, ErrorPlace place, const Error& error, std::string_view key);
  void reply_given_up(Request& request, ErrorPlace place, std::string_view key);
  void become_idle_if_done();

  // slow.cc
  void begin_trail(Request& request, ReadRange range = {});
  void note_tier(Request& request, Tier tier);
  void note_tier(const Load& load, Tier tier);
  void end_trail(Request& request);
  void tell_slow(Request& request, uint64_t total_ns);

  // read.cc
  void read(Request& request);
  static Task read_miss(TaskStack& stack, Request& request, Handle& handle, ReadRange range);
  FrameKind kind_for(Handle& handle, ReadRange range) const;
  void reply_read(Request& request, Handle& handle, ReadRange range, Tier tier);
  static void on_plan_done(Plan& plan);
  static void cancel_plan(Request& request);

  // disk_read.cc
  DiskTier& disk() { return *volume().disk; }
  bool disk_hit(Request& request, Handle& handle, ReadRange range);
  DiskFile* disk_file_of(Handle& handle, uint64_t position);
  void remember_disk_file(Handle& handle, DiskFile& file);
  bool find_verified(Handle& handle, const DiskFile& file, const IndexSpans& spans, DiskView* view_out);
  void begin_disk_read(Request& request, const DiskFile& file, const DirectRead& direct);
  static void on_disk_read(Op& op, int32_t result, uint32_t flags);
  void read_without_disk(Request& request);
  void note_visit(Handle& handle, const IndexSpan& span, const DiskView* view);
  void note_miss(Handle& handle, ReadRange range);

  // fill.cc
  // Those of prefetch are not demand's to take.
  bool loads_available() const {
    const unsigned reserved = prefetcher_ == nullptr ? 0 : prefetcher_->loads_reserved();
    return loads_.free_count() >= Plan::spans_max + reserved;
  }
  void begin_loads(Request& request, Handle& handle, bool past_disk);
  // past_disk: nothing is read from there. held: loads are put there instead of being begun.
  unsigned begin_prefetch_loads(Plan& plan, Handle& handle, List<Load>* held);
  struct LoadsFor {
    Request* request = nullptr;
    bool prefetch = false;
    bool past_disk = false;
    List<Load>* held = nullptr;
  };
  unsigned begin_loads_of(Plan& plan, Handle& handle, const LoadsFor& purpose);
  struct LoadLane {
    List<Load> queued;
    unsigned running = 0;
    unsigned running_max = 0;
  };
  // Prefetch keeps its own bounds, and nobody waits in its lane.
  LoadLane& lane_of(const Load& load) {
    if (load.prefetch) return prefetch_lane_;
    return load.from_disk ? disk_lane_ : origin_lane_;
  }
  void join_loads(std::span<Load*> loads);
  bool comes_whole_from_origin(Load& load);
  std::byte* run_memory(const Load& load) const;
  void part_loads(Load& load);
  void choose_run(Load& load);
  void continue_load(Load& load);
  void end_run(Load& load);
  void start_origin_run(Load& load);
  static void on_load_bytes(ReadCall& call, uint32_t bytes_done);
  void deliver(Load& load, uint64_t blocks);
  void write_behind(Load& load, uint64_t blocks);
  void write_behind_packed(Load& load);
  void finish_origin_run(Load& load, const ReadCall& call);
  void keep_origin_file(Handle& handle, int fd);
  static void on_load_done(OriginCall& call);
  void end_load(Load& load);

  // disk_load.cc
  uint64_t blocks_on_disk(Load& load);
  void start_disk_run(Load& load);
  bool find_run(Load& load);
  DiskFile* file_for(Handle& handle, const DiskView& view);
  void begin_open_file(Load& load);
  static void on_file_open(DiskJob& job);
  bool try_enter_chain(Load& load);
  Sqe& submit_disk_run_data(Load& load);
  void submit_disk_run(Load& load);
  void submit_checksums(Load& load);
  static void on_disk_load_read(Op& op, int32_t result, uint32_t flags);
  void on_disk_run_read(Load& load);
  void finish_disk_run(Load& load, uint64_t good, bool drop);
  void drop_blocks(Load& load, uint64_t blocks);
  void begin_remove(Load& load);
  static void on_removed(DiskJob& job);
  uint64_t run_bytes(const Load& load) const;
  void post_job(DiskJob& job, unsigned disk_number);

  // disk_patience.cc
  void begin_disk_run(Load& load);
  void end_disk_run(Load& load);
  static void on_disk_patience(Timer& timer);
  void abandon_late_loads();
  void end_job();

  // fill.cc
  void release_handle(Handle& handle);
  void wait_for_room(Request& request);
  void wake_for_room();
  static void cancel_room(Request& request);
  static void on_room_timer(Timer& timer) { static_cast<RoomTimer&>(timer).server->wake_for_room(); }

  // nodes.cc
  static Task acquire_when_room(TaskStack& stack, Request& request, const std::string& key, const FileInfo& info,
                                Result<fuse::NodeId>& id_out);

  // meta.cc
  static Task lookup(TaskStack& stack, Request& request);
  static Task get_attributes(TaskStack& stack, Request& request);
  static Task read_link(TaskStack& stack, Request& request);
  static Task statfs(TaskStack& stack, Request& request);
  void seek(Request& request);
  void reply_attributes(Request& request, const FileInfo& info);

  // open.cc
  static Task open(TaskStack& stack, Request& request);
  bool is_at_hand(const ObjectId& object, uint64_t object_bytes);
  static Task open_file(TaskStack& stack, Request& request, const fuse::Node& node, const ObjectId& object,
                        Pending<OpenCall>& call);
  void open_directory(Request& request, const fuse::Node& node, Pending<OpenCall>& call);
  Handle* take_handle(Request& request, const fuse::Node& node);
  void describe_handle(Handle& handle, const fuse::Node& node, const ObjectId& object, Pending<OpenCall>& call);
  void reply_open(Request& request, Handle& handle, const OpenChoice& choice, bool young);
  static Task choose_mode(TaskStack& stack, Request& request, Handle& handle, OpenChoice& choice);
  Arming* begin_arming(Request& request, const Handle& handle);
  void end_arming(Request& request, Arming& arming, const Handle& handle, OpenChoice& choice);
  void note_refusal(const Arming& arming, const Handle& handle);
  static void on_armed(DiskJob& job);
  void dispose(Arming& arming);
  static void on_arming_undone(DiskJob& job);
  void release(Request& request);
  void close_mode(Handle& handle);
  static void on_disarmed(DiskJob& job);

  // directory.cc
  static Task read_directory(TaskStack& stack, Request& request, bool plus);
  void note_listing(Handle& handle, const ListCall& call);
  void note_name(Handle& handle, const DirectoryEntry& entry);
  void forget_names(Handle& handle);
  uint32_t encode_entries(Handle& handle, std::byte* to, uint32_t bytes_max, bool plus);

  // xattr.cc
  void get_xattr(Request& request);
  void list_xattr(Request& request);

  // A call of the pool, its request set; null: all are out (a hung origin holds them).
  template <class Call>
  Pending<Call>* take_call(Pool<Pending<Call>>& pool, Request& request);
  template <class Call>
  void put_call(Pool<Pending<Call>>& pool, Pending<Call>& call);
  template <class Call>
  static void on_call_done(OriginCall& call);
  void dispose(Pending<LookupCall>& call) { lookups_.release(call); }
  void dispose(Pending<OpenCall>& call);
  void dispose(Pending<ListCall>& call);
  void dispose(Pending<ReadlinkCall>& call) { readlinks_.release(call); }
  void dispose(Pending<StatfsCall>& call) { statfss_.release(call); }
  uint64_t now_ns() const { return options_.reactor->now_ns(); }
  uint32_t now_s() const { return static_cast<uint32_t>(options_.reactor->now_ns() / 1'000'000'000); }

  const Options options_;
  const Prefetcher::Limits prefetch_limits_;
  Counters counters_;
  std::unique_ptr<Request[]> requests_;
  List<Request> room_waiters_;
  struct RoomTimer : Timer {
    using Timer::Timer;
    VolumeServer* server = nullptr;
  } room_timer_;
  uint64_t room_retry_ns_ = 1;
  Pool<Load> loads_;
  LoadLane origin_lane_;
  LoadLane disk_lane_;
  LoadLane prefetch_lane_;
  List<Load> disk_runs_;
  List<Load> abandoned_runs_;
  uint64_t chain_moved_ns_ = 0;
  struct DiskPatience : Timer {
    using Timer::Timer;
    VolumeServer* server = nullptr;
  } disk_patience_{&VolumeServer::on_disk_patience};
  unsigned disk_reads_running_ = 0;         // into replies
  std::unique_ptr<Prefetcher> prefetcher_;  // null: switched off
  Pool<ChecksumPage> checksum_pages_;
  struct DropJob : DiskDropJob {
    VolumeServer* server = nullptr;
  };
  Pool<DropJob> drop_jobs_;
  Pool<Arming> armings_;
  unsigned disk_jobs_ = 0;  // posted and not answered
  Pool<Pending<LookupCall>> lookups_;
  Pool<Pending<OpenCall>> opens_;
  Pool<Pending<ListCall>> lists_;
  Pool<Pending<ReadlinkCall>> readlinks_;
  Pool<Pending<StatfsCall>> statfss_;
  unsigned tasks_running_ = 0;
  unsigned lookups_waiting_ = 0;  // for a node
  unsigned transports_open_ = 0;
  bool idle_told_ = false;
};

}  // namespace blobcache::serve
