// BlockingCalls: a few helper threads for what has no io_uring opcode: getdents, readlink, statfs, resolvers.
//   Owner     one per origin, so that a hung file server stops nobody else
//   Thread    begin() from any core; the call runs on a helper; its handler runs on the core that began it, as a message
//   Lifetime  stop() -> join(). A call given after stop() is refused.
//   Limits    `threads` calls at a time; the callers' pools bound how many wait
//   Simulator threads = 0: begin() runs the call at once and posts its end to the caller's own core
#pragma once

#include "base/list.h"
#include "base/result.h"
#include "ring/reactor.h"

namespace blobcache {

// Lives until its handler has run. The handler gets result = 0 once `run` has returned.
struct BlockingCall : Message, ListNode {
  void (*run)(BlockingCall& call) = nullptr;
  Reactor* home = nullptr;
};

class BlockingCalls {
 public:
  explicit BlockingCalls(unsigned threads);
  ~BlockingCalls();

  // Errors: stopping.
  Result<void> begin(Reactor& home, BlockingCall& call);
  // No new calls; those that wait are still run.
  void stop();
  // Returns when every helper has ended. A helper hung in a system call is left behind after `patience_ms`, since a hung
  // file server must not keep the process from ending; false then.
  bool join(unsigned patience_ms);

 private:
  struct Shared;
  static void run_helper(Shared* shared);
  Shared* shared_;
  unsigned threads_;
};

}  // namespace blobcache
