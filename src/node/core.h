// Core: one thread, one ring, one of everything.
//   Owner     Node
//   Thread    start() and join() on the main thread; everything else on its own
//   Lifetime  start() -> ready() -> go() -> (all volumes idle) -> stop() -> join()
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <semaphore>
#include <thread>
#include <vector>

#include "base/epoch.h"
#include "cache/disk_writer.h"
#include "node/guest.h"
#include "node/plan.h"
#include "ring/poster.h"
#include "ring/reactor.h"
#include "serve/content.h"
#include "serve/volume_server.h"

namespace blobcache::node {

// What all cores share; outlives them.
struct SharedState {
  Epochs epochs;
  std::unique_ptr<MemoryTier> memory;
  std::unique_ptr<DiskTier> disk;  // null: no disks
  std::unique_ptr<serve::PrefetchNode> prefetch;
  serve::Content content;
  std::span<std::byte> arena;
  std::span<std::byte> staging;  // of all cores' disk writers, Plan::disk_staging_core_bytes each
  std::vector<std::unique_ptr<serve::Volume>> volumes;
  const std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();
};

class Core {
 public:
  struct Options {
    unsigned number = 0;
    const Plan* plan = nullptr;
    const Machine* machine = nullptr;
    SharedState* shared = nullptr;
    // One volume on this core has no connection and no task any more. Called on the core's thread.
    std::function<void()> on_volume_idle;
    const std::vector<std::unique_ptr<Core>>* cores = nullptr;  // all of them, this one too
    std::vector<Guest*> guests;
  };
  explicit Core(Options options);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  void start();
  // Waits until the ring and its tables stand. Errors: what the kernel refused.
  Result<void> wait_ready();
  // Lets it take requests.
  void go();
  // The thread ends after this turn, and after what it is owed (bounded); null: it was never told to go.
  void stop(Poster* poster);
  // False: a hung origin still owes completions, so nothing that they point to may be freed.
  bool join();

  Reactor& reactor() { return *reactor_; }
  const Reactor& reactor() const { return *reactor_; }
  const serve::Counters& counters(unsigned volume) const;

 private:
  struct OnVolume;
  struct StopMessage;
  struct DiskWatch : Timer {
    using Timer::Timer;
    Core* core = nullptr;
  };

  void run();
  Result<void> set_up();
  Result<void> register_memory();
  void make_writer();
  bool finish_writes();
  static void on_disk_watch(Timer& timer);
  std::span<std::byte> staging() const;
  void make_servers();
  void pin_to_cpus();
  bool owns_queue(uint32_t queue) const { return queue % options_.plan->cores == options_.number; }

  const Options options_;
  std::thread thread_;
  std::unique_ptr<Reactor> reactor_;
  std::unique_ptr<DiskWriter> writer_;  // null: no disks
  DiskWatch disk_watch_;
  std::vector<std::unique_ptr<OnVolume>> volumes_;
  std::unique_ptr<StopMessage> stop_message_;
  Result<void> set_up_result_;
  std::binary_semaphore ready_{0};
  std::binary_semaphore go_{0};
  bool registered_buffers_ = false;
  bool drained_ = true;
  bool aborted_ = false;
};

// Where the volume's /dev/fuse lies in each ring's table of files.
inline constexpr unsigned device_file(unsigned volume) { return volume; }
// Where the frames of the arena and the entries lie in each ring's table of buffers.
unsigned arena_buffer(size_t offset);
unsigned entries_buffer(size_t arena_bytes, unsigned volume);
// Where a core's staging lies in its own ring's table.
unsigned staging_buffer(size_t arena_bytes, unsigned volumes);

}  // namespace blobcache::node
