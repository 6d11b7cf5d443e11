// Request: one FUSE request on its way through the flows.
//   Owner     a VolumeServer, one for each slot; used again and again
//   Thread    the slot's core
//   Waiting   a task waits only on `event`. Who ends the wait: the thing waited for, an INTERRUPT, or the watch (the caller is
//             being killed, or the deadline has passed); the latter two call cancel_wait, which lets go of the thing (it goes
//             on by itself) and sets the event.
//   Invariant what a request waits for never points into the slot: a request can always be answered at once
#pragma once

#include <array>
#include <cstdint>

#include "base/list.h"
#include "cache/memory_tier.h"
#include "fuse/slot.h"
#include "ring/sqe.h"
#include "ring/task.h"
#include "ring/timer.h"
#include "ring/wait.h"
#include "serve/counters.h"

namespace blobcache::serve {

class VolumeServer;
struct Handle;

struct Request : ListNode {
  Request() : watch(&Request::on_watch) { plan.request = this; }

  VolumeServer* server = nullptr;
  fuse::Slot* slot = nullptr;
  uint64_t arrived_ns = 0;  // the turn that it came in
  OperationKind kind{};
  Event event;
  bool interrupted = false;
  bool timed_out = false;
  void (*cancel_wait)(Request& request) = nullptr;

  // Looks after a wait once a second.
  struct Watch : Timer {
    using Timer::Timer;
    Request* request = nullptr;
  } watch;
  uint64_t deadline_ns = 0;
  struct RequestPlan : Plan {
    Request* request = nullptr;
  } plan;
  TaskStack stack;

  // What the line about a slow request says (slow.cc). Begun with the first wait of a request, never for hits in memory.
  struct Trail {
    uint64_t id = 0;  // FUSE's number of the request
    uint64_t node = 0;
    uint32_t opcode = 0;
    ReadRange range;  // of a READ
    uint64_t begun_ns = 0;
    uint64_t room_ns = 0;                        // waited for frames
    std::array<uint64_t, tier_count> tier_ns{};  // from begun_ns until the last of what came from there
  } trail;

  // A read of the disk into the reply (disk_read.cc). Its CQE comes before the slot's next request.
  struct DiskRead : Op {
    Request* request = nullptr;
    Handle* handle = nullptr;  // kept open by the kernel until the request is answered
    ReadRange range;
    uint32_t bytes_wanted = 0;  // fewer: failed
    uint8_t disk = 0;
    uint8_t phase = 0;
    bool linked = false;
    uint64_t since_ns = 0;
  } disk_read;

  bool given_up() const { return interrupted || timed_out; }
  void interrupt() {
    interrupted = true;
    if (cancel_wait != nullptr) cancel_wait(*this);
  }

 private:
  static void on_watch(Timer& timer);
};

}  // namespace blobcache::serve
