#include "base/log.h"

#include <cstdio>
#include <ctime>
#include <iterator>

#include <unistd.h>

#include "base/secrets.h"
#include "base/text.h"

namespace blobcache::log {
namespace {

constexpr size_t line_bytes_max = 2048;
constexpr uint32_t lines_per_window_max = 20;
constexpr int64_t window_s = 10;

std::atomic<Level> level_now{Level::info};
std::atomic<bool> json_now{false};

std::string_view level_name(Level level) {
  switch (level) {
    case Level::debug: return "debug";
    case Level::info: return "info";
    case Level::warn: return "warn";
    case Level::error: return "error";
  }
  return "?";
}

}  // namespace

void configure(Options options) {
  level_now.store(options.level, std::memory_order_relaxed);
  const bool json =
      options.format == Format::json || (options.format == Format::automatic && isatty(STDERR_FILENO) == 0);
  json_now.store(json, std::memory_order_relaxed);
}

bool enabled(Level level) { return level >= level_now.load(std::memory_order_relaxed); }

bool Site::try_pass(uint32_t* held_back_out) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  int64_t start = window_start_s.load(std::memory_order_relaxed);
  if (start == 0 || now.tv_sec - start >= window_s) {
    if (window_start_s.compare_exchange_strong(start, now.tv_sec, std::memory_order_relaxed)) {
      lines_in_window.store(0, std::memory_order_relaxed);
    }
  }
  if (lines_in_window.fetch_add(1, std::memory_order_relaxed) < lines_per_window_max) {
    *held_back_out = lines_held_back.exchange(0, std::memory_order_relaxed);
    return true;
  }
  lines_held_back.fetch_add(1, std::memory_order_relaxed);
  return false;
}

void write_line(Level level, std::string_view text, uint32_t held_back, std::span<const Field> fields) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc{};
  gmtime_r(&now.tv_sec, &utc);
  char time_text[64];
  const size_t time_bytes = strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%S", &utc);
  const int millis = static_cast<int>(now.tv_nsec / 1'000'000);
  const std::string_view time(time_text, time_bytes);

  const std::string redacted_text = redacted(text);
  const std::string_view message = utf8_cut(redacted_text, line_bytes_max);
  fmt::memory_buffer line;
  auto out = std::back_inserter(line);
  if (json_now.load(std::memory_order_relaxed)) {
    fmt::format_to(out, R"({{"time":"{}.{:03}Z","level":"{}","message":{})", time, millis, level_name(level),
                   json_string(message));
    for (const Field& field : fields) {
      if (!field.name.empty()) fmt::format_to(out, R"(,"{}":{})", field.name, field.value);
    }
    if (held_back > 0) fmt::format_to(out, R"(,"held_back":{})", held_back);
    fmt::format_to(out, "}}\n");
  } else {
    fmt::format_to(out, "{}.{:03}Z {:<5} {}", time, millis, level_name(level), plain_text(message));
    for (const Field& field : fields) {
      if (!field.name.empty()) fmt::format_to(out, " {}={}", field.name, field.value);
    }
    if (held_back > 0) fmt::format_to(out, " ({} like it held back)", held_back);
    line.push_back('\n');
  }
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace blobcache::log
