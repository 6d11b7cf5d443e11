// Why not the daemon: it would have to be told the list, to know files by their names, and to tell the readers' opens from
// those of this command; of files that the kernel reads by itself it sees the open only. The kernel knows all of it.
//
// A file that is opened is not watched any more, nor is what lies before it. So watches move along with the readers, and an
// epoch of a million files needs no more of them than a short one.
#include "cli/warm_ahead.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

namespace blobcache::cli {

WarmAhead::WarmAhead(const std::vector<WarmFile>& files, uint64_t ahead_bytes)
    : files_(files),
      ahead_bytes_(ahead_bytes),
      own_opens_(std::make_unique<std::atomic<uint32_t>[]>(files.size())),
      opens_(files.size()) {
  uint64_t end = 0;
  for (const WarmFile& file : files) ends_.push_back(end += file.bytes);
}

WarmAhead::~WarmAhead() {
  if (fd_ >= 0) close(fd_);
}

std::string WarmAhead::start() {
  fd_ = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (fd_ >= 0 && watch_more()) return "";
  return fmt::format(
      "the opens of files cannot be followed: {}; raise fs.inotify.max_user_instances and max_user_watches",
      std::strerror(errno));
}

// False: not even one.
bool WarmAhead::watch_more() {
  while (next_ < files_.size() && watches_.size() < watched_max) {
    const int watch = inotify_add_watch(fd_, files_[next_].path.c_str(), IN_OPEN);
    if (watch < 0 && (errno == ENOSPC || errno == ENOMEM)) return !watches_.empty();
    // A file that is gone is one that nobody opens; who reads it will say so.
    if (watch >= 0) watches_[watch] = static_cast<uint32_t>(next_);
    ++next_;
  }
  return true;
}

void WarmAhead::on_open(uint32_t file) {
  if (++opens_[file] > own_opens_[file].load(std::memory_order_relaxed))
    furthest_ = std::max<size_t>(furthest_, file + 1);
}

bool WarmAhead::wait(unsigned timeout_ms) {
  pollfd poll_entry{.fd = fd_, .events = POLLIN, .revents = 0};
  if (poll(&poll_entry, 1, static_cast<int>(timeout_ms)) <= 0) return false;
  const size_t before = furthest_;
  alignas(inotify_event) std::array<char, 65536> events;
  for (ssize_t bytes; (bytes = read(fd_, events.data(), events.size())) > 0;) {
    for (ssize_t at = 0; at < bytes;) {
      inotify_event event;
      std::memcpy(&event, events.data() + at, sizeof event);
      at += static_cast<ssize_t>(sizeof event + event.len);
      const auto watch = watches_.find(event.wd);
      if ((event.mask & IN_OPEN) != 0 && watch != watches_.end()) on_open(watch->second);
    }
  }
  if (furthest_ == before) return false;
  std::erase_if(watches_, [this](const auto& watch) {
    if (watch.second >= furthest_) return false;
    inotify_rm_watch(fd_, watch.first);
    return true;
  });
  next_ = std::max(next_, furthest_);
  watch_more();
  return true;
}

uint64_t WarmAhead::allowed_bytes() const { return (furthest_ == 0 ? 0 : ends_[furthest_ - 1]) + ahead_bytes_; }

}  // namespace blobcache::cli
