// Counters: what a core did for one volume. Added to by that core only, read by the status and metrics.
#pragma once

#include <array>

#include "base/counter.h"
#include "base/histogram.h"
#include "base/result.h"
#include "serve/operation_kind.h"

namespace blobcache::serve {

// Where replied bytes came from.
enum class Tier : uint8_t { memory, disk, peer, origin };
inline constexpr unsigned tier_count = 4;

// Where an error was handled.
enum class ErrorPlace : uint8_t { lookup, open, read, list, readlink, statfs, load, reply };
inline constexpr unsigned error_place_count = 8;
inline std::string_view error_place_name(ErrorPlace place) {
  constexpr std::array<std::string_view, error_place_count> names{"lookup",   "open",   "read", "list",
                                                                  "readlink", "statfs", "load", "reply"};
  return names[static_cast<unsigned>(place)];
}

struct Counters {
  static constexpr unsigned opcodes = 64;
  std::array<Counter, opcodes> requests;
  std::array<Histogram, operation_kinds> latency;  // from a request's arrival to its reply
  std::array<Counter, tier_count> bytes;           // replied to READs, each by the farthest tier that it waited for
  std::array<Counter, tier_count> replies;         // those READs
  Counter reads;                                   // all that came
  Counter memory_hits;
  Counter disk_hits;  // read straight into the reply
  Counter origin_reads;
  Counter origin_bytes;
  Counter passthrough_opens;
  Counter passthrough_bytes;      // of the objects that were opened so; what is read of them nobody tells us
  Counter prefetch_pieces;        // begun
  Counter prefetch_files;         // before anybody had opened them
  Counter prefetch_files_opened;  // of these
  std::array<Counter, tier_count> prefetch_bytes;  // that came
  Counter prefetch_used_bytes;
  Counter prefetch_wasted_bytes;    // nobody read them while they were there
  Counter prefetch_canceled_bytes;  // wanted for a while, not begun
  Counter prefetch_failed;          // pieces
  Counter prefetch_linked_bytes;    // read from disk by chains of two or more
  Counter prefetch_chains;
  Counter prefetch_submissions;    // of chains, each in one io_uring_enter
  Counter prefetch_chains_broken;  // reads that another one's failure canceled
  Counter prefetch_in_flight_max;  // pieces at a time
  Counter interrupts;
  Counter deadlines;
  std::array<std::array<Counter, code_count>, error_place_count> errors;

  void add_error(ErrorPlace place, Code code) {
    errors[static_cast<unsigned>(place)][static_cast<unsigned>(code)].add(1);
  }
  void add_reply(Tier tier, uint64_t reply_bytes) {
    bytes[static_cast<unsigned>(tier)].add(reply_bytes);
    replies[static_cast<unsigned>(tier)].add(1);
  }
};

}  // namespace blobcache::serve
