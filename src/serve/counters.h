// Counters: what a core did for one volume. Added to by that core only, read by the status and metrics.
#pragma once

#include <array>

#include "base/counter.h"

namespace blobcache::serve {

// Where replied bytes came from.
enum class Tier : uint8_t { memory, disk, peer, origin };
inline constexpr unsigned tier_count = 4;

// Where an error was handled; the names are in counters.cc's table and in the metrics.
enum class ErrorPlace : uint8_t { lookup, open, read, list, readlink, statfs, load, reply };
inline constexpr unsigned error_place_count = 8;

struct Counters {
  static constexpr unsigned opcodes = 64;
  std::array<Counter, opcodes> requests;
  std::array<Counter, tier_count> bytes;
  Counter reads;
  Counter memory_hits;
  Counter disk_hits;  // read straight into the reply
  Counter origin_reads;
  Counter origin_bytes;
  Counter passthrough_opens;
  Counter passthrough_bytes;  // of the objects that were opened so; what is read of them nobody tells us
  Counter prefetch_pieces;    // begun
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
  std::array<Counter, error_place_count> errors;
};

}  // namespace blobcache::serve
