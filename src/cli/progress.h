// Progress: how far a long command is, as a bar on a terminal and as plain lines elsewhere.
//   Thread    main; the texts are plain functions
#pragma once

#include <cstdint>
#include <string>

namespace blobcache::cli {

struct ProgressState {
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;
  uint64_t files_done = 0;
  uint64_t files_total = 0;
  double seconds = 0;  // since the start
};

// "[#####-----]  50%  1.00 GiB of 2.00 GiB  3 of 7 files  512 MiB/s  ETA 2 s", cut to `columns`.
std::string progress_bar(const ProgressState& state, unsigned columns);
// "50% 1.00 GiB of 2.00 GiB, 3 of 7 files, 512 MiB/s"
std::string progress_line(const ProgressState& state);

// Writes to standard error: the bar again and again over itself on a terminal, otherwise a line every few seconds.
class Progress {
 public:
  explicit Progress(bool shown);
  void show(const ProgressState& state);
  // Wipes the bar.
  void end();

 private:
  static constexpr double seconds_a_line = 5;
  bool shown_;
  bool terminal_;
  bool drawn_ = false;
  double next_line_ = seconds_a_line;
};

}  // namespace blobcache::cli
