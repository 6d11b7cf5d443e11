// What waits: polls, sockets, and the cancelling of both.
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <doctest/doctest.h>

#include "ring_conformance/worlds.h"

namespace blobcache_test {
namespace {

using namespace blobcache;  // NOLINT: prep_*

// Nothing has come: a NOP submitted now is the next CQE.
bool quiet(Ring& ring) {
  prep_nop(next_sqe(ring, 987));
  const std::vector<Cqe> cqes = collect(ring, 1);
  return cqes.size() == 1 && cqes[0].user_data == 987;
}

TEST_CASE_TEMPLATE("a pending poll is canceled, an unknown one is not found", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  int ends[2];
  world.pair(ends);
  prep_poll(next_sqe(*ring, 1), FileRef::fd(ends[0]), POLLIN);
  CHECK(quiet(*ring));
  prep_cancel(next_sqe(*ring, 2), 1);
  const std::vector<Cqe> cqes = collect(*ring, 2);
  REQUIRE(cqes.size() == 2);
  CHECK(result_of(cqes, 1) == -ECANCELED);
  CHECK(result_of(cqes, 2) == 0);
  CHECK(run_one(*ring, [](Sqe& sqe) { prep_cancel(sqe, 1); }) == -ENOENT);
  world.close(ends[0]);
  world.close(ends[1]);
}

TEST_CASE_TEMPLATE("canceling the head of a chain cancels the chain", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  int ends[2];
  world.pair(ends);
  Sqe& head = next_sqe(*ring, 1);
  prep_poll(head, FileRef::fd(ends[0]), POLLIN);
  link_next(head);
  prep_nop(next_sqe(*ring, 2));
  CHECK(quiet(*ring));
  prep_cancel(next_sqe(*ring, 3), 1);
  const std::vector<Cqe> cqes = collect(*ring, 3);
  REQUIRE(cqes.size() == 3);
  CHECK(result_of(cqes, 1) == -ECANCELED);
  CHECK(result_of(cqes, 2) == -ECANCELED);
  CHECK(result_of(cqes, 3) == 0);
  world.close(ends[0]);
  world.close(ends[1]);
}

TEST_CASE_TEMPLATE("a waiting RECV is canceled", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  int ends[2];
  world.pair(ends);
  char to[8];
  prep_recv(next_sqe(*ring, 1), FileRef::fd(ends[0]), to, sizeof to, 0);
  CHECK(quiet(*ring));
  prep_cancel(next_sqe(*ring, 2), 1);
  const std::vector<Cqe> cqes = collect(*ring, 2);
  REQUIRE(cqes.size() == 2);
  CHECK(result_of(cqes, 1) == -ECANCELED);
  CHECK(result_of(cqes, 2) == 0);
  world.close(ends[0]);
  world.close(ends[1]);
}

TEST_CASE_TEMPLATE("POLL_ADD answers with what is ready", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  int ends[2];
  world.pair(ends);
  auto poll = [&](uint32_t events) {
    return run_one(*ring, [&](Sqe& sqe) { prep_poll(sqe, FileRef::fd(ends[0]), events); });
  };
  CHECK(poll(POLLOUT) == POLLOUT);
  CHECK(poll(POLLIN | POLLOUT) == POLLOUT);
  prep_poll(next_sqe(*ring, 1), FileRef::fd(ends[0]), POLLIN);
  CHECK(quiet(*ring));
  world.send(ends[1], "data");
  const std::vector<Cqe> cqes = collect(*ring, 1);
  REQUIRE(cqes.size() == 1);
  CHECK(result_of(cqes, 1) == POLLIN);
  CHECK(poll(POLLIN | POLLOUT) == (POLLIN | POLLOUT));
  world.close(ends[1]);
  CHECK((poll(POLLIN) & POLLHUP) == POLLHUP);
  world.close(ends[0]);
  CHECK(poll(POLLIN) == -EBADF);
}

TEST_CASE_TEMPLATE("RECV takes what is there; MSG_WAITALL takes all or the end", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  int ends[2];
  world.pair(ends);
  char to[16] = {};
  auto recv = [&](uint32_t bytes, uint32_t flags) {
    return run_one(*ring, [&](Sqe& sqe) { prep_recv(sqe, FileRef::fd(ends[0]), to, bytes, flags); });
  };
  CHECK(recv(16, MSG_DONTWAIT) == -EAGAIN);
  world.send(ends[1], "12345");
  CHECK(recv(16, 0) == 5);
  CHECK(std::string(to, 5) == "12345");
  prep_recv(next_sqe(*ring, 1), FileRef::fd(ends[0]), to, 8, MSG_WAITALL);
  world.send(ends[1], "abc");
  CHECK(quiet(*ring));
  world.send(ends[1], "defghij");
  std::vector<Cqe> cqes = collect(*ring, 1);
  REQUIRE(cqes.size() == 1);
  CHECK(result_of(cqes, 1) == 8);
  CHECK(std::string(to, 8) == "abcdefgh");
  prep_recv(next_sqe(*ring, 2), FileRef::fd(ends[0]), to, 8, MSG_WAITALL);
  CHECK(quiet(*ring));
  world.close(ends[1]);
  cqes = collect(*ring, 1);
  REQUIRE(cqes.size() == 1);
  CHECK(result_of(cqes, 2) == 2);
  CHECK(recv(16, 0) == 0);
  CHECK(run_one(*ring, [&](Sqe& sqe) { prep_send(sqe, FileRef::fd(ends[0]), "x", 1, MSG_NOSIGNAL); }) == -EPIPE);
  world.close(ends[0]);
}

// The reason for MSG_WAITALL in every chain that receives: five bytes would let the write store the buffer's old rest.
TEST_CASE_TEMPLATE("a short RECV without MSG_WAITALL does not stop the linked WRITE", World, KernelWorld,
                   SimulatedWorld) {
  for (const bool wait_all : {false, true}) {
    World world;
    const auto ring = world.make_ring();
    world.add_file("file", "");
    const int file = world.open("file", O_RDWR);
    int ends[2];
    world.pair(ends);
    world.send(ends[1], "12345");
    world.close(ends[1]);
    char buffer[4096];
    std::memset(buffer, '?', sizeof buffer);
    Sqe& recv = next_sqe(*ring, 1);
    prep_recv(recv, FileRef::fd(ends[0]), buffer, sizeof buffer, wait_all ? MSG_WAITALL : 0);
    link_next(recv);
    prep_write(next_sqe(*ring, 2), FileRef::fd(file), buffer, {.offset = 0, .bytes = sizeof buffer});
    const std::vector<Cqe> cqes = collect(*ring, 2);
    REQUIRE(cqes.size() == 2);
    CHECK(result_of(cqes, 1) == 5);
    CHECK(result_of(cqes, 2) == (wait_all ? -ECANCELED : 4096));
    CHECK(world.content("file").size() == (wait_all ? 0 : 4096));
    world.close(file);
    world.close(ends[0]);
  }
}

TEST_CASE_TEMPLATE("ACCEPT, SEND and RECV carry bytes both ways", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  const int listener = world.listen();
  prep_accept(next_sqe(*ring, 1), FileRef::fd(listener), SOCK_CLOEXEC);
  CHECK(quiet(*ring));
  const int near = world.connect(listener);
  std::vector<Cqe> cqes = collect(*ring, 1);
  REQUIRE(cqes.size() == 1);
  const int far = result_of(cqes, 1);
  REQUIRE(far >= 0);
  char to[8] = {};
  for (const auto& [from_fd, to_fd] : {std::pair(near, far), std::pair(far, near)}) {
    CHECK(run_one(*ring, [&](Sqe& sqe) { prep_send(sqe, FileRef::fd(from_fd), "hello", 5, MSG_NOSIGNAL); }) == 5);
    CHECK(run_one(*ring, [&](Sqe& sqe) { prep_recv(sqe, FileRef::fd(to_fd), to, 8, 0); }) == 5);
    CHECK(std::string(to, 5) == "hello");
    std::memset(to, 0, sizeof to);
  }
  CHECK(run_one(*ring, [&](Sqe& sqe) { prep_accept(sqe, FileRef::fd(near), 0); }) == -EINVAL);
  CHECK(run_one(*ring, [&](Sqe& sqe) { prep_accept(sqe, FileRef::fd(world.root()), 0); }) == -ENOTSOCK);
  world.close(near);
  CHECK(run_one(*ring, [&](Sqe& sqe) { prep_recv(sqe, FileRef::fd(far), to, 8, 0); }) == 0);
  world.close(far);
  world.close(listener);
}

// Why a socket's polls are canceled before it is closed: fd numbers are reused, and the other side waits for the end.
TEST_CASE_TEMPLATE("an armed poll keeps its socket open after close", World, KernelWorld, SimulatedWorld) {
  World world;
  const auto ring = world.make_ring();
  int ends[2];
  world.pair(ends);
  char to[4];
  prep_poll(next_sqe(*ring, 1), FileRef::fd(ends[0]), POLLIN);
  prep_recv(next_sqe(*ring, 2), FileRef::fd(ends[1]), to, sizeof to, 0);
  CHECK(quiet(*ring));
  CHECK(run_one(*ring, [&](Sqe& sqe) { prep_close(sqe, ends[0]); }) == 0);
  CHECK(quiet(*ring));
  prep_cancel(next_sqe(*ring, 3), 1);
  const std::vector<Cqe> cqes = collect(*ring, 3);
  REQUIRE(cqes.size() == 3);
  CHECK(result_of(cqes, 1) == -ECANCELED);
  CHECK(result_of(cqes, 2) == 0);
  CHECK(result_of(cqes, 3) == 0);
  world.close(ends[1]);
}

}  // namespace
}  // namespace blobcache_test
