// doctor's lines, from the facts of machines that this one is not.
#include <cerrno>

#include <doctest/doctest.h>

#include "cli/checks.h"
#include "cli/origin_words.h"

using namespace blobcache;
using namespace blobcache::cli;

namespace {

Facts good_facts() {
  Facts facts;
  facts.kernel_release = "6.18.0";
  facts.kernel = {6, 18};
  facts.root = true;
  facts.uring = {.available = true, .os_errno = 0, .defer_taskrun = true, .all_opcodes = true};
  facts.enable_uring = true;
  facts.capability_admin = facts.capability_ipc_lock = true;
  facts.huge_pages = "madvise";
  facts.max_pages_limit = 256;
  facts.memory_bytes = uint64_t{8} << 30;
  return facts;
}

Check line(const Facts& facts, std::string_view name) {
  for (Check& check : check_facts(facts)) {
    if (check.name == name) return check;
  }
  FAIL("no line " << name);
  return {};
}

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

}  // namespace

TEST_CASE("doctor: a good machine is ok in every line") {
  for (const Check& check : check_facts(good_facts())) {
    CAPTURE(check.name);
    CHECK(check.state == State::ok);
    CHECK(check.remedy.empty());
  }
}

TEST_CASE("doctor: a disk by what was tried on it") {
  DiskFacts disk{.path = "/c",
                 .os_errno = 0,
                 .filesystem = "ext4",
                 .direct_alignment = 512,
                 .free_bytes = uint64_t{100} << 30,
                 .write_bytes_s = 1'000'000'000,
                 .read_bytes_s = 3'000'000'000};
  CHECK(check_disk(disk).state == State::ok);
  CHECK(contains(check_disk(disk).detail, "/c on ext4"));
  const auto with = [&](auto change) {
    DiskFacts changed = disk;
    change(changed);
    const Check check = check_disk(changed);
    CHECK(!check.remedy.empty());
    return check;
  };
  CHECK(with([](DiskFacts& d) { d.filesystem = "overlay"; }).state == State::slow);
  CHECK(with([](DiskFacts& d) { d.free_bytes = 1; }).state == State::slow);
  CHECK(with([](DiskFacts& d) { d.read_bytes_s = 100'000'000; }).state == State::slow);
  CHECK(with([](DiskFacts& d) { d.direct_alignment = 0; }).state == State::missing);
  CHECK(contains(with([](DiskFacts& d) { d.os_errno = EROFS; }).detail, "Read-only"));
  CHECK(contains(with([](DiskFacts& d) { d.os_errno = ETIMEDOUT; }).detail, "does not answer"));
}

TEST_CASE("doctor: what is wrong has its state and a remedy") {
  Facts facts = good_facts();
  facts.kernel = {5, 15};
  CHECK(line(facts, "kernel").state == State::missing);
  CHECK(line(facts, "passthrough").state == State::off);
  facts.kernel = {6, 8};
  CHECK(line(facts, "kernel").state == State::slow);
  CHECK(line(facts, "enable_uring").state == State::off);

  facts = good_facts();
  facts.uring.available = false;
  facts.uring.os_errno = EPERM;
  facts.io_uring_disabled = 2;
  CHECK(line(facts, "io_uring").state == State::missing);
  CHECK(contains(line(facts, "io_uring").remedy, "sysctl kernel.io_uring_disabled=0"));
  facts.io_uring_disabled = 0;
  facts.seccomp = true;
  CHECK(contains(line(facts, "io_uring").remedy, "seccomp"));

  facts = good_facts();
  facts.enable_uring = false;
  CHECK(line(facts, "enable_uring").state == State::off);
  CHECK(contains(line(facts, "enable_uring").remedy, "enable_uring"));
  facts.capability_admin = facts.capability_ipc_lock = false;
  CHECK(line(facts, "passthrough").state == State::off);
  CHECK(line(facts, "memlock").state == State::ok);
  facts.memlock_bytes = 8u << 20;
  CHECK(line(facts, "memlock").state == State::slow);
  facts.huge_pages = "never";
  CHECK(line(facts, "hugepages").state == State::slow);
  facts.huge_pages_reserved = 10;
  CHECK(line(facts, "hugepages").state == State::ok);
  facts.max_pages_limit = 32;
  CHECK(line(facts, "max_pages_limit").state == State::slow);
  facts.dev_fuse_errno = ENOENT;
  CHECK(line(facts, "/dev/fuse").state == State::missing);
  CHECK(contains(line(facts, "/dev/fuse").remedy, "modprobe fuse"));
  facts.dev_fuse_errno = EACCES;
  CHECK(contains(line(facts, "/dev/fuse").remedy, "0666"));
}

TEST_CASE("doctor: users other than root need fusermount3") {
  Facts facts = good_facts();
  facts.root = false;
  CHECK(line(facts, "fusermount3").state == State::missing);
  CHECK(line(facts, "user_allow_other").state == State::off);
  CHECK(line(facts, "read-ahead").state == State::slow);
  facts.fusermount = "/usr/bin/fusermount3";
  facts.user_allow_other = true;
  CHECK(line(facts, "fusermount3").state == State::ok);
  CHECK(line(facts, "user_allow_other").state == State::ok);
}

TEST_CASE("doctor: a source by its answer") {
  CHECK(check_source("/d", 0, 1000, 2000).state == State::ok);
  CHECK(check_source("/d", 0, 30'000'000, 90'000'000).state == State::slow);
  CHECK(check_source("/d", EACCES, 0, 0).state == State::missing);
  CHECK(check_source("/d", ETIMEDOUT, 0, 0).state == State::missing);
}

TEST_CASE("doctor: what an origin says is named after what is wrong") {
  const Check dns = check_origin_failure(
      "cannot reach a.b for s3://c: Could not resolve host: a.b; check volume.s3.endpoint, the network and the "
      "certificates");
  CHECK(dns.name == "dns");
  CHECK(dns.state == State::missing);
  CHECK(dns.detail == "cannot reach a.b for s3://c: Could not resolve host: a.b");
  CHECK(contains(dns.remedy, "resolv.conf"));
  CHECK(check_origin_failure("cannot reach a for s3://c: SSL certificate problem: expired; check it").name == "tls");
  CHECK(check_origin_failure("cannot reach a for s3://SSL: Failed to connect to a; check it").name == "connect");
  CHECK(check_origin_failure("cannot reach http://h/: no answer; check the certificates").name == "connect");
  CHECK(check_origin_failure("this machine's clock is 900 s away from the clock of h: it is; set the clock").name ==
        "clock");
  CHECK(check_origin_failure("listing '' of http://h/ from http://h failed: the answer was status 403; check").state ==
        State::off);
  CHECK(check_origin_failure("listing '' of s3://h from http://h failed: the answer was status 403; check").name ==
        "rights");
  const Check unknown = check_origin_failure("h answered with status 599; look at its certificates");
  CHECK(unknown.name == "source");
  CHECK(unknown.remedy == "look at its certificates");
  const Check strange = check_origin_failure("something new");
  CHECK(strange.name == "source");
  CHECK(strange.state == State::missing);
  CHECK(strange.detail == "something new");
}

TEST_CASE("doctor: lines are aligned, JSON is escaped") {
  const std::vector<Check> checks{{"a", State::ok, "fine", ""}, {"longer", State::slow, "say \"x\"", "do\n"}};
  CHECK(render_checks(checks) == "a       ok       fine\nlonger  slow     say \"x\": do\n\n");
  CHECK(render_checks_json(checks) ==
        "{\"checks\":[{\"name\":\"a\",\"state\":\"ok\",\"detail\":\"fine\",\"remedy\":\"\"},"
        "{\"name\":\"longer\",\"state\":\"slow\",\"detail\":\"say \\\"x\\\"\",\"remedy\":\"do\\u000a\"}]}\n");
}

TEST_CASE("doctor: kernel versions") {
  CHECK(parse_kernel_version("6.18.44-fc") == KernelVersion{6, 18});
  CHECK(parse_kernel_version("6.1") == KernelVersion{6, 1});
  for (const char* text : {"", "6", "x.y", "6.", ".1"}) CHECK(parse_kernel_version(text) == KernelVersion{0, 0});
}
