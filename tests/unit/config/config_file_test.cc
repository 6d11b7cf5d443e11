// TOML files: what is read, and how mistakes and hostile texts are told.
#include <cerrno>
#include <cstdlib>

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/config.h"

using namespace blobcache;

namespace {

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// The one problem that the text has.
std::string problem_of(std::string_view text) {
  Config config;
  const Problems problems = load_config_text(config, text, "f");
  CAPTURE(problems);
  REQUIRE(problems.size() == 1);
  return problems[0];
}

}  // namespace

TEST_CASE("config file: values of every type, with where they came from") {
  Config config;
  const Problems problems = load_config_text(config, R"(
[node]
name = "n1"
cores = 4
[memory]
limit = "1GiB"
[cache]
chunk_size = 8388608
[[cache.disk]]
path = "/a"
[[cache.disk]]
path = "/b"
high_watermark = "80%"
low_watermark = "70%"
[fuse]
transport = "uring"
entry_timeout = "1.5s"
[prefetch]
enabled = false
[[volume]]
source = "s3://b/p"
mountpoint = "/m"
file_mode = "0400"
  [volume.s3]
  endpoint = "http://e"
[[volume]]
source = "/d"
mountpoint = "/n"
revalidate = "never"
[peers]
members = ["a:1", "b:2"]
)",
                                             "f");
  CHECK(problems == Problems{});
  CHECK(config.node.name == "n1");
  CHECK(config.node.cores == 4);
  CHECK(config.memory.limit == Amount{1u << 30, 0, false});
  CHECK(config.cache.chunk_bytes == 8u << 20);
  REQUIRE(config.cache.disks.size() == 2);
  CHECK(config.cache.disks[0].high_watermark == 0.9);
  CHECK(config.cache.disks[1].path == "/b");
  CHECK(config.cache.disks[1].high_watermark == 0.8);
  CHECK(config.fuse.entry_timeout_ns == 1'500'000'000);
  CHECK(!config.prefetch.enabled);
  REQUIRE(config.volumes.size() == 2);
  CHECK(config.volumes[0].s3.endpoint == "http://e");
  CHECK(config.volumes[0].file_mode == 0400);
  CHECK(config.volumes[1].s3.endpoint == "");
  CHECK(config.volumes[1].revalidate_ns == config_never_ns);
  CHECK(config.peers.members.size() == 2);
  CHECK(config.set_by.at("node.cores") == "f:4");
  CHECK(config.set_by.at("cache.disk[1].path") == "f:12");
  CHECK(config.set_by.at("volume[0].s3.endpoint") == "f:25");
  CHECK(check_config(config).empty());
}

TEST_CASE("config file: mistakes are told with line and nearest key") {
  CHECK(problem_of("[fuse]\n\ntransprot = \"dev\"\n") ==
        "f:3: fuse.transprot is no key; the nearest is fuse.transport");
  CHECK(problem_of("[fues]\ntransport = \"dev\"\n") == "f:2: fues.transport is no key; the nearest is fuse.transport");
  CHECK(contains(problem_of("[fues]\n"), "f:1: fues is no key"));
  CHECK(contains(problem_of("[[volumes]]\nname = \"x\"\n"), "f:1: volumes is no key; the nearest is volume."));
  CHECK(contains(problem_of("chunk_size = \"4MiB\"\n"), "f:1: chunk_size is no key; the nearest is cache.chunk_size"));
  CHECK(contains(problem_of("[fuse]\nmax_background = \"512\"\n"),
                 "f:2: fuse.max_background is a string; write it as 8"));
  CHECK(contains(problem_of("[fuse]\nentry_timeout = 5\n"), "whole number; write it as \"5s\""));
  CHECK(contains(problem_of("[prefetch]\nenabled = \"true\"\n"), "write it as true"));
  CHECK(contains(problem_of("[memory]\nlimit = 0.25\n"), "number with decimals"));
  CHECK(contains(problem_of("[memory]\nlimit = -1\n"), "memory.limit = \"-1B\""));
  CHECK(contains(problem_of("[cache]\nchunk_size = 1e400\n"), "f:2: "));
  CHECK(contains(problem_of("[[volume]]\nfile_mode = 444\n"), "\"0444\""));
  CHECK(contains(problem_of("[volume]\nname = \"x\"\n"), "[[volume]]"));
  CHECK(contains(problem_of("volume = [1]\n"), "[[volume]]"));
  CHECK(contains(problem_of("[peers]\nmembers = [\"a:1\", 2]\n"), "f:2: peers.members"));
  CHECK(contains(problem_of("[peers]\nmembers = \"a:1\"\n"), "write it as ["));
  CHECK(contains(problem_of("[node.name]\nx = 1\n"), "f:1: node.name is a table"));
  CHECK(contains(problem_of("[log]\nlevel = 1979-05-27\n"), "a date or time"));
}

TEST_CASE("config file: one mistake does not hide the next") {
  Config config;
  const Problems problems =
      load_config_text(config, "[node]\ncores = 0\nnmae = 1\n[fuse]\ntransport = \"x\"\nmax_background = 7\n", "f");
  REQUIRE(problems.size() == 3);
  CHECK(config.fuse.max_background == 7);
}

TEST_CASE("config file: hostile texts end in one problem with a line") {
  CHECK(contains(problem_of("[node]\ncores = 1\ncores = 2\n"), "f:3: "));
  CHECK(contains(problem_of("[node]\n[node]\n"), "f:2: "));
  CHECK(contains(problem_of("[node]\nname = \"\xff\xfe\"\n"), "f:2: "));
  CHECK(contains(problem_of("[node\n"), "f:1: "));
  CHECK(contains(problem_of(std::string_view("[node]\n\0x = 1\n", 14)), "f:2: there is a NUL"));
  CHECK(contains(problem_of("[node]\nname = \"" + std::string(1u << 20, 'n') + "\"\n"), "more than 4096 bytes"));
  CHECK(problem_of("[node]\n" + std::string(1u << 20, 'k') + " = 1\n").size() < 300);
  CHECK(contains(problem_of(std::string((4u << 20) + 1, '\n')), "4MiB"));
  CHECK(problem_of("x = " + std::string(100'000, '[')).size() < 300);
  // Tables within tables without end.
  std::string deep;
  for (int i = 0; i < 500; ++i) deep += "a.";
  CHECK(contains(problem_of("[" + deep + "a]\nx = 1\n"), "is no key"));
  CHECK(contains(problem_of("\n[" + deep + deep + "a]\nx = 1\n"), "f:2: it has more than 512 dots"));
  std::string nested = "x = 1";
  for (int i = 0; i < 14; ++i) nested = deep + "a = [\n{" + nested + "}]";
  CHECK(problem_of(nested + "\n").size() < 300);
  CHECK(problem_of(nested + "\n[").size() < 300);
  Config config;
  CHECK(load_config_text(config, "# " + std::string(1u << 20, 'c') + "\n", "f").empty());
  std::string many;
  for (int i = 0; i < 1000; ++i) many += "k" + std::to_string(i) + " = 1\n";
  CHECK(load_config_text(config, many, "f").size() == 20);
  std::string volumes;
  for (int i = 0; i < 2000; ++i) volumes += "[[volume]]\n";
  CHECK(contains(problem_of(volumes), "more than 1024"));
}

TEST_CASE("config file: what cannot be read is told with its name") {
  Config config;
  char directory[] = "/tmp/blobcache-config.XXXXXX";
  REQUIRE(mkdtemp(directory) != nullptr);
  const std::string missing = std::string(directory) + "/none.toml";
  const std::string fifo = std::string(directory) + "/fifo";
  REQUIRE(mkfifo(fifo.c_str(), 0600) == 0);
  CHECK(contains(load_config_file(config, missing).at(0), missing + ": cannot be opened: No such file"));
  CHECK(contains(load_config_file(config, directory).at(0), "Is a directory"));
  // A pipe without a writer must not hang.
  CHECK(contains(load_config_file(config, fifo).at(0), "cannot be read"));
  unlink(fifo.c_str());
  rmdir(directory);
}
