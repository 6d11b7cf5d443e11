// Keys by option and environment, the cross-checks, and the texts that the table writes.
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include <doctest/doctest.h>

#include "base/config.h"
#include "base/config_keys.h"

using namespace blobcache;

namespace {

std::string set(Config& config, std::string_view assignment) {
  return set_config_option(config, assignment).value_or("");
}

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

Problems check_with(std::initializer_list<const char*> options) {
  Config config;
  for (const char* option : options) REQUIRE(set(config, option) == "");
  return check_config(config);
}

}  // namespace

TEST_CASE("config: the defaults are the contract's") {
  const Config config;
  CHECK(config.node.cores == 0);
  CHECK(!config.node.name.empty());
  CHECK(config.node.name != "hostname");
  CHECK(config.memory.limit == Amount{0, 0.25, true});
  CHECK(config.cache.chunk_bytes == 4u << 20);
  CHECK(config.fuse.transport == Transport::automatic);
  CHECK(config.fuse.max_request_bytes == 1u << 20);
  CHECK(config.fuse.read_ahead_bytes == config_automatic);
  CHECK(config.fuse.entry_timeout_ns == 5'000'000'000);
  CHECK(config.fuse.negative_timeout_ns == 2'000'000'000);
  CHECK(config.origin.connections == 16);
  CHECK(config.http.listen == "127.0.0.1:9170");
  CHECK(config.log.level == log::Level::info);
  CHECK(VolumeConfig().revalidate_ns == 60'000'000'000);
  CHECK(VolumeConfig().file_mode == 0444);
  CHECK(DiskConfig().high_watermark == 0.9);
  CHECK(check_config(config).empty());
}

TEST_CASE("config: every key can be set to its default, and reads back as it") {
  std::set<std::string_view> names;
  for (const Key& key : config_keys()) {
    CAPTURE(key.name);
    CHECK(names.insert(key.name).second);
    CHECK(!key.meaning.empty());
    if (key.name == "node.name") continue;  // "hostname" stands for another text
    Config config;
    CHECK(set(config, std::string(key.name) + "=" + std::string(key.default_text)) == "");
    const void* base = key.group() == KeyGroup::single ? static_cast<void*>(&config)
                       : key.group() == KeyGroup::disk ? static_cast<void*>(config.cache.disks.data())
                                                       : static_cast<void*>(config.volumes.data());
    const std::string_view expected = key.default_text == "60s" ? "1min" : key.default_text;
    CHECK(value_text(key, base) == expected);
  }
}

TEST_CASE("config: options") {
  Config config;
  CHECK(set(config, "fuse.transport=dev") == "");
  CHECK(config.fuse.transport == Transport::dev);
  CHECK(config.set_by.at("fuse.transport") == "option");
  CHECK(set(config, "volume.revalidate=never") == "");
  REQUIRE(config.volumes.size() == 1);
  CHECK(config.volumes[0].revalidate_ns == config_never_ns);
  CHECK(set(config, "volume.s3.endpoint=http://a=b") == "");
  CHECK(config.volumes[0].s3.endpoint == "http://a=b");
  CHECK(config.volumes.size() == 1);
  CHECK(set(config, "cache.disk.path=/x") == "");
  CHECK(config.cache.disks.at(0).path == "/x");
  CHECK(set(config, "peers.members=a:1,b:2") == "");
  CHECK(config.peers.members == std::vector<std::string>{"a:1", "b:2"});
  config.volumes.emplace_back();
  CHECK(contains(set(config, "volume.id=x"), "there are 2"));
}

TEST_CASE("config: a wrong option names key, value, cause and remedy") {
  Config config;
  CHECK(contains(set(config, "fuse.transprot=dev"), "fuse.transport"));
  CHECK(contains(set(config, "fuse.chunk_size=1MiB"), "cache.chunk_size"));
  CHECK(contains(set(config, "chunk_size=1MiB"), "cache.chunk_size"));
  CHECK(contains(set(config, "fuse.transport=tcp"), "auto | uring | dev"));
  CHECK(contains(set(config, "node.cores=0"), "from 1 to 64"));
  CHECK(contains(set(config, "node.cores=65"), "\"65\""));
  CHECK(contains(set(config, "memory.limit=4MiBx"), "memory.limit = \"4MiBx\""));
  CHECK(contains(set(config, "cache.chunk_size=512KiB"), "1MiB and 16MiB"));
  CHECK(contains(set(config, "prefetch.enabled=yes"), "true nor false"));
  CHECK(contains(set(config, "volume.name=a\nb"), "control character"));
  CHECK(contains(set(config, "peers.members=a:1,,b:2"), "comma"));
  for (const char* text : {"", "=", "=x", "nothing", "\xff\xff=1"}) CHECK(set(config, text) != "");
  CHECK(!contains(set(config, "volume.s3.credentials=" + std::string(5000, 's')), "sss"));
  CHECK(set(config, std::string(1u << 20, 'k') + "=1").size() < 300);
}

TEST_CASE("config: environment") {
  Config config;
  const char* good[] = {"PATH=/bin",
                        "BLOBCACHE_FUSE_TRANSPORT=uring",
                        "BLOBCACHE_CACHE_CHUNK_SIZE=8MiB",
                        "BLOBCACHE_PRETEND_ABSENT=x",
                        "BLOBCACHE_PORT=tcp://10.0.0.1:80",
                        "BLOBCACHE=1",
                        nullptr};
  CHECK(load_config_environment(config, good).empty());
  CHECK(config.fuse.transport == Transport::uring);
  CHECK(config.cache.chunk_bytes == 8u << 20);
  CHECK(config.set_by.at("cache.chunk_size") == "BLOBCACHE_CACHE_CHUNK_SIZE");
  const char* near[] = {"BLOBCACHE_FUSE_TRANSPROT=dev", nullptr};
  REQUIRE(load_config_environment(config, near).size() == 1);
  CHECK(contains(load_config_environment(config, near)[0], "BLOBCACHE_FUSE_TRANSPORT"));
  const char* wrong[] = {"BLOBCACHE_NODE_CORES=many", nullptr};
  REQUIRE(load_config_environment(config, wrong).size() == 1);
  CHECK(contains(load_config_environment(config, wrong)[0], "BLOBCACHE_NODE_CORES"));
  // Arrays are not reached from the environment.
  const char* array[] = {"BLOBCACHE_VOLUME_SOURCE=/x", nullptr};
  CHECK(load_config_environment(config, array).empty());
  CHECK(config.volumes.empty());
}

TEST_CASE("config: keys that do not fit together") {
  CHECK(contains(check_with({"cache.chunk_size=3MiB"}).at(0), "power of two"));
  CHECK(contains(check_with({"fuse.max_request=1000001B"}).at(0), "4KiB"));
  CHECK(contains(check_with({"fuse.queue_memory=1MiB", "fuse.max_request=2MiB"}).at(0), "fuse.max_request"));
  CHECK(contains(check_with({"cache.disk.low_watermark=90%"}).at(0), "high_watermark"));
  CHECK(contains(check_with({"cache.disk.path=relative"}).at(0), "absolute"));
  CHECK(contains(check_with({"memory.limit=0"}).at(0), "memory.limit"));
  CHECK(contains(check_with({"memory.limit=0%"}).at(0), "memory.limit"));
  CHECK(contains(check_with({"prefetch.min_window=65"}).at(0), "max_window"));
  CHECK(contains(check_with({"origin.attempt_timeout=61s"}).at(0), "origin.deadline"));
  CHECK(contains(check_with({"http.listen=9170"}).at(0), "HOST:PORT"));
  CHECK(contains(check_with({"http.listen=::1:9170"}).at(0), "HOST:PORT"));
  CHECK(check_with({"http.listen=[::1]:9170"}).empty());
  CHECK(contains(check_with({"peers.listen=a:1"}).at(0), "peers.secret_file"));
  CHECK(contains(check_with({"volume.source=/a", "volume.mountpoint=m"}).at(0), "(set by option)"));
  CHECK(contains(check_with({"volume.source=/a", "volume.mountpoint=/m/../n"}).at(0), "absolute"));
  CHECK(contains(check_with({"volume.source=ftp://h/", "volume.mountpoint=/m"}).at(0), "s3://"));
  CHECK(!contains(check_with({"volume.source=ftp://u:secret@h/", "volume.mountpoint=/m"}).at(0), "secret"));
  CHECK(check_with({"volume.source=s3://b/p", "volume.mountpoint=/m"}).empty());
  Config config;
  config.volumes.resize(2);
  for (VolumeConfig& volume : config.volumes) volume.source = volume.mountpoint = "/same";
  CHECK(contains(check_config(config).at(0), "another volume"));
}

TEST_CASE("config: a quota that would not be kept, and an index that would be made all the time, are refused") {
  Config config;
  config.volumes.resize(2);
  for (VolumeConfig& volume : config.volumes) volume.source = "/source";
  config.volumes[0].mountpoint = "/one";
  config.volumes[1].mountpoint = "/two";
  CHECK(check_config(config).empty());
  config.volumes[1].quota = {.bytes = 1};
  REQUIRE(check_config(config).size() == 1);
  CHECK(contains(check_config(config)[0], "volume[1].quota"));
  config.volumes.erase(config.volumes.begin());
  CHECK(check_config(config).empty());
  config.volumes[0].index = Indexing::on;
  config.volumes[0].revalidate_ns = 9'999'999'999;
  REQUIRE(check_config(config).size() == 1);
  CHECK(contains(check_config(config)[0], "volume[0].revalidate"));
  config.volumes[0].revalidate_ns = 10'000'000'000;
  CHECK(check_config(config).empty());
}

TEST_CASE("config: values for programs are those that are shown, secrets as little as there") {
  Config config;
  config.volumes.resize(1);
  REQUIRE(set(config, "log.level=warn") == "");
  config.volumes[0].s3.credentials = "/etc/keys-of-ours";
  std::map<std::string, ShownValue> found;
  for (const ShownValue& shown : shown_values(config)) CHECK(found.emplace(shown.place, shown).second);
  CHECK(found.at("log.level").value == "warn");
  CHECK(found.at("log.level").from != "default");
  CHECK(found.at("log.format").from == "default");
  CHECK(found.at("volume[0].s3.credentials").value == "(set)");
  for (const auto& [place, shown] : found) {
    CAPTURE(place);
    CHECK(contains(show_config(config), place.substr(place.rfind('.') + 1) + " = "));
  }
}

TEST_CASE("config: nearest key by distance") {
  CHECK(edit_distance("", "") == 0);
  CHECK(edit_distance("abc", "") == 3);
  CHECK(edit_distance("transprot", "transport") == 1);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance(std::string(1000, 'a'), std::string(1000, 'b')) == 64);
  CHECK(nearest_key("fuse.entry_timout").name == "fuse.entry_timeout");
  CHECK(nearest_key("volume.mount_point").name == "volume.mountpoint");
}

TEST_CASE("config: show says where a value came from, and no secret") {
  Config config;
  REQUIRE(set(config, "volume.s3.credentials=/root/key-file") == "");
  REQUIRE(set(config, "volume.source=https://user:hunter2@host/p@th") == "");
  REQUIRE(set(config, "peers.etcd=http://user:hunter2@e:1,http://f:2") == "");
  const std::string text = show_config(config);
  CHECK(!contains(text, "key-file"));
  CHECK(!contains(text, "hunter2"));
  CHECK(contains(text, "credentials = \"(set)\""));
  CHECK(contains(text, "https://***@host/p@th"));
  CHECK(contains(text, "# option"));
  CHECK(contains(text, "# default"));
  CHECK(contains(show_config(Config()), "limit = \"25%\""));
}

TEST_CASE("config: what show prints is read back as the same configuration") {
  Config config;
  REQUIRE(set(config, "volume.source=/a \"quoted\" \\ path") == "");
  REQUIRE(set(config, "peers.members=a:1,b:2") == "");
  REQUIRE(set(config, "node.cores=3") == "");
  Config again;
  const Problems problems = load_config_text(again, show_config(config), "shown");
  CHECK(problems == Problems{});
  again.set_by = config.set_by;
  CHECK(show_config(again) == show_config(config));
}

TEST_CASE("config: the shipped file is the table's") {
  std::ifstream file(BLOBCACHE_SOURCE_ROOT "/config/blobcache.toml");
  REQUIRE(file.good());
  const std::string shipped((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  // When this differs: blobcache config reference --toml > config/blobcache.toml
  CHECK(shipped == config_example());
  Config config;
  CHECK(load_config_text(config, shipped, "shipped").empty());
  // With every key uncommented it is still a file without an unknown key or an impossible value.
  std::string uncommented;
  for (size_t at = 0; at < shipped.size();) {
    const size_t end = shipped.find('\n', at);
    std::string line = shipped.substr(at, end - at);
    if (line.size() > 1 && line[0] == '#' && line[1] != ' ') line.erase(0, 1);
    uncommented += line + "\n";
    at = end + 1;
  }
  CHECK(load_config_text(config, uncommented, "all") == Problems{});
  CHECK(config.volumes.size() == 1);
  CHECK(config.set_by.size() == config_keys().size());
}

TEST_CASE("config: the reference names every key") {
  const std::string text = config_reference();
  for (const Key& key : config_keys()) {
    CHECK(contains(text, "\n" + std::string(key.name) + "\n"));
    CHECK(contains(text, key.meaning));
  }
}
