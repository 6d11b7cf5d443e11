// Watchdog: WATCHDOG=1 to the service manager as long as every core turns.
//   Owner     Node.   Thread  the core it lives on
//   How       a timer of that core sends a beat to every other core, and WATCHDOG=1 once all beats of the last round were
//             handled. A core that hangs keeps its beat, so nothing is sent until it goes on
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "node/guest.h"
#include "ring/timer.h"

namespace blobcache::node {

class Watchdog final : public Guest {
 public:
  // period_ns: what the manager waits for; it is told three times in it.
  Watchdog(int notify_fd, uint64_t period_ns);

  // All cores, the one that it will live on too. Before start().
  void watch(Reactor& core);

  void start(Reactor& home) override;
  void stop() override;

 private:
  struct Beat : Message {
    Beat() : Message(+[](Op& op, int32_t, uint32_t) { static_cast<Beat&>(op).answered.store(true); }) {}
    std::atomic<bool> answered{true};
    Reactor* core = nullptr;
  };
  struct Tick : Timer {
    using Timer::Timer;
    Watchdog* watchdog = nullptr;
  };
  static void on_tick(Timer& timer);
  static void on_sent(Op& op, int32_t result, uint32_t flags);
  void send_beats();

  const int notify_fd_;
  const uint64_t period_ns_;
  Reactor* home_ = nullptr;
  std::vector<std::unique_ptr<Beat>> beats_;  // one a core
  Tick tick_;
  Op send_;
};

}  // namespace blobcache::node
