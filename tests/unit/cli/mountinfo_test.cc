// The table of mounts: the kernel's form, its escapes, and what is on top.
#include <doctest/doctest.h>

#include "fuse/mountinfo.h"

using namespace blobcache;
using namespace blobcache::fuse;

namespace {

constexpr std::string_view table =
    "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
    "27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard\n"
    "50 27 0:51 / /mnt/my\\040models ro,nosuid - fuse.blobcache /data/a\\011b ro,user_id=1000,group_id=7\n"
    "43 27 0:43 / /mnt/x ro - fuse.blobcache /a ro,user_id=0\n"
    "44 43 0:44 / /mnt/x ro - fuse.rclone remote: ro,user_id=0\n"
    "40 44 0:99 / /mnt/x ro - fuse.blobcache /b ro\n";

}  // namespace

TEST_CASE("mountinfo: fields and octal escapes") {
  const auto mounts = parse_mountinfo(table);
  REQUIRE(mounts.size() == 6);
  const MountEntry* entry = find_mount(mounts, "/mnt/my models");
  REQUIRE(entry != nullptr);
  CHECK(entry->is_blobcache());
  CHECK(entry->source == "/data/a\tb");
  CHECK(entry->major == 0);
  CHECK(entry->minor == 51);
  CHECK(entry->owner_uid() == 1000u);
  CHECK(entry->options == "ro,nosuid");
  CHECK(find_mount(mounts, "/")->type == "ext4");
  CHECK(!find_mount(mounts, "/")->owner_uid());
  CHECK(find_mount(mounts, "/mnt") == nullptr);
  CHECK(find_mount(mounts, "") == nullptr);
}

TEST_CASE("mountinfo: of stacked mounts the topmost, whatever the order of lines") {
  const auto mounts = parse_mountinfo(table);
  CHECK(find_mount(mounts, "/mnt/x")->minor == 99);
  const std::string reversed = "40 44 0:99 / /m ro - a b c\n44 43 0:44 / /m ro - a b c\n43 27 0:43 / /m ro - a b c\n";
  CHECK(find_mount(parse_mountinfo(reversed), "/m")->minor == 99);
}

TEST_CASE("mountinfo: lines in another form are left out") {
  for (const std::string_view line :
       {"\n", " ", "x 27 0:21 / /proc rw - proc proc rw", "22 27 021 / /proc rw - proc proc rw",
        "22 27 0:21 / /proc rw", "22 27 0:21x / /proc rw - proc proc rw",
        "99999999999999999999 27 0:21 / /proc rw - proc proc rw", "22 27 0:21 /"}) {
    CAPTURE(line);
    CHECK(parse_mountinfo(line).empty());
  }
  CHECK(parse_mountinfo("1 2 0:3 / /a\\04 rw - t s o").at(0).mountpoint == "/a\\04");
  CHECK(parse_mountinfo("1 2 0:3 / /a\\134b rw - t s o").at(0).mountpoint == "/a\\b");
  CHECK(parse_mountinfo(std::string(1u << 20, 'x')).empty());
}

TEST_CASE("mountinfo: this machine's own") {
  const auto mounts = read_mountinfo();
  REQUIRE(mounts.has_value());
  REQUIRE(find_mount(*mounts, "/proc") != nullptr);
  CHECK(find_mount(*mounts, "/proc")->type == "proc");
  CHECK(!abort_connection(0xfffffff));
}
