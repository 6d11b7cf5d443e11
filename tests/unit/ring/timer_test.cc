#include "ring/timer.h"

#include <map>
#include <memory>
#include <random>
#include <vector>

#include <doctest/doctest.h>

namespace blobcache {
namespace {

struct Numbered : Timer {
  static inline std::vector<Numbered*> fired;
  Numbered() : Timer([](Timer& timer) { fired.push_back(static_cast<Numbered*>(&timer)); }) {}
  uint64_t model_deadline_ns = 0;
};

TEST_CASE("10^5 random arms, cancels and advances agree with a sorted list") {
  constexpr size_t count = 500;
  std::mt19937_64 random(4);
  Timers timers(16);
  const auto all = std::make_unique<Numbered[]>(count);
  std::multimap<uint64_t, Numbered*> model;
  uint64_t now_ns = 0;
  uint64_t fired_total = 0;
  auto forget = [&](Numbered* timer) {
    auto [at, end] = model.equal_range(timer->model_deadline_ns);
    while (at->second != timer) ++at;
    model.erase(at);
  };
  for (int step = 0; step < 100'000; ++step) {
    Numbered& timer = all[random() % count];
    REQUIRE(timer.armed() == (timer.model_deadline_ns != 0));
    if (timer.armed()) {
      timers.cancel(timer);
      forget(&timer);
      timer.model_deadline_ns = 0;
    } else {
      timer.model_deadline_ns = now_ns + 1 + random() % 64;  // many equal ones
      timers.arm(timer, timer.model_deadline_ns);
      model.emplace(timer.model_deadline_ns, &timer);
    }
    REQUIRE(timers.next_deadline_ns() == (model.empty() ? ~uint64_t{0} : model.begin()->first));
    if (random() % 8 != 0) continue;
    now_ns += random() % 4;
    Numbered::fired.clear();
    timers.run_due(now_ns);
    uint64_t last_ns = 0;
    for (Numbered* done : Numbered::fired) {
      REQUIRE(!done->armed());
      REQUIRE(done->model_deadline_ns >= last_ns);
      REQUIRE(done->model_deadline_ns <= now_ns);
      last_ns = done->model_deadline_ns;
      forget(done);
      done->model_deadline_ns = 0;
    }
    fired_total += Numbered::fired.size();
    REQUIRE((model.empty() || model.begin()->first > now_ns));
  }
  CHECK(fired_total > 1000);
  for (size_t i = 0; i < count; ++i) {
    if (all[i].armed()) timers.cancel(all[i]);
  }
  CHECK(timers.next_deadline_ns() == ~uint64_t{0});
}

struct Chained : Timer {
  Timers* timers = nullptr;
  Chained* other = nullptr;
  int calls = 0;
};

TEST_CASE("a handler may cancel a timer that is due as well, and one that re-arms itself does not hold up the call") {
  Timers timers(4);
  Chained first;
  Chained second;
  first.timers = &timers;
  first.other = &second;
  first.handler = [](Timer& timer) {
    auto& self = static_cast<Chained&>(timer);
    ++self.calls;
    if (self.other->armed()) self.timers->cancel(*self.other);
  };
  second.handler = [](Timer& timer) { ++static_cast<Chained&>(timer).calls; };
  timers.arm(first, 1);
  timers.arm(second, 2);
  timers.run_due(10);
  CHECK(first.calls == 1);
  CHECK(second.calls == 0);

  Chained restless;
  restless.timers = &timers;
  restless.handler = [](Timer& timer) {
    auto& self = static_cast<Chained&>(timer);
    ++self.calls;
    self.timers->arm(self, 0);
  };
  timers.arm(restless, 5);
  timers.run_due(10);
  CHECK(restless.calls == 1);
  timers.run_due(11);
  CHECK(restless.calls == 2);
  timers.cancel(restless);
}

}  // namespace
}  // namespace blobcache
