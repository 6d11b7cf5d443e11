#include "node/watchdog.h"

#include <string_view>

#include <sys/socket.h>

#include "base/log.h"
#include "ring/sqe.h"

namespace blobcache::node {
namespace {

constexpr std::string_view alive = "WATCHDOG=1\n";
constexpr uint64_t times_a_period = 3;

}  // namespace

Watchdog::Watchdog(int notify_fd, uint64_t period_ns)
    : notify_fd_(notify_fd), period_ns_(period_ns), tick_(&Watchdog::on_tick), send_(&Watchdog::on_sent) {
  tick_.watchdog = this;
}

void Watchdog::watch(Reactor& core) {
  beats_.push_back(std::make_unique<Beat>());
  beats_.back()->core = &core;
}

void Watchdog::start(Reactor& home) {
  home_ = &home;
  home.arm(tick_, 1);
}

void Watchdog::stop() {
  if (tick_.armed()) home_->cancel(tick_);
}

void Watchdog::on_tick(Timer& timer) {
  Watchdog& self = *static_cast<Tick&>(timer).watchdog;
  self.home_->arm(timer, self.period_ns_ / times_a_period);
  for (const std::unique_ptr<Beat>& beat : self.beats_) {
    if (beat->answered.load()) continue;
    BC_LOG(error, "core {} does not turn: the service manager is not told that all is well", beat->core->core());
    return;
  }
  self.send_beats();
  if (self.send_.cqes_owed > 0) return;
  prep_send(self.home_->prepare(self.send_), FileRef::fd(self.notify_fd_), alive.data(),
            static_cast<uint32_t>(alive.size()), MSG_DONTWAIT | MSG_NOSIGNAL);
}

void Watchdog::send_beats() {
  for (const std::unique_ptr<Beat>& beat : beats_) {
    if (beat->core == home_) continue;
    beat->answered.store(false);
    home_->post(*beat->core, *beat);
  }
}

// A manager that does not listen for a moment hears the next one.
void Watchdog::on_sent(Op&, int32_t result, uint32_t) {
  if (result < 0) BC_LOG(warn, "the service manager does not take WATCHDOG=1 (errno {})", -result);
}

}  // namespace blobcache::node
