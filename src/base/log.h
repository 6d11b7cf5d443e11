// Log: one line an event, to stderr, as text on a terminal and JSON otherwise.
//   Thread    any; a line is one write(2) and never interleaves. Never on a hit path.
//   Limits    a line is cut at 2 KiB; each call site prints at most 20 lines in 10 s and then says how many it held back
//   Fields    numbers that programs look for stand apart: members of the JSON object, name=number behind the text
//   Rule      secrets are not passed in; what slips through is taken out again (base/secrets.h)
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace blobcache::log {

enum class Level : uint8_t { debug, info, warn, error };
enum class Format : uint8_t { automatic, text, json };

struct Options {
  Level level = Level::info;
  Format format = Format::automatic;  // automatic: text when stderr is a terminal
};

void configure(Options options);
bool enabled(Level level);

// Per call site; holds back what comes too often.
struct Site {
  std::atomic<int64_t> window_start_s{0};
  std::atomic<uint32_t> lines_in_window{0};
  std::atomic<uint32_t> lines_held_back{0};

  // False: hold this line back. held_back_out: lines held back before this one, to be said with it.
  bool try_pass(uint32_t* held_back_out);
};

struct Field {
  std::string_view name;  // lower case and _; empty: no field
  uint64_t value = 0;
};
// The request that an event belongs to: FUSE's number of it, the same in the tracepoints. 0: none.
inline Field request_field(uint64_t id) { return {id == 0 ? std::string_view() : "request", id}; }

void write_line(Level level, std::string_view message, uint32_t held_back, std::span<const Field> fields = {});

}  // namespace blobcache::log

// A line with the fields of a range.
#define BC_LOG_WITH(level_, fields_, ...)                                                                           \
  do {                                                                                                              \
    if (::blobcache::log::enabled(::blobcache::log::Level::level_)) {                                               \
      static ::blobcache::log::Site bc_log_site;                                                                    \
      uint32_t bc_log_held_back = 0;                                                                                \
      if (bc_log_site.try_pass(&bc_log_held_back))                                                                  \
        ::blobcache::log::write_line(::blobcache::log::Level::level_, ::fmt::format(__VA_ARGS__), bc_log_held_back, \
                                     fields_);                                                                      \
    }                                                                                                               \
  } while (false)

#define BC_LOG(level_, ...) BC_LOG_WITH(level_, ::std::span<const ::blobcache::log::Field>(), __VA_ARGS__)

// A line about one request.
#define BC_LOG_REQUEST(level_, id_, ...)                                               \
  do {                                                                                 \
    const ::blobcache::log::Field bc_log_field = ::blobcache::log::request_field(id_); \
    BC_LOG_WITH(level_, (::std::span(&bc_log_field, 1)), __VA_ARGS__);                 \
  } while (false)
