// Loads whose disk hangs, or is slow: their readers do not wait for it.
//
// A read that has not ended after a second cannot be taken back: the device may write into its frame at any time. So the
// frame is left to it (MemoryTier::abandon_load), its readers plan anew, past the disk, and what the read brings in the end
// is dropped. The disk is told, and gets no new reads until it answers probes quickly. What waited in the lane behind the
// read chooses anew.
//
// The second counts from the beginning of the run, with the opening of the file in it. Reads of a chain stand behind each
// other in the kernel: for them it begins anew whenever one of a chain ends.
//
// The runs are looked over four times a second while there are some; a timer of our own, since a hung disk brings no event.
// Those that were abandoned before are abandoned once more: a plan of another core may have pinned the frame before it left
// the index, and claimed in it afterwards.
#include <algorithm>

#include "serve/volume_server.h"

namespace blobcache::serve {
namespace {

constexpr uint64_t patience_ns = DiskHealth::read_stuck_after_ns;
constexpr uint64_t look_every_ns = patience_ns / 4;

}  // namespace

void VolumeServer::begin_disk_run(Load& load) {
  load.run_since_ns = now_ns();
  disk_runs_.push_back(load);
  if (disk_patience_.armed()) return;
  disk_patience_.server = this;
  reactor().arm(disk_patience_, look_every_ns);
}

void VolumeServer::end_disk_run(Load& load) {
  load.unlink();
  if (disk_runs_.empty() && abandoned_runs_.empty() && disk_patience_.armed()) reactor().cancel(disk_patience_);
}

void VolumeServer::on_disk_patience(Timer& timer) {
  VolumeServer& self = *static_cast<DiskPatience&>(timer).server;
  self.abandon_late_loads();
  if (!(self.disk_runs_.empty() && self.abandoned_runs_.empty()) && !timer.armed())
    self.reactor().arm(timer, look_every_ns);
}

void VolumeServer::abandon_late_loads() {
  bool any = false;
  disk_runs_.for_each([&](Load& load) {
    const uint64_t since_ns = load.chained ? std::max(load.run_since_ns, chain_moved_ns_) : load.run_since_ns;
    if (now_ns() - since_ns < patience_ns) return;
    load.unlink();
    abandoned_runs_.push_back(load);
    load.abandoned = true;
    BC_ASSERT(lane_of(load).running > 0);
    --lane_of(load).running;
    disk().on_slow_read(load.view.place.disk);
    any = true;
  });
  // Readers that are woken begin loads of their own at once, so all is in order before the first is.
  abandoned_runs_.for_each(
      [&](Load& load) { volume().memory->abandon_load(reactor(), *load.frame, load.blocks_left); });
  if (!any) return;
  List<Load> waiting;
  while (Load* load = disk_lane_.queued.pop_front()) waiting.push_back(*load);
  while (Load* load = waiting.pop_front()) continue_load(*load);
}

}  // namespace blobcache::serve
