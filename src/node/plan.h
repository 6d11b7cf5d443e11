// Plan: how many cores, and what the memory goes to. Made before anything is taken, printed at start, kept to.
//   Thread    pure; the main thread
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/config.h"
#include "base/result.h"
#include "fuse/entries.h"

namespace blobcache::node {

struct Machine {
  uint32_t possible_cpus = 0;          // queues of FUSE over io_uring
  std::vector<unsigned> allowed_cpus;  // this process may run on
  uint64_t memory_bytes = 0;
  uint64_t disk_bytes = 0;  // that the cache may take of all its disks
  uint32_t kernel_max_request_bytes = 0;
  bool uring_fuse = false;
};
Machine look_at_machine(const Config& config);

struct Plan {
  uint32_t cores = 0;
  bool uring = false;         // FUSE over io_uring
  std::string why_not_uring;  // empty when it is, or was not wanted
  uint64_t limit_bytes = 0;
  fuse::EntriesGeometry entries;         // of each volume
  uint64_t base_bytes = 0;               // code, stacks, heap, request state
  uint64_t entries_bytes = 0;            // all volumes
  uint64_t inodes_bytes = 0;             // grows into this, all volumes
  uint32_t inodes_max = 0;               // each volume
  uint64_t kernel_bytes = 0;             // rings
  uint64_t origins_bytes = 0;            // connections, their buffers, names; all volumes
  uint64_t http_bytes = 0;               // connections and texts of the endpoint
  uint64_t descriptors_bytes = 0;        // of L0 frames
  uint64_t disk_index_bytes = 0;         // index and eviction
  uint64_t disk_staging_core_bytes = 0;  // of each core's writer
  uint64_t disk_staging_bytes = 0;       // of all cores, a multiple of 4 MiB; the first part of the arena's memory
  uint64_t content_bytes = 0;            // of the content store: uploads, downloads, its table
  uint64_t blobs_max = 0;                // that the table has room for
  uint64_t disk_threads_bytes = 0;       // keepers, verifiers; of all cores: waiting writes, checksums of loads
  uint64_t arena_bytes = 0;              // of L0 frames
};

// Errors: message_out says what is too small and what to change.
Result<Plan> make_plan(const Config& config, const Machine& machine, std::string* message_out);
// What the limit goes to. The rest of it is room for what is not foreseen.
struct PlanRow {
  std::string_view what;
  uint64_t bytes = 0;
  std::string note;
};
std::vector<PlanRow> plan_rows(const Plan& plan);
// One line a row, aligned, for people.
std::string describe(const Plan& plan);

}  // namespace blobcache::node
