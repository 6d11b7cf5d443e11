#include "ring/reactor.h"

#include <future>
#include <memory>
#include <thread>
#include <vector>

#include <fcntl.h>

#include <doctest/doctest.h>

#include "ring/sim.h"
#include "ring/uring.h"
#include "unit/base/death.h"

namespace blobcache {
namespace {

std::unique_ptr<Ring> kernel_ring(unsigned sqes, unsigned cqes) {
  Result<std::unique_ptr<Ring>> ring = create_uring({.sqes = sqes, .cqes = cqes});
  REQUIRE_MESSAGE(ring.has_value(), "this machine gives no io_uring, errno ", ring.error().os_errno);
  return std::move(*ring);
}

struct Recorded : Op {
  Recorded(std::vector<int>& order_of_all, int number_of_this)
      : Op(&Recorded::on_cqe), order(order_of_all), number(number_of_this) {}
  static void on_cqe(Op& op, int32_t result_of_op, uint32_t) {
    auto& self = static_cast<Recorded&>(op);
    self.order.push_back(self.number);
    self.result = result_of_op;
  }
  std::vector<int>& order;
  int number;
  int32_t result = 1;
};

TEST_CASE("handlers run in the order of the CQEs, timers after them, at one time") {
  static std::vector<int> order;
  order.clear();
  Reactor reactor(kernel_ring(64, 128), {.core = 0, .cqes = 128});
  std::vector<std::unique_ptr<Recorded>> ops;
  for (int i = 0; i < 10; ++i) {
    ops.push_back(std::make_unique<Recorded>(order, i));
    prep_nop(reactor.prepare(*ops.back()));
  }
  Timer timer([](Timer&) { order.push_back(99); });
  reactor.arm(timer, 0);
  CHECK(reactor.cqes_owed() == 10);
  reactor.turn(true);
  CHECK(order == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 99});
  CHECK(reactor.cqes_owed() == 0);
  CHECK(reactor.counters().cqes == 10);
}

TEST_CASE("a timer ends a wait that nothing else ends") {
  static bool fired;
  fired = false;
  Reactor reactor(kernel_ring(8, 16), {.core = 0, .cqes = 16});
  Timer timer([](Timer&) { fired = true; });
  const uint64_t before = reactor.ring().now_ns();
  reactor.arm_at(timer, before + 10'000'000);
  while (!fired) reactor.turn(true);
  CHECK(reactor.ring().now_ns() >= before + 10'000'000);
}

// Without reserve() the chain would lie in two submissions, and a link does not reach across.
TEST_CASE("a chain that was reserved goes out whole") {
  for (const bool simulated : {false, true}) {
    SimWorld world({.seed = 3});
    Reactor reactor(simulated ? world.create_ring(8, 64) : kernel_ring(8, 64), {.core = 0, .cqes = 64});
    std::vector<int> order;
    std::vector<std::unique_ptr<Recorded>> ops;
    for (int i = 0; i < 10; ++i) ops.push_back(std::make_unique<Recorded>(order, i));
    for (size_t i = 0; i < 6; ++i) prep_nop(reactor.prepare(*ops[i]));
    reactor.reserve(4);
    for (size_t i = 6; i < 10; ++i) {
      Sqe& sqe = reactor.prepare(*ops[i]);
      if (i == 6) {
        prep_close(sqe, 999'999);
      } else {
        prep_nop(sqe);
      }
      if (i < 9) link_next(sqe);
    }
    while (reactor.cqes_owed() > 0) reactor.turn(true);
    for (size_t i = 0; i < 6; ++i) CHECK(ops[i]->result == 0);
    CHECK(ops[6]->result == -EBADF);
    for (size_t i = 7; i < 10; ++i) CHECK(ops[i]->result == -ECANCELED);
  }
}

TEST_CASE("more CQEs owed than the CQ holds stops the process") {
  CHECK(blobcache_test::dies_of_assertion("cqes_owed_ < options_.cqes", [] {
    SimWorld world({.seed = 1});
    Reactor reactor(world.create_ring(8, 8), {.core = 0, .cqes = 8});
    std::vector<int> order;
    std::vector<std::unique_ptr<Recorded>> ops;
    for (int i = 0; i < 9; ++i) {
      ops.push_back(std::make_unique<Recorded>(order, i));
      prep_nop(reactor.prepare(*ops.back()));
    }
  }));
}

// Messages that go to the other core, are counted there, and come back.
struct Exchange {
  Reactor* sender = nullptr;
  Reactor* receiver = nullptr;
  uint64_t to_send = 0;
  uint64_t sent = 0;
  uint64_t came_back = 0;
  uint64_t received = 0;  // on the receiver's core
  uint64_t received_sum = 0;
  uint64_t wrong = 0;
};

struct Letter : Message {
  Exchange* exchange = nullptr;
  uint64_t payload = 0;  // plain memory, written by one core and read by the other

  void send_next() {
    if (exchange->sent == exchange->to_send) return;
    payload = ++exchange->sent;
    handler = &Letter::on_receiver;
    exchange->sender->post(*exchange->receiver, *this);
  }
  static void on_receiver(Op& op, int32_t result, uint32_t) {
    auto& self = static_cast<Letter&>(op);
    Exchange& exchange = *self.exchange;
    if (result != 0) ++exchange.wrong;
    ++exchange.received;
    exchange.received_sum += self.payload;
    self.payload = ~self.payload;
    self.handler = &Letter::on_sender;
    exchange.receiver->post(*exchange.sender, self);
  }
  static void on_sender(Op& op, int32_t, uint32_t) {
    auto& self = static_cast<Letter&>(op);
    if (~self.payload > self.exchange->sent) ++self.exchange->wrong;
    ++self.exchange->came_back;
    self.send_next();
  }
};

struct StopLetter : Message {
  Reactor* target = nullptr;
  StopLetter() : Message([](Op& op, int32_t, uint32_t) { static_cast<StopLetter&>(op).target->stop(); }) {}
};

TEST_CASE("two cores exchange 10^5 messages, far more at a time than a CQ holds, and lose none") {
  Exchange exchange{.to_send = 100'000};
  std::promise<Reactor*> ready;
  std::promise<void> may_go;
  std::thread other([&] {
    Reactor reactor(kernel_ring(32, 64), {.core = 1, .cqes = 64});
    ready.set_value(&reactor);
    reactor.run();
    may_go.get_future().wait();
  });
  Reactor reactor(kernel_ring(32, 64), {.core = 0, .cqes = 64});
  exchange.sender = &reactor;
  exchange.receiver = ready.get_future().get();
  constexpr size_t letters = 1000;
  const auto box = std::make_unique<Letter[]>(letters);
  for (size_t i = 0; i < letters; ++i) {
    box[i].exchange = &exchange;
    box[i].send_next();
  }
  while (exchange.came_back < exchange.to_send) reactor.turn(true);
  StopLetter stop;
  stop.target = exchange.receiver;
  reactor.post(*exchange.receiver, stop);
  reactor.turn(false);
  may_go.set_value();
  other.join();
  CHECK(exchange.wrong == 0);
  CHECK(exchange.received == exchange.to_send);
  CHECK(exchange.received_sum == exchange.to_send * (exchange.to_send + 1) / 2);
}

TEST_CASE("a message that finds the other ring full is posted again and handled there, once") {
  SimWorld world({.seed = 11, .message_full_ppm = 300'000});
  Reactor sender(world.create_ring(64, 128), {.core = 0, .cqes = 128});
  Reactor receiver(world.create_ring(64, 128), {.core = 1, .cqes = 128});
  Exchange exchange{.sender = &sender, .receiver = &receiver, .to_send = 10'000};
  const auto box = std::make_unique<Letter[]>(50);
  for (size_t i = 0; i < 50; ++i) {
    box[i].exchange = &exchange;
    box[i].send_next();
  }
  while (exchange.came_back < exchange.to_send) {
    sender.turn(false);
    receiver.turn(false);
    world.run_next();
  }
  CHECK(exchange.wrong == 0);
  CHECK(exchange.received == exchange.to_send);
  CHECK(exchange.received_sum == exchange.to_send * (exchange.to_send + 1) / 2);
  CHECK(sender.counters().posts_repeated > 1000);
  CHECK(receiver.counters().posts_repeated > 1000);
}

TEST_CASE("a message to a reactor that has ended is counted, and its handler does not run here") {
  Reactor reactor(kernel_ring(8, 16), {.core = 0, .cqes = 16});
  int gone = -1;
  {
    const Reactor ended(kernel_ring(8, 16), {.core = 1, .cqes = 16});
    gone = fcntl(ended.fd(), F_DUPFD_CLOEXEC, 500);
    REQUIRE(gone >= 0);
    close(gone);
  }
  static bool ran;
  ran = false;
  Message message([](Op&, int32_t, uint32_t) { ran = true; });
  reactor.post(gone, message);
  reactor.turn(true);
  CHECK(!ran);
  CHECK(reactor.counters().posts_undelivered == 1);
}

TEST_CASE("run() hands over what its last handlers prepared") {
  SimWorld world({.seed = 5});
  Reactor first(world.create_ring(8, 16), {.core = 0, .cqes = 16});
  Reactor second(world.create_ring(8, 16), {.core = 1, .cqes = 16});
  static bool heard;
  heard = false;
  struct Farewell : Timer {
    Reactor* from = nullptr;
    Reactor* to = nullptr;
    Message message{[](Op&, int32_t, uint32_t) { heard = true; }};
  } farewell;
  farewell.from = &first;
  farewell.to = &second;
  farewell.handler = [](Timer& timer) {
    auto& self = static_cast<Farewell&>(timer);
    self.from->post(*self.to, self.message);
    self.from->stop();
  };
  first.arm(farewell, 1000);
  first.run();
  while (world.run_next()) {
  }
  second.turn(false);
  CHECK(heard);
}

}  // namespace
}  // namespace blobcache
