// A table that becomes crowded (three quarters full) writes to an eventfd; the helper thread then brings it down to half:
//
//   asleep --crowded--> pass: ask about the nodes used longest ago, as many as are too many
//                         |-> settle: the kernel's FORGETs come through the cores, some milliseconds later
//                         |     |-- half reached -------------> asleep
//                         |     '-- some were forgotten ------> pass
//                         '--- a pass after which none was ---> asleep, for a moment at least: all are in use
//
// Linux 6.18 takes node ids, hundreds a write, and keeps what is in use (FUSE_NOTIFY_PRUNE). Older kernels drop a name
// under the lock of its directory, in use or not (FUSE_NOTIFY_INVAL_ENTRY). There directories are asked about only when
// files alone did not help: a working directory that loses its name is "(deleted)" to getcwd.
//
// A core cannot do this: LOOKUPs hold a directory's lock while they wait for a core, and a write that wants that lock would
// then wait for itself.
#include "node/pruner.h"

#include <algorithm>
#include <cerrno>
#include <chrono>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/features.h"
#include "base/log.h"
#include "fuse/notify.h"

namespace blobcache::node {
namespace {

constexpr int settle_ms = 5;
constexpr unsigned settles_max = 10;
constexpr int fruitless_ms = 50;

// Nothing says when the kernel's FORGETs are through; only stop() is kept waiting, and not for long.
void pause_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

}  // namespace

struct Pruner::Work {
  fuse::Inodes* inodes = nullptr;
  int connection_fd = -1;
  bool by_id = false;
  bool gone = false;  // the connection
  std::vector<fuse::NodeId> nodes;
  fuse::Inodes::Entry entry;
};

Pruner::~Pruner() {
  if (wake_fd_ >= 0) close(wake_fd_);
}

Result<void> Pruner::start(const Volumes& volumes) {
  volumes_ = &volumes;
  wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd_ < 0) return fail(Code::again, errno);
  // Signals belong to the main thread.
  sigset_t all{};
  sigset_t before{};
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return {};
}

bool Pruner::stop(unsigned patience_ms) {
  if (!thread_.joinable()) return true;
  stopping_ = true;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof one);
  if (!ended_.try_acquire_for(std::chrono::milliseconds(patience_ms))) {
    thread_.detach();
    return false;
  }
  thread_.join();
  return true;
}

void Pruner::run() {
  pthread_setname_np(pthread_self(), "bc-pruner");
  std::vector<Work> works;
  for (const std::unique_ptr<serve::Volume>& volume : *volumes_) {
    const bool by_id =
        volume->session.facts().minor >= fuse::notify_prune_minor && !pretended_absent(Feature::notify_prune);
    works.push_back({.inodes = &volume->inodes,
                     .connection_fd = volume->session.fd(),
                     .by_id = by_id,
                     .nodes = std::vector<fuse::NodeId>(fuse::prune_nodes_max)});
    volume->inodes.call_when_crowded(wake_fd_);
  }
  while (!stopping_) {
    pollfd wake{wake_fd_, POLLIN, 0};
    uint64_t calls = 0;
    if (poll(&wake, 1, -1) <= 0 || read(wake_fd_, &calls, sizeof calls) != sizeof calls) continue;
    for (Work& work : works) {
      if (work.inodes->crowded()) relieve(work);
      if (!work.gone) work.inodes->call_when_crowded(wake_fd_);
    }
  }
  ended_.release();
}

// Down to half, although it is called at three quarters: few and long passes.
void Pruner::relieve(Work& work) {
  const uint32_t target = work.inodes->nodes_max() / 2;
  bool directories = work.by_id;
  while (!stopping_ && !work.gone && work.inodes->count() > target) {
    const uint64_t freed = work.inodes->freed();
    ask_about(work, directories, work.inodes->count() - target);
    await_forgets(work, freed);
    if (work.inodes->freed() != freed) continue;
    if (directories) {
      pause_ms(fruitless_ms);
      break;
    }
    directories = true;
  }
}

void Pruner::await_forgets(const Work& work, uint64_t freed_before) {
  uint64_t seen = freed_before;
  for (unsigned i = 0; i < settles_max && !stopping_; ++i) {
    pause_ms(settle_ms);
    const uint64_t freed = work.inodes->freed();
    if (freed != freed_before && freed == seen) return;
    seen = freed;
  }
}

// One round over the table at most.
void Pruner::ask_about(Work& work, bool directories, uint32_t wanted) {
  fuse::Inodes& inodes = *work.inodes;
  const uint32_t all = inodes.count();
  uint32_t asked = 0;
  uint32_t looked_at = 0;
  while (asked < wanted && looked_at < all && !stopping_) {
    size_t chosen = 0;
    while (chosen < work.nodes.size() && asked + chosen < wanted && looked_at < all) {
      const size_t room = std::min<size_t>(work.nodes.size() - chosen, wanted - asked - chosen);
      const fuse::Inodes::Choice choice =
          inodes.choose_unused(std::span(work.nodes).subspan(chosen, room), directories, all - looked_at);
      if (choice.looked_at == 0) break;
      chosen += choice.chosen;
      looked_at += choice.looked_at;
    }
    if (chosen == 0) break;
    if (!notify(work, std::span(work.nodes).first(chosen))) break;
    asked += static_cast<uint32_t>(chosen);
  }
}

// False: the connection has ended.
bool Pruner::notify(Work& work, std::span<const fuse::NodeId> nodes) {
  const int fd = work.connection_fd;
  if (work.by_id) {
    const Result<void> pruned = fuse::notify_prune(fd, nodes);
    if (!pruned && pruned.error().code == Code::invalid) {
      BC_LOG(info, "the kernel knows no FUSE_NOTIFY_PRUNE (errno {}): names are invalidated instead",
             pruned.error().os_errno);
      work.by_id = false;
    } else {
      work.gone = !pruned && pruned.error().code == Code::stopping;
      return !work.gone;
    }
  }
  for (const fuse::NodeId node : nodes) {
    if (stopping_) return true;
    if (!work.inodes->entry_of(node, work.entry)) continue;
    // Usually not_found: the kernel had dropped it by itself.
    const Result<void> dropped = fuse::notify_invalidate_entry(fd, work.entry.parent, work.entry.name);
    work.gone = !dropped && dropped.error().code == Code::stopping;
    if (work.gone) return false;
  }
  return true;
}

}  // namespace blobcache::node
