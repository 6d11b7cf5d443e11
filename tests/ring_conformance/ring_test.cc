// The ring itself: its queues, its clock, messages to other rings, what is copied at submission.
#include <cstring>

#include <fcntl.h>

#include <doctest/doctest.h>

#include "ring_conformance/worlds.h"

namespace blobcache_test {
namespace {

using namespace blobcache;  // NOLINT: prep_*

TEST_CASE_TEMPLATE("SQEs are zeroed to their last byte, also after use", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring(4, 8);
  for (int round = 0; round < 3; ++round) {
    CHECK(ring->sqes_free() == 4);
    for (uint64_t i = 0; i < 4; ++i) {
      Sqe* sqe = ring->get_sqe();
      REQUIRE(sqe != nullptr);
      const auto* bytes = reinterpret_cast<const unsigned char*>(sqe);
      for (unsigned at = 0; at < 128; ++at) REQUIRE(bytes[at] == 0);
      std::memset(reinterpret_cast<char*>(sqe) + 64, 0xab, 64);
      prep_nop(*sqe);
      sqe->user_data = i;
    }
    CHECK(ring->sqes_free() == 0);
    CHECK(ring->get_sqe() == nullptr);
    CHECK(collect(*ring, 4).size() == 4);
  }
}

TEST_CASE_TEMPLATE("a wait ends at its time, or with the first CQE", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  Cqe cqe{};
  const uint64_t before = ring->now_ns();
  ring->submit_and_wait(20'000'000);
  CHECK(ring->now_ns() >= before + 20'000'000);
  CHECK(ring->reap(std::span(&cqe, 1)) == 0);
  const uint64_t between = ring->now_ns();
  ring->submit_and_wait(0);
  CHECK(ring->now_ns() < between + 1'000'000'000);
  CHECK(ring->reap(std::span(&cqe, 1)) == 0);
  prep_nop(next_sqe(*ring, 5));
  const uint64_t last = ring->now_ns();
  ring->submit_and_wait(60'000'000'000);
  CHECK(ring->now_ns() < last + 30'000'000'000);
  REQUIRE(ring->reap(std::span(&cqe, 1)) == 1);
  CHECK(cqe.user_data == 5);
  prep_nop(next_sqe(*ring, 6));
  ring->submit_and_wait(Ring::wait_forever);
  REQUIRE(ring->reap(std::span(&cqe, 1)) == 1);
  CHECK(cqe.user_data == 6);
}

TEST_CASE_TEMPLATE("reap gives no more than asked for and loses none", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  for (uint64_t i = 0; i < 10; ++i) prep_nop(next_sqe(*ring, i));
  unsigned seen = 0;
  uint64_t sum = 0;
  while (seen < 10) {
    ring->submit_and_wait(1'000'000'000);
    Cqe three[3];
    const unsigned count = ring->reap(three);
    REQUIRE(count > 0);
    for (unsigned i = 0; i < count; ++i) sum += three[i].user_data;
    seen += count;
  }
  CHECK(seen == 10);
  CHECK(sum == 45);
}

TEST_CASE_TEMPLATE("a CQ that is full loses nothing", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring(4, 8);
  for (uint64_t i = 0; i < 40; ++i) {
    if (ring->sqes_free() == 0) ring->submit();
    prep_nop(next_sqe(*ring, i));
  }
  const std::vector<Cqe> cqes = collect(*ring, 40);
  REQUIRE(cqes.size() == 40);
  uint64_t sum = 0;
  for (const Cqe& cqe : cqes) sum += cqe.user_data;
  CHECK(sum == 780);
}

TEST_CASE_TEMPLATE("MSG_RING brings user_data and result to another ring", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  OtherRing<World> other(world);
  for (uint64_t i = 0; i < 20; ++i) {
    Sqe& sqe = next_sqe(*ring, 100 + i);
    prep_msg_ring(sqe, other.fd(), {.user_data = 0xfeed'0000'0000'0000 + i, .result = static_cast<uint32_t>(7 + i)});
    if (i > 0) sqe.flags |= IOSQE_CQE_SKIP_SUCCESS;
  }
  const std::vector<Cqe> sent = collect(*ring, 1);
  REQUIRE(sent.size() == 1);
  CHECK(sent[0].user_data == 100);
  CHECK(sent[0].result == 0);
  const std::vector<Cqe> got = other.wait(20);
  REQUIRE(got.size() == 20);
  for (uint64_t i = 0; i < 20; ++i) CHECK(result_of(got, 0xfeed'0000'0000'0000 + i) == static_cast<int32_t>(7 + i));
}

TEST_CASE_TEMPLATE("MSG_RING to oneself, to what is no ring, to nothing", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  world.add_file("file", "");
  const int file = world.open("file", O_RDONLY);
  auto message = [&](int fd) {
    return run_one(*ring, [&](Sqe& sqe) { prep_msg_ring(sqe, fd, {.user_data = 1, .result = 0}); });
  };
  CHECK(message(file) == -EBADFD);
  CHECK(message(999'999) == -EBADF);
  world.close(file);
  prep_msg_ring(next_sqe(*ring, 2), ring->fd(), {.user_data = 3, .result = 9});
  const std::vector<Cqe> cqes = collect(*ring, 2);
  REQUIRE(cqes.size() == 2);
  CHECK(result_of(cqes, 2) == 0);
  CHECK(result_of(cqes, 3) == 9);
}

// Reactor::prepare's callers may let paths, open_how and iovecs go once the turn's submission has been made.
TEST_CASE_TEMPLATE("paths, open_how and iovecs are copied at submission", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  world.add_file("file", "0123456789");
  int ends[2];
  world.pair(ends);
  char path[] = "file";
  open_how how{.flags = O_RDONLY, .mode = 0, .resolve = 0};
  // Behind a RECV that waits, so that the rest runs long after the submission.
  char byte = 0;
  Sqe& gate = next_sqe(*ring, 1);
  prep_recv(gate, FileRef::fd(ends[0]), &byte, 1, 0);
  link_next(gate);
  const int file = world.open("file", O_RDONLY);
  char to[4] = {};
  char elsewhere[4] = {};
  iovec parts[] = {{to, 4}};
  Sqe& read = next_sqe(*ring, 2);
  prep_readv(read, FileRef::fd(file), parts, 2);
  link_next(read);
  prep_openat2(next_sqe(*ring, 3), world.root(), path, &how);
  ring->submit();
  parts[0].iov_base = elsewhere;
  std::strcpy(path, "gone");
  how = {.flags = ~uint64_t{0}, .mode = 0, .resolve = ~uint64_t{0}};
  world.send(ends[1], "x");
  const std::vector<Cqe> cqes = collect(*ring, 3);
  REQUIRE(cqes.size() == 3);
  CHECK(result_of(cqes, 2) == 4);
  CHECK(std::string(to, 4) == "2345");
  const int opened = result_of(cqes, 3);
  CHECK(opened >= 0);
  if (opened >= 0) world.close(opened);
  world.close(file);
  world.close(ends[0]);
  world.close(ends[1]);
}

}  // namespace
}  // namespace blobcache_test
