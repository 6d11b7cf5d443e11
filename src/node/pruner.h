// Pruner: asks the kernel to forget nodes before an inode table is full. The kernel holds every node that it has looked up
// until memory of its own runs short, which on a large machine is never.
//   Owner     Node.      Thread  start() and stop() on the main thread; works on a helper thread of its own
//   Lifetime  start() with the volumes mounted, before the cores go -> stop() while they still serve: a notification may
//             wait for an answer of ours
//   Errors    stop() is false when the thread still sits in the kernel: then nothing of the node may be freed
#pragma once

#include <atomic>
#include <memory>
#include <semaphore>
#include <thread>
#include <vector>

#include "base/result.h"
#include "serve/volume.h"

namespace blobcache::node {

class Pruner {
 public:
  Pruner() = default;
  ~Pruner();
  Pruner(const Pruner&) = delete;
  Pruner& operator=(const Pruner&) = delete;

  using Volumes = std::vector<std::unique_ptr<serve::Volume>>;
  // Errors: again (no descriptor).
  Result<void> start(const Volumes& volumes);
  bool stop(unsigned patience_ms);

 private:
  struct Work;
  void run();
  void relieve(Work& work);
  void ask_about(Work& work, bool directories, uint32_t wanted);
  bool notify(Work& work, std::span<const fuse::NodeId> nodes);
  void await_forgets(const Work& work, uint64_t freed_before);

  const Volumes* volumes_ = nullptr;
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  std::binary_semaphore ended_{0};
  int wake_fd_ = -1;
};

}  // namespace blobcache::node
