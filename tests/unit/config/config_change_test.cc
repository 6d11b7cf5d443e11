// What a configuration that was read again changes.
#include <doctest/doctest.h>

#include "base/config_change.h"
#include "base/config_keys.h"

using namespace blobcache;

namespace {

Config read(const std::string& text) {
  Config config;
  const Problems problems = load_config_text(config, text, "file");
  REQUIRE(problems == Problems{});
  return config;
}

constexpr const char* two_volumes = R"(
[fuse]
entry_timeout = "5s"
[[cache.disk]]
path = "/d"
[[volume]]
source = "/a"
mountpoint = "/ma"
revalidate = "1s"
[[volume]]
source = "/b"
mountpoint = "/mb"
)";

TEST_CASE("config change: the same file changes nothing") {
  CHECK(config_changes(read(two_volumes), read(two_volumes)).empty());
}

TEST_CASE("config change: each change is told with its place, values and whether it takes effect") {
  const Config before = read(two_volumes);
  Config after = before;
  after.fuse.entry_timeout_ns = 9'000'000'000;
  after.node.cores = 3;
  after.cache.disks[0].high_watermark = 0.5;
  after.volumes[1].source = "/c";
  std::string told;
  for (const ConfigChange& change : config_changes(before, after)) {
    told += change.place + ":" + change.before + ">" + change.after + (change.reloadable ? "!" : "") + " ";
  }
  CHECK(told ==
        "node.cores:auto>3 fuse.entry_timeout:5s>9s! cache.disk[0].high_watermark:90%>50%! volume[1].source:/b>/c ");
}

TEST_CASE("config change: volumes are told apart by mount point, whatever their order") {
  const Config before = read(two_volumes);
  Config after = before;
  std::swap(after.volumes[0], after.volumes[1]);
  CHECK(config_changes(before, after).empty());
  after.volumes[0].mountpoint = "/mc";  // it was /mb
  const std::vector<ConfigChange> changes = config_changes(before, after);
  REQUIRE(changes.size() == 2);
  CHECK(changes[0].before == "/mb");
  CHECK(changes[0].after == "");
  CHECK(changes[1].before == "");
  CHECK(changes[1].after == "/mc");
  CHECK(!changes[0].reloadable);
  CHECK(!changes[1].reloadable);
}

TEST_CASE("config change: secrets are told of, not told") {
  const Config before = read(two_volumes);
  Config after = before;
  after.volumes[0].s3.credentials = "/etc/keys-of-ours";
  const std::vector<ConfigChange> changes = config_changes(before, after);
  REQUIRE(changes.size() == 1);
  CHECK(changes[0].after == "(set)");
}

TEST_CASE("config change: only what is reloadable is taken over, also into a configuration with other paths") {
  const Config written = read(two_volumes);
  Config in_force = written;
  in_force.volumes[0].mountpoint = "/real/ma";
  in_force.volumes[1].mountpoint = "/real/mb";
  Config fresh = written;
  std::swap(fresh.volumes[0], fresh.volumes[1]);
  fresh.volumes[1].profile = Profile::model;
  fresh.log.level = log::Level::error;
  fresh.fuse.attr_timeout_ns = 1;
  fresh.memory.limit.share = 0.5;
  take_reloadable(in_force, written, fresh);
  CHECK(in_force.fuse.attr_timeout_ns == 1);
  CHECK(in_force.memory.limit.share == written.memory.limit.share);
  CHECK(in_force.log.level == log::Level::error);
  CHECK(in_force.volumes[0].profile == written.volumes[0].profile);
  CHECK(in_force.volumes[0].mountpoint == "/real/ma");
}

}  // namespace
