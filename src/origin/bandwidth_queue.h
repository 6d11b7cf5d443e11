// BandwidthQueue: those of one core who wait until an origin's bandwidth has room for them.
//   Owner     whoever sends their requests.   Thread  the reactor's
//   Lifetime  a waiter is the caller's and lives until its turn or until it leaves; nobody waits when the queue ends
//   Order     readers first, one of four from those whom nobody waits for; in each the first come
#pragma once

#include <cstdint>

#include "base/list.h"
#include "origin/bandwidth.h"
#include "ring/reactor.h"

namespace blobcache {

struct BandwidthWaiter : ListNode {
  uint32_t bandwidth_bytes_wanted = 0;
  uint64_t waits_since_ns = 0;
};

class BandwidthQueue {
 public:
  // The waiter's bytes are taken and it is in no list.
  using OnTurn = void (*)(BandwidthWaiter& waiter, void* context);
  struct Options {
    Reactor& home;
    Bandwidth& bandwidth;
    OnTurn on_turn;
    void* context;
  };
  explicit BandwidthQueue(const Options& options);

  // True: the bytes are taken. False: it waits, and on_turn will tell.
  bool take(BandwidthWaiter& waiter, uint32_t bytes, bool background);
  // It wants nothing any more. It may be in another list.
  void leave(BandwidthWaiter& waiter);
  // No turn comes any more.
  void stop();
  // Null: nobody waits.
  BandwidthWaiter* pop_front();

 private:
  struct TurnTimer : Timer {
    BandwidthQueue* queue = nullptr;
  };
  static void on_timer(Timer& timer);
  void give_turns();
  void arm(uint64_t again_ns);

  const Options options_;
  List<BandwidthWaiter> readers_;
  List<BandwidthWaiter> background_;
  unsigned readers_in_a_row_ = 0;
  bool giving_ = false;
  TurnTimer timer_;  // armed exactly while somebody waits and no turns are being given
};

}  // namespace blobcache
