// One life of a node: from its start over a cache directory to a clean end, or to its death at some instant.
//   Thread    the main thread of a process of its own
#pragma once

#include <atomic>
#include <string>

#include "long/chaos_world.h"

namespace blobcache::chaos {

// Of all processes, in shared memory.
struct Totals {
  std::atomic<uint64_t> next_seed{0};
  std::atomic<uint64_t> seeds{0};
  std::atomic<uint64_t> failures{0};
  std::atomic<uint64_t> lives{0};
  std::atomic<uint64_t> kills{0};
  std::atomic<uint64_t> damages{0};
  std::atomic<uint64_t> reads{0};
  std::atomic<uint64_t> bytes_compared{0};
  std::atomic<uint64_t> memory_hits{0};
  std::atomic<uint64_t> direct_hits{0};  // disk reads straight into the reply
  std::atomic<uint64_t> disk_bytes{0};
  std::atomic<uint64_t> origin_bytes{0};
  std::atomic<uint64_t> corrupt_blocks{0};  // that the program noticed
  std::atomic<uint64_t> passed_through{0};  // files that were read as backing files
  std::atomic<uint64_t> evicted_bytes{0};
};

enum class End : uint8_t { clean, killed, copied };  // copied: killed, and the directory is a copy made while it lived

struct LifePlan {
  unsigned number = 0;
  bool last = false;
  End end = End::clean;
  std::string folder;
  std::string older;   // a copy is to be made there at some instant; empty: none
  std::string copied;  // for End::copied
};

// Empty: all that was read was right, and all was given back. Does not return when it ends by being killed. The process has
// to end afterwards: what a failed life holds stays as it is.
std::string live(const World& world, const LifePlan& plan, Totals& totals);

}  // namespace blobcache::chaos
