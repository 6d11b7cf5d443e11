#include "cli/progress.h"

#include <algorithm>
#include <cstdio>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/units.h"

namespace blobcache::cli {
namespace {

constexpr unsigned columns_default = 80;
constexpr unsigned bar_columns = 20;

// Of bytes; of files where all are empty.
double share_of(const ProgressState& state) {
  if (state.bytes_total > 0) {
    return std::min(1.0, static_cast<double>(state.bytes_done) / static_cast<double>(state.bytes_total));
  }
  if (state.files_total == 0) return 1;
  return static_cast<double>(state.files_done) / static_cast<double>(state.files_total);
}

double rate_of(const ProgressState& state) {
  return state.seconds > 0 ? static_cast<double>(state.bytes_done) / state.seconds : 0;
}

std::string duration_text(double seconds) {
  const auto whole = static_cast<uint64_t>(seconds + 0.5);
  if (whole < 120) return fmt::format("{} s", whole);
  if (whole < 7200) return fmt::format("{} min", whole / 60);
  return fmt::format("{} h", whole / 3600);
}

unsigned terminal_columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : columns_default;
}

}  // namespace

std::string progress_bar(const ProgressState& state, unsigned columns) {
  const double share = share_of(state);
  const double rate = rate_of(state);
  const auto full = static_cast<unsigned>(share * bar_columns);
  std::string text = fmt::format("[{}{}] {:>3.0f}%  {} of {}  {} of {} files  {}/s", std::string(full, '#'),
                                 std::string(bar_columns - full, '-'), share * 100,
                                 format_bytes_short(state.bytes_done), format_bytes_short(state.bytes_total),
                                 state.files_done, state.files_total, format_bytes_short(static_cast<uint64_t>(rate)));
  if (rate > 0 && state.bytes_total > state.bytes_done) {
    text += fmt::format("  ETA {}", duration_text(static_cast<double>(state.bytes_total - state.bytes_done) / rate));
  }
  if (text.size() > columns) text.resize(columns);
  return text;
}

std::string progress_line(const ProgressState& state) {
  return fmt::format("{:.0f}% {} of {}, {} of {} files, {}/s", share_of(state) * 100,
                     format_bytes_short(state.bytes_done), format_bytes_short(state.bytes_total), state.files_done,
                     state.files_total, format_bytes_short(static_cast<uint64_t>(rate_of(state))));
}

Progress::Progress(bool shown) : shown_(shown), terminal_(isatty(STDERR_FILENO) == 1) {}

void Progress::show(const ProgressState& state) {
  if (!shown_) return;
  if (terminal_) {
    // The last column stays free: a full line would wrap.
    fmt::print(stderr, "\r{}\033[K", progress_bar(state, terminal_columns() - 1));
    drawn_ = true;
  } else if (state.seconds >= next_line_) {
    fmt::print(stderr, "{}\n", progress_line(state));
    next_line_ = state.seconds + seconds_a_line;
  }
  std::fflush(stderr);
}

void Progress::end() {
  if (drawn_) fmt::print(stderr, "\r\033[K");
  drawn_ = false;
}

}  // namespace blobcache::cli
