// WarmReader: reads files to their ends, many at once, so that the mount's daemon fills its cache with them.
//   Owner     the command.   Thread  threads of its own; progress() and wait() from the command's
//   Lifetime  built -> start() -> wait() until done -> join() -> destroyed
//   Memory    read_bytes a thread
//   Page cache is passed by (O_DIRECT): what is warmed once for later should not push out what programs use now
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "cli/warm_ahead.h"
#include "cli/warm_files.h"

namespace blobcache::cli {

// A part of one file that one thread reads.
struct WarmPiece {
  uint32_t file = 0;  // index
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint64_t start = 0;  // bytes of all files before it
};

// Pieces of at most piece_bytes, so that one large file keeps all threads busy, in the order of the files. An empty file
// has none.
std::vector<WarmPiece> cut_pieces(const std::vector<WarmFile>& files, uint64_t piece_bytes);

class WarmReader {
 public:
  static constexpr uint64_t piece_bytes = uint64_t{64} << 20;
  static constexpr size_t read_bytes = size_t{4} << 20;

  explicit WarmReader(const std::vector<WarmFile>& files);
  WarmReader(const WarmReader&) = delete;
  WarmReader& operator=(const WarmReader&) = delete;

  // Before start: reads no further than allow() says, which begins with nothing, and tells `ahead` what it opens.
  void follow(WarmAhead& ahead) { ahead_ = &ahead; }
  // So many bytes of the files, in their order. A piece begins when all of it is allowed, or as much as may
  // ever be ahead.
  void allow(uint64_t bytes);
  void start(unsigned jobs);
  // Returns when all is read or the time is over. True: all is read.
  bool wait(unsigned timeout_ms);
  // Nothing more is asked for; the reads under way end, and then wait() says true. Not for one that follows.
  void stop() { stopped_.store(true, std::memory_order_relaxed); }
  void join();

  uint64_t bytes_read() const { return bytes_read_.load(std::memory_order_relaxed); }
  // Read to their ends, or given up.
  uint64_t files_done() const { return files_done_.load(std::memory_order_relaxed); }
  // After join().
  const std::vector<WarmFailure>& failures() const { return failures_; }

 private:
  void run();
  void wait_until_allowed(const WarmPiece& piece);
  void end_piece(const WarmPiece& piece, int os_errno);
  int read_piece(const WarmPiece& piece, std::byte* buffer);

  const std::vector<WarmFile>& files_;
  const std::vector<WarmPiece> pieces_;
  std::vector<std::thread> threads_;
  std::atomic<bool> stopped_{false};
  std::atomic<size_t> next_{0};
  std::atomic<uint64_t> bytes_read_{0};
  std::atomic<uint64_t> files_done_{0};
  std::mutex mutex_;  // all below
  std::condition_variable ended_;
  WarmAhead* ahead_ = nullptr;  // null: no waiting
  std::condition_variable more_allowed_;
  uint64_t allowed_bytes_ = 0;
  std::vector<uint32_t> pieces_left_;  // of each file
  std::vector<bool> failed_;
  unsigned running_ = 0;
  std::vector<WarmFailure> failures_;
};

}  // namespace blobcache::cli
