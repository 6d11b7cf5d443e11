// WarmAhead: how far the readers of a list of files have come, told from what they open.
//   Owner     the command.   Thread  one
//   Limits    watched_max files are watched at a time: those behind the furthest one that was opened
//   Needs     nothing of the daemon: the kernel tells of every open of the mount's files (inotify), by whichever program,
//             passthrough too. What the command itself opens is told to it and left out (expect_open)
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "cli/warm_files.h"

namespace blobcache::cli {

class WarmAhead {
 public:
  static constexpr size_t watched_max = 4096;

  WarmAhead(const std::vector<WarmFile>& files, uint64_t ahead_bytes);
  ~WarmAhead();
  WarmAhead(const WarmAhead&) = delete;
  WarmAhead& operator=(const WarmAhead&) = delete;

  // Empty, or why opens cannot be followed: one sentence with the remedy.
  std::string start();
  // Waits for opens, at most so long. Returns whether somebody has come further.
  bool wait(unsigned timeout_ms);
  // Bytes of the list, from its start, that may be read by now: `ahead` behind the furthest file that was opened.
  uint64_t allowed_bytes() const;
  uint64_t ahead_bytes() const { return ahead_bytes_; }
  // Any thread, before it opens the file itself.
  void expect_open(uint32_t file) { own_opens_[file].fetch_add(1, std::memory_order_relaxed); }

 private:
  bool watch_more();
  void on_open(uint32_t file);

  const std::vector<WarmFile>& files_;
  const uint64_t ahead_bytes_;
  std::vector<uint64_t> ends_;  // in the list, of each file
  std::unique_ptr<std::atomic<uint32_t>[]> own_opens_;
  std::vector<uint32_t> opens_;
  std::unordered_map<int, uint32_t> watches_;
  int fd_ = -1;
  size_t next_ = 0;      // to be watched
  size_t furthest_ = 0;  // files up to here were come to: one beyond the furthest that was opened
};

}  // namespace blobcache::cli
