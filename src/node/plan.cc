// The plan. What is fixed comes first (code, rings, FUSE entries, inode share), the arena gets the rest in units of 4 MiB.
//
//   per core     ring: SQ 1024 x 128 B, CQ 8192 x 16 B, tables            about 0.4 MiB of kernel memory
//                requests: slots x (8 KiB task stack + plan)               about 0.3 MiB for 32 slots
//   per volume   entries: queues x entries x (4 KiB + max_request)
//   HTTP         128 connections: their buffers and heads
//   per origin   over HTTP: 12 MiB, 256 KiB a transfer, 50 KiB for TLS a connection
//   per disk     index: an eighth of the limit at most, whatever would be best for the disk's size
//                each core stages two writes of small objects; a keeper and a verifier have 8 MiB together
//                and keeps account of 512 waiting writes
//                a run from disk has its checksums read beside its bytes: a page each
//   content      16 uploads of 768 KiB, 16 downloads of 256 KiB, 24 callers of 384 KiB, and 1/64 of the limit for its table
//   per frame    descriptor and index: 0.23 % of the arena, rounded up to 2 MiB
#include "node/plan.h"

#include <algorithm>
#include <fstream>

#include <fmt/format.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/memory.h"
#include "base/units.h"
#include "cache/disk_tier.h"
#include "cache/disk_writer.h"
#include "cache/memory_tier.h"
#include "fuse/inodes.h"
#include "fuse/session.h"
#include "node/content_calls.h"
#include "node/http_server.h"
#include "origin/open.h"
#include "serve/volume_server.h"

namespace blobcache::node {
namespace {

using limits::GiB;
using limits::KiB;
using limits::MiB;

constexpr uint64_t base_process_bytes = 20 * MiB;
constexpr uint64_t ring_kernel_bytes = 512 * KiB;
constexpr uint64_t request_bytes = 16 * KiB;
constexpr uint64_t frame_descriptor_bytes = 160;
constexpr uint64_t arena_bytes_min = 4 * limits::chunk_frame_bytes;
constexpr uint32_t inodes_min = 4096;
constexpr uint64_t http_texts_bytes = 2 * MiB;
constexpr uint64_t disk_thread_bytes = 8 * MiB;  // of one disk: buffers and stacks of its threads

// "0-1", "0,2-5": the number of CPUs that the kernel may ever bring up.
uint32_t count_possible_cpus() {
  std::ifstream file("/sys/devices/system/cpu/possible");
  std::string text;
  uint32_t highest = 0;
  if (file >> text) {
    const size_t last = text.find_last_of("-,");
    highest =
        static_cast<uint32_t>(std::strtoul(text.c_str() + (last == std::string::npos ? 0 : last + 1), nullptr, 10));
  } else {
    highest = static_cast<uint32_t>(sysconf(_SC_NPROCESSORS_CONF)) - 1;
  }
  return highest + 1;
}

// A directory that is not there yet is asked of by the folder that it will be in.
uint64_t filesystem_bytes(std::string path) {
  struct statvfs status{};
  while (statvfs(path.c_str(), &status) != 0) {
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos || path == "/") return 0;
    path.resize(std::max<size_t>(slash, 1));
  }
  return uint64_t{status.f_blocks} * status.f_frsize;
}

uint32_t choose_cores(const Config& config, const Machine& machine) {
  const auto usable = static_cast<uint32_t>(machine.allowed_cpus.size());
  if (config.node.cores > 0) return std::min({config.node.cores, usable, uint32_t{limits::cores_max}});
  if (usable <= 8) return usable;
  return std::min(std::max(8u, usable / 8), uint32_t{limits::cores_max});
}

void choose_transport(const Config& config, const Machine& machine, Plan& plan) {
  plan.uring = config.fuse.transport != Transport::dev;
  if (plan.uring && !machine.uring_fuse) {
    plan.uring = false;
    plan.why_not_uring =
        "FUSE over io_uring is off; as root, on Linux 6.14 or newer: echo 1 > /sys/module/fuse/parameters/enable_uring";
  }
  const auto request =
      static_cast<uint32_t>(std::min<uint64_t>(config.fuse.max_request_bytes, machine.kernel_max_request_bytes));
  if (plan.uring) {
    plan.entries = fuse::plan_entries(machine.possible_cpus, request, config.fuse.queue_memory_bytes);
    if (plan.entries.entries_per_queue > 0) return;
    plan.uring = false;
    plan.why_not_uring = fmt::format("fuse.queue_memory = {} is too small for {} queues",
                                     format_bytes(config.fuse.queue_memory_bytes), machine.possible_cpus);
  }
  plan.entries = fuse::plan_entries(plan.cores, request, config.fuse.queue_memory_bytes);
}

// Every entry of every volume owes its core a CQE, and its request may owe more: half of the CQ is theirs.
void keep_within_rings(uint32_t volumes, Plan& plan) {
  const uint32_t queues_a_core = (plan.entries.queues + plan.cores - 1) / plan.cores;
  const uint32_t entries_max = limits::ring_cqes / 2 / std::max(1u, volumes * queues_a_core);
  plan.entries.entries_per_queue = std::min(plan.entries.entries_per_queue, entries_max);
}

void plan_disks(const Config& config, const Machine& machine, Plan& plan) {
  const auto disks = static_cast<unsigned>(config.cache.disks.size());
  if (disks == 0) return;
  plan.disk_index_bytes = std::min(plan.limit_bytes / 8, DiskTier::memory_wanted(machine.disk_bytes));
  plan.disk_staging_core_bytes = DiskWriter::staging_bytes(disks, config.cache.chunk_bytes);
  const uint64_t staging = plan.disk_staging_core_bytes * plan.cores;
  plan.disk_staging_bytes =
      (staging + limits::chunk_frame_bytes - 1) / limits::chunk_frame_bytes * limits::chunk_frame_bytes;
  if (config.cache.blobs_reserved != Amount()) {
    plan.blobs_max = std::max<uint64_t>(plan.limit_bytes / 64 / BlobStore::entry_bytes, 1024);
    plan.content_bytes =
        serve::Content::memory_bytes + ContentCalls::memory_bytes + plan.blobs_max * BlobStore::entry_bytes;
  }
  // Of each core and volume; those of prefetch may turn out to be fewer.
  const uint64_t runs = serve::VolumeServer::disk_loads_max +
                        serve::Prefetcher::loads_max({.disk_loads = serve::Prefetcher::disk_loads_max,
                                                      .origin_loads = config.origin.connections});
  plan.disk_threads_bytes = disks * disk_thread_bytes +
                            plan.cores * DiskWriter::state_bytes(disks, config.cache.chunk_bytes) +
                            plan.cores * config.volumes.size() * runs * limits::page_bytes;
}

}  // namespace

Machine look_at_machine(const Config& config) {
  Machine machine;
  machine.possible_cpus = count_possible_cpus();
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) machine.allowed_cpus.push_back(cpu);
    }
  }
  if (machine.allowed_cpus.empty()) machine.allowed_cpus.push_back(0);
  machine.memory_bytes = memory_available_bytes();
  for (const DiskConfig& disk : config.cache.disks) {
    const uint64_t bytes = filesystem_bytes(disk.path);
    machine.disk_bytes += std::min(bytes, disk.size.resolve(bytes));
  }
  machine.kernel_max_request_bytes = fuse::kernel_max_request_bytes();
  machine.uring_fuse = fuse::uring_fuse_enabled();
  return machine;
}

Result<Plan> make_plan(const Config& config, const Machine& machine, std::string* message_out) {
  Plan plan;
  plan.cores = choose_cores(config, machine);
  plan.limit_bytes = config.memory.limit.resolve(machine.memory_bytes);
  const auto volumes = static_cast<uint32_t>(config.volumes.size());
  // The entries may take a quarter of a small limit at most, whatever fuse.queue_memory says; volumes share it.
  Config within = config;
  within.fuse.queue_memory_bytes = std::min<uint64_t>(config.fuse.queue_memory_bytes, plan.limit_bytes / 4) / volumes;
  choose_transport(within, machine, plan);
  keep_within_rings(volumes, plan);
  if (plan.entries.entries_per_queue == 0) {
    *message_out = fmt::format(
        "fuse.queue_memory = {} and memory.limit = {} leave no room for FUSE requests of 128KiB; raise them",
        format_bytes(config.fuse.queue_memory_bytes), format_bytes(plan.limit_bytes));
    return fail(Code::full);
  }
  plan.entries_bytes = volumes * plan.entries.total_bytes();
  const uint64_t slots = uint64_t{volumes} * plan.entries.queues * plan.entries.entries_per_queue;
  plan.base_bytes = base_process_bytes + slots * request_bytes;
  plan.kernel_bytes = plan.cores * ring_kernel_bytes;
  const uint64_t node_bytes = fuse::Inodes::bytes_per_node();
  plan.inodes_bytes = std::max<uint64_t>(plan.limit_bytes / 16, uint64_t{volumes} * inodes_min * node_bytes);
  plan.inodes_max = static_cast<uint32_t>(plan.inodes_bytes / volumes / node_bytes);

  for (const VolumeConfig& volume : config.volumes) {
    plan.origins_bytes += origin_memory_bytes(volume, config.origin, plan.cores);
  }
  if (!config.http.listen.empty()) plan.http_bytes = HttpServer::memory_bytes + http_texts_bytes;
  plan_disks(config, machine, plan);
  const uint64_t disks = plan.disk_index_bytes + plan.disk_staging_bytes + plan.disk_threads_bytes + plan.content_bytes;
  const uint64_t fixed = plan.base_bytes + plan.entries_bytes + plan.inodes_bytes + plan.kernel_bytes +
                         plan.origins_bytes + plan.http_bytes + disks;
  const uint64_t rest = plan.limit_bytes > fixed ? plan.limit_bytes - fixed : 0;
  const uint64_t usable = rest > limits::huge_page_bytes ? rest - limits::huge_page_bytes : 0;
  const uint64_t arena = usable / (limits::block_bytes + frame_descriptor_bytes) * limits::block_bytes;
  plan.arena_bytes = arena / limits::chunk_frame_bytes * limits::chunk_frame_bytes;
  plan.descriptors_bytes = plan.arena_bytes > 0 ? MemoryTier::metadata_bytes(plan.arena_bytes) : 0;
  if (plan.arena_bytes < arena_bytes_min) {
    *message_out = fmt::format(
        "memory.limit = {} is too small: {} are fixed (requests {}, inodes {}, disk tier {}, origins {}, program and "
        "rings {}) and "
        "the memory tier needs {}; give at least {}",
        format_bytes_short(plan.limit_bytes), format_bytes_short(fixed), format_bytes_short(plan.entries_bytes),
        format_bytes_short(plan.inodes_bytes), format_bytes_short(disks), format_bytes_short(plan.origins_bytes),
        format_bytes_short(plan.base_bytes + plan.kernel_bytes), format_bytes_short(arena_bytes_min),
        format_bytes_short((fixed + arena_bytes_min) * 5 / 4));
    return fail(Code::full);
  }
  return plan;
}

std::vector<PlanRow> plan_rows(const Plan& plan) {
  std::vector<PlanRow> rows{{"L0 arena", plan.arena_bytes, ""}, {"L0 descriptors", plan.descriptors_bytes, ""}};
  rows.push_back({"FUSE requests", plan.entries_bytes,
                  fmt::format("{} queues x {} entries x {}", plan.entries.queues, plan.entries.entries_per_queue,
                              format_bytes_short(plan.entries.payload_bytes))});
  rows.push_back({"inodes", plan.inodes_bytes, fmt::format("at most {} a volume", plan.inodes_max)});
  if (plan.origins_bytes > 0) rows.push_back({"origins", plan.origins_bytes, "connections, names"});
  if (plan.http_bytes > 0) rows.push_back({"HTTP", plan.http_bytes, "at most"});
  if (plan.disk_staging_bytes > 0) {
    rows.push_back({"disk index", plan.disk_index_bytes, "at most"});
    rows.push_back({"disk staging", plan.disk_staging_bytes,
                    fmt::format("{} a core", format_bytes_short(plan.disk_staging_core_bytes))});
    rows.push_back({"disk threads", plan.disk_threads_bytes, ""});
  }
  if (plan.content_bytes > 0) {
    rows.push_back({"content store", plan.content_bytes, fmt::format("at most {} blobs", plan.blobs_max)});
  }
  rows.push_back({"program", plan.base_bytes, ""});
  rows.push_back({"kernel (rings)", plan.kernel_bytes, ""});
  return rows;
}

std::string describe(const Plan& plan) {
  std::string text = fmt::format("memory plan ({} of limit, {} cores, {} transport)\n",
                                 format_bytes_short(plan.limit_bytes), plan.cores, plan.uring ? "uring" : "dev");
  for (const PlanRow& row : plan_rows(plan)) {
    text += fmt::format("  {:<22} {:>10}  {}\n", row.what, format_bytes_short(row.bytes), row.note);
  }
  return text;
}

}  // namespace blobcache::node
