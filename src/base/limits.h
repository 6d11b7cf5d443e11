// Limits: every bound of the program in one place, with the arithmetic behind it.
//   Thread    constants
#pragma once

#include <cstddef>
#include <cstdint>

namespace blobcache::limits {

inline constexpr size_t KiB = 1024;
inline constexpr size_t MiB = 1024 * KiB;
inline constexpr size_t GiB = 1024 * MiB;

inline constexpr size_t page_bytes = 4 * KiB;
inline constexpr size_t huge_page_bytes = 2 * MiB;

// A block is the unit of checksum and of partial validity: 64 KiB is 1/64 of a default chunk, costs 8 bytes of checksum
// (0.012 %), and is read from NVMe in about the latency of 4 KiB.
inline constexpr size_t block_bytes = 64 * KiB;
inline constexpr size_t chunk_bytes_min = 1 * MiB;
inline constexpr size_t chunk_bytes_max = 16 * MiB;
inline constexpr size_t chunk_bytes_default = 4 * MiB;
// 64 blocks in a default chunk: validity is one machine word. Larger chunks use several frames of this size.
inline constexpr size_t chunk_frame_bytes = 4 * MiB;
inline constexpr unsigned blocks_per_chunk_frame = chunk_frame_bytes / block_bytes;
static_assert(blocks_per_chunk_frame == 64);

inline constexpr unsigned cores_max = 64;

// One ring: every FUSE entry owes a CQE, every request in flight at most a chain of four. 32 entries for 16 queues are
// 512; the rest is for disk and sockets. 8192 CQEs of 16 bytes are 128 KiB of kernel memory a core.
inline constexpr unsigned ring_sqes = 1024;
inline constexpr unsigned ring_cqes = 8192;
// Worker threads of a ring for what would block: twice the requests that 32 FUSE entries can have at an origin.
inline constexpr unsigned ring_workers_max = 64;
inline constexpr unsigned ring_files_max = 64;
// Registered buffers a ring has room for: the arena in pieces of at most 1 GiB, and the FUSE entries.
inline constexpr unsigned ring_buffers_max = 512;
inline constexpr size_t ring_buffer_bytes_max = 1 * GiB;

// FUSE entries in each queue: enough that 512 background requests of one node do not wait on the queue of one CPU,
// within fuse.queue_memory.
inline constexpr unsigned queue_entries_max = 32;
inline constexpr unsigned queue_entries_min = 4;
inline constexpr size_t request_bytes_min = 128 * KiB;
inline constexpr size_t request_bytes_max = 16 * MiB;

// The frame stack of one request: the deepest chain of tasks (dispatch -> read miss -> load) took 2.1 KiB with g++ 12
// and 1.6 KiB with clang 19.
inline constexpr size_t task_stack_bytes = 8 * KiB;

inline constexpr size_t name_bytes_max = 255;
inline constexpr size_t path_bytes_max = 4096;

}  // namespace blobcache::limits
