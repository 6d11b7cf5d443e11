// Chains: what breaks a link, who is told, and what IOSQE_CQE_SKIP_SUCCESS hides.
#include <fcntl.h>

#include <doctest/doctest.h>

#include "ring_conformance/worlds.h"

namespace blobcache_test {
namespace {

using namespace blobcache;  // NOLINT: prep_*

template <class World>
struct Tree {
  Tree() {
    world.add_file("source", "0123456789");
    world.add_file("target", "");
    source = FileRef::fd(world.open("source", O_RDONLY));
    target = FileRef::fd(world.open("target", O_RDWR));
  }
  ~Tree() {
    world.close(source.number);
    world.close(target.number);
  }
  Sqe& read(Ring& ring, uint64_t user_data, uint32_t bytes) {
    Sqe& sqe = next_sqe(ring, user_data);
    prep_read(sqe, source, memory, {.offset = 0, .bytes = bytes});
    return sqe;
  }
  Sqe& write(Ring& ring, uint64_t user_data, uint32_t bytes) {
    Sqe& sqe = next_sqe(ring, user_data);
    prep_write(sqe, target, memory, {.offset = 0, .bytes = bytes});
    return sqe;
  }
  Sqe& nop(Ring& ring, uint64_t user_data) {
    Sqe& sqe = next_sqe(ring, user_data);
    prep_nop(sqe);
    return sqe;
  }

  World world;
  FileRef source;
  FileRef target;
  char memory[4096] = {};
};

TEST_CASE_TEMPLATE("a chain runs in order, each member after the one before", World, KernelWorld, SimulatedWorld) {
  Tree<World> tree;
  const auto ring = tree.world.make_ring();
  link_next(tree.read(*ring, 1, 10));
  link_next(tree.write(*ring, 2, 10));
  tree.nop(*ring, 3);
  const std::vector<Cqe> cqes = collect(*ring, 3);
  REQUIRE(cqes.size() == 3);
  for (uint64_t i = 0; i < 3; ++i) CHECK(cqes[i].user_data == i + 1);
  CHECK(cqes[0].result == 10);
  CHECK(cqes[1].result == 10);
  CHECK(cqes[2].result == 0);
  CHECK(tree.world.content("target") == "0123456789");
}

TEST_CASE_TEMPLATE("a short read cancels the rest of its chain", World, KernelWorld, SimulatedWorld) {
  Tree<World> tree;
  const auto ring = tree.world.make_ring();
  link_next(tree.read(*ring, 1, 11));
  link_next(tree.write(*ring, 2, 11));
  tree.nop(*ring, 3);
  tree.nop(*ring, 4);  // no longer in the chain
  const std::vector<Cqe> cqes = collect(*ring, 4);
  REQUIRE(cqes.size() == 4);
  CHECK(result_of(cqes, 1) == 10);
  CHECK(result_of(cqes, 2) == -ECANCELED);
  CHECK(result_of(cqes, 3) == -ECANCELED);
  CHECK(result_of(cqes, 4) == 0);
  CHECK(tree.world.content("target").empty());
}

TEST_CASE_TEMPLATE("a failed member cancels the rest of its chain", World, KernelWorld, SimulatedWorld) {
  Tree<World> tree;
  const auto ring = tree.world.make_ring();
  link_next(tree.nop(*ring, 1));
  Sqe& failing = next_sqe(*ring, 2);
  prep_read(failing, FileRef::fd(999'999), tree.memory, {.offset = 0, .bytes = 1});
  link_next(failing);
  link_next(tree.write(*ring, 3, 1));
  tree.nop(*ring, 4);
  const std::vector<Cqe> cqes = collect(*ring, 4);
  REQUIRE(cqes.size() == 4);
  CHECK(result_of(cqes, 1) == 0);
  CHECK(result_of(cqes, 2) == -EBADF);
  CHECK(result_of(cqes, 3) == -ECANCELED);
  CHECK(result_of(cqes, 4) == -ECANCELED);
  CHECK(tree.world.content("target").empty());
}

TEST_CASE_TEMPLATE("a chain opens, and a bad range in a registered buffer breaks it", World, KernelWorld,
                   SimulatedWorld) {
  Tree<World> tree;
  const auto ring = tree.world.make_ring();
  alignas(4096) static char buffer[4096];
  REQUIRE(ring->register_buffer(0, {buffer, 4096}).has_value());
  Sqe& read = next_sqe(*ring, 1);
  prep_read_fixed(read, tree.source, buffer + 4090, {.offset = 0, .bytes = 10}, 0);
  link_next(read);
  tree.nop(*ring, 2);
  const std::vector<Cqe> cqes = collect(*ring, 2);
  REQUIRE(cqes.size() == 2);
  CHECK(result_of(cqes, 1) == -EFAULT);
  CHECK(result_of(cqes, 2) == -ECANCELED);
}

TEST_CASE_TEMPLATE("a link does not reach into the next submission", World, KernelWorld, SimulatedWorld) {
  Tree<World> tree;
  const auto ring = tree.world.make_ring();
  link_next(tree.read(*ring, 1, 11));  // short: it would cancel what is linked behind it
  ring->submit();
  tree.nop(*ring, 2);
  const std::vector<Cqe> cqes = collect(*ring, 2);
  REQUIRE(cqes.size() == 2);
  CHECK(result_of(cqes, 1) == 10);
  CHECK(result_of(cqes, 2) == 0);
}

TEST_CASE_TEMPLATE("skip-success hides a success and nothing else", World, KernelWorld, SimulatedWorld) {
  Tree<World> tree;
  const auto ring = tree.world.make_ring();
  Sqe& hidden = tree.read(*ring, 1, 10);
  hidden.flags |= IOSQE_CQE_SKIP_SUCCESS;
  link_next(hidden);
  tree.nop(*ring, 2);
  std::vector<Cqe> cqes = collect(*ring, 1);
  REQUIRE(cqes.size() == 1);
  CHECK(cqes[0].user_data == 2);

  Sqe& failing = next_sqe(*ring, 3);
  prep_read(failing, FileRef::fd(999'999), tree.memory, {.offset = 0, .bytes = 1});
  failing.flags |= IOSQE_CQE_SKIP_SUCCESS;
  cqes = collect(*ring, 1);
  REQUIRE(cqes.size() == 1);
  CHECK(result_of(cqes, 3) == -EBADF);

  // Alone, a short read is no failure, but it is told: it broke a chain that might have been.
  Sqe& shorter = tree.read(*ring, 4, 11);
  shorter.flags |= IOSQE_CQE_SKIP_SUCCESS;
  cqes = collect(*ring, 1);
  REQUIRE(cqes.size() == 1);
  CHECK(result_of(cqes, 4) == 10);
}

// Whoever counts CQEs owed must know this: the members behind a failing member that skips success say nothing at all.
TEST_CASE_TEMPLATE("a failing member that skips success silences the members behind it", World, KernelWorld,
                   SimulatedWorld) {
  Tree<World> tree;
  const auto ring = tree.world.make_ring();
  Sqe& shorter = tree.read(*ring, 1, 11);
  shorter.flags |= IOSQE_CQE_SKIP_SUCCESS;
  link_next(shorter);
  link_next(tree.write(*ring, 2, 11));
  tree.nop(*ring, 3);
  std::vector<Cqe> cqes = collect(*ring, 1);
  REQUIRE(cqes.size() == 1);
  CHECK(result_of(cqes, 1) == 10);
  tree.nop(*ring, 4);
  cqes = collect(*ring, 1);
  REQUIRE(cqes.size() == 1);
  CHECK(cqes[0].user_data == 4);  // 2 and 3 had been canceled by then
  CHECK(tree.world.content("target").empty());
}

TEST_CASE_TEMPLATE("a canceled member that skips success is told when the failing one does not", World, KernelWorld,
                   SimulatedWorld) {
  Tree<World> tree;
  const auto ring = tree.world.make_ring();
  link_next(tree.read(*ring, 1, 11));
  tree.write(*ring, 2, 11).flags |= IOSQE_CQE_SKIP_SUCCESS;
  const std::vector<Cqe> cqes = collect(*ring, 2);
  REQUIRE(cqes.size() == 2);
  CHECK(result_of(cqes, 1) == 10);
  CHECK(result_of(cqes, 2) == -ECANCELED);
}

TEST_CASE_TEMPLATE("two chains of one submission do not touch each other", World, KernelWorld, SimulatedWorld) {
  Tree<World> tree;
  const auto ring = tree.world.make_ring();
  link_next(tree.read(*ring, 1, 11));
  tree.nop(*ring, 2);
  link_next(tree.read(*ring, 3, 10));
  tree.nop(*ring, 4);
  const std::vector<Cqe> cqes = collect(*ring, 4);
  REQUIRE(cqes.size() == 4);
  CHECK(result_of(cqes, 2) == -ECANCELED);
  CHECK(result_of(cqes, 3) == 10);
  CHECK(result_of(cqes, 4) == 0);
}

}  // namespace
}  // namespace blobcache_test
