// The memory plan: adds up to no more than the limit, says why it cannot be made, chooses cores and transport.
#include <doctest/doctest.h>

#include "base/limits.h"
#include "cache/disk_writer.h"
#include "node/plan.h"
#include "serve/volume_server.h"

namespace blobcache::node {
namespace {

using limits::GiB;
using limits::MiB;

Machine machine_of(uint32_t cpus, uint64_t memory_bytes, bool uring = true) {
  Machine machine;
  machine.possible_cpus = cpus;
  for (uint32_t cpu = 0; cpu < cpus; ++cpu) machine.allowed_cpus.push_back(cpu);
  machine.memory_bytes = memory_bytes;
  machine.kernel_max_request_bytes = MiB;
  machine.uring_fuse = uring;
  return machine;
}

Config config_of(const char* limit) {
  Config config;
  REQUIRE(!set_config_option(config, "volume.source=/a"));
  REQUIRE(!set_config_option(config, "volume.mountpoint=/b"));
  REQUIRE(!set_config_option(config, std::string("memory.limit=") + limit));
  return config;
}

uint64_t total(const Plan& plan) {
  return plan.base_bytes + plan.entries_bytes + plan.inodes_bytes + plan.kernel_bytes + plan.descriptors_bytes +
         plan.disk_index_bytes + plan.disk_staging_bytes + plan.disk_threads_bytes + plan.origins_bytes +
         plan.arena_bytes;
}

Config with_disk(Config config) {
  REQUIRE(!set_config_option(config, "cache.disk.path=/c"));
  return config;
}

TEST_CASE("plan: never more than the limit, and most of it is cache") {
  for (const uint32_t cpus : {1u, 2u, 8u, 64u, 192u}) {
    for (const char* limit : {"256MiB", "1GiB", "16GiB", "512GiB"}) {
      CAPTURE(cpus);
      CAPTURE(limit);
      std::string message;
      const Result<Plan> plan = make_plan(config_of(limit), machine_of(cpus, 1024 * GiB), &message);
      if (!plan) {
        CHECK(message.find("memory.limit") != std::string::npos);
        continue;
      }
      CHECK(total(*plan) <= plan->limit_bytes);
      CHECK(plan->entries_bytes <= plan->limit_bytes / 4 + limits::page_bytes);
      CHECK(plan->arena_bytes % limits::chunk_frame_bytes == 0);
      if (plan->limit_bytes >= GiB) CHECK(plan->arena_bytes >= plan->limit_bytes / 2);
    }
  }
}

TEST_CASE("plan: the disk tier's memory is within the limit, and takes no more than an eighth for its index") {
  for (const uint32_t cpus : {1u, 2u, 64u}) {
    for (const char* limit : {"256MiB", "1GiB", "64GiB"}) {
      CAPTURE(cpus);
      CAPTURE(limit);
      Machine machine = machine_of(cpus, 1024 * GiB);
      machine.disk_bytes = 16 * 1024 * GiB;
      std::string message;
      const Result<Plan> plan = make_plan(with_disk(config_of(limit)), machine, &message);
      if (!plan) {
        CHECK(message.find("disk tier") != std::string::npos);
        continue;
      }
      CHECK(total(*plan) <= plan->limit_bytes);
      CHECK(plan->disk_index_bytes <= plan->limit_bytes / 8);
      // Two writes of the largest small object for each core, and the frames begin on a huge page.
      CHECK(plan->disk_staging_core_bytes >= 2 * limits::chunk_bytes_default);
      CHECK(plan->disk_staging_core_bytes % limits::page_bytes == 0);
      CHECK(plan->disk_staging_bytes >= plan->cores * plan->disk_staging_core_bytes);
      CHECK(plan->disk_staging_bytes % limits::chunk_frame_bytes == 0);
      CHECK(describe(*plan).find("disk index") != std::string::npos);
      CHECK(describe(*plan).find("disk staging") != std::string::npos);
      // A page of checksums for each run from disk that a core may have in flight, and its writer.
      const uint64_t checksums = serve::VolumeServer::disk_loads_max * limits::page_bytes;
      CHECK(plan->disk_threads_bytes >=
            plan->cores * (checksums + DiskWriter::state_bytes(1, limits::chunk_bytes_default)));
      // A small disk needs less of an index than a large one.
      machine.disk_bytes = GiB;
      const Result<Plan> small = make_plan(with_disk(config_of(limit)), machine, &message);
      CHECK(small->disk_index_bytes <= plan->disk_index_bytes);
      CHECK(small->arena_bytes >= plan->arena_bytes);
    }
  }
  std::string message;
  const Result<Plan> without = make_plan(config_of("1GiB"), machine_of(2, 24 * GiB), &message);
  CHECK(without->disk_index_bytes + without->disk_staging_bytes + without->disk_threads_bytes == 0);
  CHECK(describe(*without).find("disk") == std::string::npos);
}

TEST_CASE(
    "plan: the size of a disk is that of its filesystem, also before its folder is made, or less where it is told") {
  Config config = with_disk(config_of("1GiB"));
  config.cache.disks[0].path = "/tmp/no-such-folder/nor-this-one";
  const uint64_t whole = look_at_machine(config).disk_bytes;
  CHECK(whole > 0);
  REQUIRE(!set_config_option(config, "cache.disk.size=50%"));
  CHECK(look_at_machine(config).disk_bytes < whole);
  REQUIRE(!set_config_option(config, "cache.disk.size=1MiB"));
  CHECK(look_at_machine(config).disk_bytes == MiB);
}

TEST_CASE("plan: connections to a web server are within the limit, those to a directory cost nothing") {
  std::string message;
  const Machine machine = machine_of(8, 64 * GiB);
  const Result<Plan> directory = make_plan(config_of("1GiB"), machine, &message);
  Config config = config_of("1GiB");
  REQUIRE(!set_config_option(config, "volume.source=s3://bucket"));
  const Result<Plan> few = make_plan(config, machine, &message);
  REQUIRE(!set_config_option(config, "origin.connections=512"));
  const Result<Plan> many = make_plan(config, machine, &message);
  REQUIRE((directory && few && many));
  CHECK(directory->origins_bytes == 0);
  CHECK(few->origins_bytes >= 16 * 256 * limits::KiB);
  CHECK(many->origins_bytes >= 512 * 256 * limits::KiB);
  for (const Result<Plan>* plan : {&directory, &few, &many}) CHECK(total(**plan) <= (*plan)->limit_bytes);
  CHECK(many->arena_bytes < few->arena_bytes);
  CHECK(describe(*few).find("origins") != std::string::npos);
}

TEST_CASE("plan: a limit too small is refused with what to give") {
  std::string message;
  CHECK(!make_plan(config_of("1MiB"), machine_of(2, 24 * GiB), &message));
  CHECK(message.find("memory.limit") != std::string::npos);
  CHECK(message.find("raise") != std::string::npos);
  CHECK(!make_plan(config_of("40MiB"), machine_of(2, 24 * GiB), &message));
  CHECK(message.find("give at least") != std::string::npos);
}

TEST_CASE("plan: all CPUs up to eight, then an eighth but at least eight; a number is a number") {
  std::string message;
  const auto cores = [&](uint32_t cpus, uint32_t wanted) {
    Config config = config_of("64GiB");
    config.node.cores = wanted;
    return make_plan(config, machine_of(cpus, 1024 * GiB), &message)->cores;
  };
  CHECK(cores(2, 0) == 2);
  CHECK(cores(8, 0) == 8);
  CHECK(cores(32, 0) == 8);
  CHECK(cores(192, 0) == 24);
  CHECK(cores(2, 1) == 1);
  CHECK(cores(2, 16) == 2);
}

TEST_CASE("plan: uring where it is on, dev with the reason where it is not") {
  std::string message;
  CHECK(make_plan(config_of("1GiB"), machine_of(2, 24 * GiB, true), &message)->uring);
  const Result<Plan> without = make_plan(config_of("1GiB"), machine_of(2, 24 * GiB, false), &message);
  CHECK(!without->uring);
  CHECK(without->why_not_uring.find("enable_uring") != std::string::npos);
  Config dev = config_of("1GiB");
  dev.fuse.transport = Transport::dev;
  const Result<Plan> chosen = make_plan(dev, machine_of(2, 24 * GiB, true), &message);
  CHECK(!chosen->uring);
  CHECK(chosen->why_not_uring.empty());
  // 192 queues do not fit into a quarter of 256 MiB even at 128 KiB a request.
  const Result<Plan> crowded = make_plan(config_of("256MiB"), machine_of(192, 24 * GiB, true), &message);
  if (crowded) CHECK(!crowded->uring);
}

}  // namespace
}  // namespace blobcache::node
