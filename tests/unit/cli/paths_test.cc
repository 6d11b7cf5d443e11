// Paths: where daemons keep their sockets, which mount point was meant, what a source names.
#include <cstdlib>

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/state_paths.h"
#include "cli/command.h"
#include "cli/mountpoint.h"
#include "cli/source.h"
#include "cli/tiers.h"

using namespace blobcache;
using namespace blobcache::cli;

TEST_CASE("state: a mount point's name is systemd's") {
  CHECK(escape_mount_path("/mnt/models") == "mnt-models");
  CHECK(escape_mount_path("/") == "-");
  CHECK(escape_mount_path("/mnt/my models") == "mnt-my\\x20models");
  CHECK(escape_mount_path("/a-b/c") == "a\\x2db-c");
  CHECK(escape_mount_path("/.hidden") == "\\x2ehidden");
  CHECK(escape_mount_path("/a/.b") == "a-.b");
  CHECK(escape_mount_path("/\xff") == "\\xff");
}

TEST_CASE("state: long names are cut and stay different, and fit a socket's path") {
  const std::string a = escape_mount_path("/" + std::string(200, 'x') + "a");
  const std::string b = escape_mount_path("/" + std::string(200, 'x') + "b");
  CHECK(a != b);
  CHECK(control_socket_path("/run/user/4294967295/blobcache", a).size() <= 107);
  // In a long directory names are cut further, and stay different.
  const std::string directory = "/tmp/" + std::string(75, 'd');
  CHECK(control_socket_path(directory, a).size() <= 107);
  CHECK(control_socket_path(directory, a) != control_socket_path(directory, b));
}

TEST_CASE("mount points: lexical paths") {
  CHECK(lexical_path("/a//b/./c/", "/w") == "/a/b/c");
  CHECK(lexical_path("x", "/w") == "/w/x");
  CHECK(lexical_path("./x/", "/w") == "/w/x");
  CHECK(lexical_path(".", "/w") == "/w");
  CHECK(lexical_path("/", "/w") == "/");
  CHECK(lexical_path("..", "/w") == "/w/..");
}

TEST_CASE("mount points: inside each other") {
  CHECK(is_within("/a/b", "/a"));
  CHECK(is_within("/a", "/a"));
  CHECK(is_within("/a", "/"));
  CHECK(!is_within("/ab", "/a"));
  CHECK(!is_within("/a", "/a/b"));
  CHECK(!is_within("", "/a"));
}

TEST_CASE("mount points: found through links, dots and the working directory") {
  char directory[] = "/tmp/blobcache-mountpoint.XXXXXX";
  REQUIRE(mkdtemp(directory) != nullptr);
  const std::string root = directory;
  REQUIRE(mkdir((root + "/m").c_str(), 0700) == 0);
  REQUIRE(symlink("m", (root + "/link").c_str()) == 0);
  CHECK(resolve_mountpoint(root + "/m/") == root + "/m");
  CHECK(resolve_mountpoint(root + "/link") == root + "/m");
  CHECK(resolve_mountpoint(root + "/link/../m") == root + "/m");
  CHECK(resolve_mountpoint(root + "/m/..") == root);
  CHECK(resolve_mountpoint(root + "/none") == root + "/none");
  CHECK(!resolve_mountpoint(root + "/none/x"));
  CHECK(!resolve_mountpoint(""));
  std::string cleaned;
  CHECK(prepare_mountpoint(root + "/m", &cleaned).exit_code == 0);
  CHECK(prepare_mountpoint(root, &cleaned).message.find("not empty") != std::string::npos);
  CHECK(prepare_mountpoint(root + "/none", &cleaned).message.find("mkdir -p") != std::string::npos);
  CHECK(prepare_mountpoint("/proc", &cleaned).message.find("busy") != std::string::npos);
  CHECK(cleaned.empty());
  unlink((root + "/link").c_str());
  rmdir((root + "/m").c_str());
  rmdir(directory);
}

TEST_CASE("sources") {
  std::string path;
  CHECK(source_path("/a%20b", &path).exit_code == 0);
  CHECK(path == "/a%20b");
  CHECK(source_path("file:///a%20b", &path).exit_code == 0);
  CHECK(path == "/a b");
  for (const char* text : {"", "file://host/a", "file:///a%2", "file:///a%zz", "file:///a%00", "gopher://x"}) {
    CAPTURE(text);
    CHECK(source_path(text, &path).exit_code == exit_wrong_use);
  }
  for (const char* remote : {"s3://b/p", "http://h/p/", "https://h"}) {
    CHECK(is_remote_source(remote));
    CHECK(resolve_source(remote, &path).exit_code == 0);
    CHECK(path == remote);
  }
  CHECK(!is_remote_source("file:///s3://b"));
  CHECK(resolve_source("/proc/self/../..", &path).exit_code == 0);
  CHECK(path == "/");
  CHECK(resolve_source("/proc/version", &path).message.find("not a directory") != std::string::npos);
  CHECK(resolve_source("/none", &path).message.find("does not exist") != std::string::npos);
}

TEST_CASE("stat: bytes by tier") {
  const auto tiers = parse_tiers(" {\"memory\": 5, \"disk\":0 } ");
  REQUIRE(tiers.has_value());
  REQUIRE(tiers->size() == 2);
  CHECK(tiers->at(0).tier == "memory");
  CHECK(tiers->at(0).bytes == 5);
  CHECK(parse_tiers("{}").value().empty());
  for (const char* text : {"", "{", "}", "[]", "{\"a\"}", "{\"a\":}", "{\"a\":-1}", "{\"a\":1,}", "{\"a\":1}x",
                           "{\"a\":\"1\"}", "{\"a\":99999999999999999999}", "{\"\":1}", "{\"a:1}", "{a:1}", "null"}) {
    CAPTURE(text);
    CHECK(!parse_tiers(text));
  }
}
