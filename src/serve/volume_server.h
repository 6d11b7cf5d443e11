// VolumeServer: one volume on one core: its requests, and the flows that answer them.
//   Owner     a Core (node/).   Thread  the core's
//   Lifetime  start() -> on_closed of its transports and the last task -> idle() -> destroyed
//   Flows     dispatch.cc opcode -> handler; read.cc the read path; fill.cc loads; meta.cc lookup, open, attributes;
//             directory.cc listings; xattr.cc
//   Limits    as many requests as the transport has slots; loads_max fills in flight; calls_max of each metadata call
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/pool.h"
#include "fuse/transport.h"
#include "ring/reactor.h"
#include "serve/counters.h"
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

// Blocks of one frame on their way from the origin, in one run of adjacent blocks after the other.
struct Load : ListNode {
  struct LoadCall : ReadCall {
    Load* load = nullptr;
  } call;
  VolumeServer* server = nullptr;
  Handle* handle = nullptr;
  Frame* frame = nullptr;
  uint64_t frame_offset = 0;  // in the object
  uint64_t blocks_left = 0;
  uint64_t blocks_in_run = 0;
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
    bool registered_buffers = true;  // the ring knows the arena
    unsigned cores = 1;              // that share the origin's connections
    uint32_t slots = 0;              // of all transports together
    unsigned transports = 1;
    void (*on_idle)(VolumeServer& server, void* context) = nullptr;  // the connection ended and no task is left
    void* on_idle_context = nullptr;
  };
  explicit VolumeServer(const Options& options);
  ~VolumeServer();

  void on_request(fuse::Slot& slot) override;
  void on_closed() override;
  // True when a request of this number was being served here.
  bool interrupt(uint64_t unique, fuse::Transport& transport);

  Volume& volume() { return *options_.volume; }
  const Counters& counters() const { return counters_; }
  Reactor& reactor() { return *options_.reactor; }

 private:
  // dispatch.cc
  void dispatch(Request& request, uint32_t opcode);
  void dispatch_meta(Request& request, uint32_t opcode);
  void on_forget(fuse::Slot& slot);
  void on_batch_forget(fuse::Slot& slot);
  void on_interrupt(fuse::Slot& slot);
  void begin(Request& request, Task task);
  void finish(Request& request);
  void reply(Request& request, uint32_t bytes) { request.slot->transport->reply(*request.slot, bytes); }
  void reply_error(Request& request, int os_errno) { request.slot->transport->reply_error(*request.slot, os_errno); }
  void reply_failure(Request& request, ErrorPlace place, const Error& error, std::string_view key);
  void reply_given_up(Request& request, ErrorPlace place, std::string_view key);
  void become_idle_if_done();

  // read.cc
  void read(Request& request);
  static Task read_miss(TaskStack& stack, Request& request, Handle& handle, ReadRange range);
  FrameKind kind_for(Handle& handle, ReadRange range) const;
  void reply_read(Request& request, Handle& handle, ReadRange range, Tier tier);
  static void on_plan_done(Plan& plan);
  static void cancel_plan(Request& request);

  // fill.cc
  bool loads_available() const { return loads_.free_count() >= Plan::spans_max; }
  void begin_loads(Request& request, Handle& handle);
  void start_or_queue(Load& load);
  void start_run(Load& load);
  static void on_load_done(OriginCall& call);
  void end_load(Load& load);
  void release_handle(Handle& handle);
  void wait_for_room(Request& request);
  void wake_for_room();
  static void cancel_room(Request& request);
  static void on_room_timer(Timer& timer) { static_cast<RoomTimer&>(timer).server->wake_for_room(); }

  // meta.cc
  static Task lookup(TaskStack& stack, Request& request);
  static Task get_attributes(TaskStack& stack, Request& request);
  static Task open(TaskStack& stack, Request& request);
  static Task read_link(TaskStack& stack, Request& request);
  static Task statfs(TaskStack& stack, Request& request);
  void release(Request& request);
  void seek(Request& request);
  void reply_attributes(Request& request, const FileInfo& info);
  bool open_handle(Request& request, const fuse::Node& node, Pending<OpenCall>& call, bool directory);

  // directory.cc
  static Task read_directory(TaskStack& stack, Request& request, bool plus);
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
  Counters counters_;
  std::unique_ptr<Request[]> requests_;
  List<Request> room_waiters_;
  struct RoomTimer : Timer {
    using Timer::Timer;
    VolumeServer* server = nullptr;
  } room_timer_;
  uint64_t room_retry_ns_ = 1;
  Pool<Load> loads_;
  List<Load> loads_queued_;
  unsigned loads_running_ = 0;
  const unsigned loads_running_max_;
  Pool<Pending<LookupCall>> lookups_;
  Pool<Pending<OpenCall>> opens_;
  Pool<Pending<ListCall>> lists_;
  Pool<Pending<ReadlinkCall>> readlinks_;
  Pool<Pending<StatfsCall>> statfss_;
  unsigned tasks_running_ = 0;
  unsigned transports_open_ = 0;
};

}  // namespace blobcache::serve
