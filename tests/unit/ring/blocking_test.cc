#include "ring/blocking.h"

#include <memory>
#include <semaphore>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "ring/sim.h"
#include "ring/uring.h"

namespace blobcache {
namespace {

struct Journal {
  std::vector<int> ran;      // by helpers; one helper at a time or under no test of order
  std::vector<int> handled;  // on the reactor's thread
};

struct Call : BlockingCall {
  Journal* journal = nullptr;
  int number = 0;
  std::thread::id ran_on;
  std::binary_semaphore* gate = nullptr;

  void prepare(Journal& journal_of_test, int number_of_call) {
    journal = &journal_of_test;
    number = number_of_call;
    run = [](BlockingCall& call) {
      auto& self = static_cast<Call&>(call);
      if (self.gate != nullptr) self.gate->acquire();
      self.ran_on = std::this_thread::get_id();
    };
    handler = [](Op& op, int32_t result, uint32_t) {
      auto& self = static_cast<Call&>(static_cast<Message&>(op));
      REQUIRE(result == 0);
      self.journal->handled.push_back(self.number);
    };
  }
};

struct Bench {
  Bench() {
    Result<std::unique_ptr<Ring>> ring = create_uring({.sqes = 16, .cqes = 32});
    REQUIRE(ring.has_value());
    reactor = std::make_unique<Reactor>(std::move(*ring), ReactorOptions{.core = 0, .cqes = 32});
  }
  void turn_until_handled(size_t count) {
    while (journal.handled.size() < count) reactor->turn(true);
  }
  std::unique_ptr<Reactor> reactor;
  Journal journal;
};

TEST_CASE("calls run on helpers and end on the core that began them") {
  Bench bench;
  BlockingCalls calls(4);
  const auto all = std::make_unique<Call[]>(2000);
  for (int i = 0; i < 2000; ++i) {
    all[i].prepare(bench.journal, i);
    REQUIRE(calls.begin(*bench.reactor, all[i]).has_value());
  }
  bench.turn_until_handled(2000);
  for (int i = 0; i < 2000; ++i) CHECK(all[i].ran_on != std::this_thread::get_id());
  calls.stop();
  CHECK(calls.join(10'000));
}

TEST_CASE("one helper runs calls in the order they were given, also those that wait when it is told to stop") {
  Bench bench;
  BlockingCalls calls(1);
  std::binary_semaphore gate(0);
  const auto all = std::make_unique<Call[]>(50);
  for (int i = 0; i < 50; ++i) {
    all[i].prepare(bench.journal, i);
    if (i == 0) all[i].gate = &gate;
    REQUIRE(calls.begin(*bench.reactor, all[i]).has_value());
  }
  calls.stop();
  Call late;
  late.prepare(bench.journal, 99);
  const Result<void> refused = calls.begin(*bench.reactor, late);
  REQUIRE(!refused.has_value());
  CHECK(refused.error().code == Code::stopping);
  gate.release();
  bench.turn_until_handled(50);
  for (int i = 0; i < 50; ++i) CHECK(bench.journal.handled[static_cast<size_t>(i)] == i);
  CHECK(calls.join(10'000));
}

TEST_CASE("a hung helper is waited for no longer than said") {
  Bench bench;
  BlockingCalls calls(2);
  std::binary_semaphore gate(0);
  Call hung;
  hung.prepare(bench.journal, 1);
  hung.gate = &gate;
  REQUIRE(calls.begin(*bench.reactor, hung).has_value());
  calls.stop();
  const uint64_t before = bench.reactor->ring().now_ns();
  CHECK(!calls.join(20));
  CHECK(bench.reactor->ring().now_ns() >= before + 20'000'000);
  gate.release();
  bench.turn_until_handled(1);
  CHECK(calls.join(10'000));
}

TEST_CASE("without helpers, as in simulation, a call runs at once and ends as a message") {
  SimWorld world({.seed = 1});
  Reactor reactor(world.create_ring(8, 16), {.core = 0, .cqes = 16});
  BlockingCalls calls(0);
  Journal journal;
  Call call;
  call.prepare(journal, 7);
  REQUIRE(calls.begin(reactor, call).has_value());
  CHECK(call.ran_on == std::this_thread::get_id());
  CHECK(journal.handled.empty());
  reactor.turn(true);
  CHECK(journal.handled == std::vector<int>{7});
}

}  // namespace
}  // namespace blobcache
