// Whose a cache directory is, what stands against passthrough, and the words of an eviction.
#include <doctest/doctest.h>

#include "node/disks.h"
#include "node/evictions.h"

namespace blobcache::node {
namespace {

TEST_CASE("disks: a node is the same at every start, and another by machine or by name") {
  const disk_format::Uuid uuid = node_uuid("machine", "node");
  CHECK(!uuid.is_null());
  CHECK(uuid == node_uuid("machine", "node"));
  CHECK(uuid != node_uuid("machine2", "node"));
  CHECK(uuid != node_uuid("machine", "node2"));
  CHECK(uuid != node_uuid("machinen", "ode"));
  CHECK(!machine_identity().empty());
  CHECK(machine_identity() == machine_identity());
}

TEST_CASE("disks: without any there is no tier, and no passthrough") {
  const Config config;
  std::unique_ptr<DiskTier> tier;
  CHECK(open_disks(config, Plan(), &tier).exit_code == 0);
  CHECK(tier == nullptr);
  CHECK(why_no_passthrough(config, tier.get()).find("--cache-dir") != std::string::npos);
  Config off;
  REQUIRE(!set_config_option(off, "fuse.passthrough=off"));
  CHECK(why_no_passthrough(off, nullptr).find("fuse.passthrough") != std::string::npos);
}

TEST_CASE("disks: the quota of all is that of the only volume") {
  Config config;
  config.volumes.resize(1);
  CHECK(volumes_quota(config) == Amount());
  config.volumes[0].quota = {.bytes = 5};
  CHECK(volumes_quota(config) == Amount{.bytes = 5});
}

TEST_CASE("evictions: an id is 32 digits as they are printed") {
  const ObjectId id = object_id("a", "b", "c");
  const Result<ObjectId> parsed = parse_object_id(to_hex(id));
  REQUIRE(parsed);
  CHECK(*parsed == id);
  for (const std::string& wrong : {std::string(), std::string(31, 'a'), std::string(33, 'a'), std::string(32, 'A'),
                                   std::string(31, 'a') + "g", std::string(32, '\0')}) {
    CHECK(!parse_object_id(wrong));
  }
}

}  // namespace
}  // namespace blobcache::node
