// Three cores with kernel rings, an arena of 16 MiB, a working set of 64 MiB, and every byte that is handed out compared:
// copies without pins race with eviction, plans with plans, loads end late, fail, or are not kept, waits are canceled.
// Under ASan and TSan this is the proof of what frame_index.cc and memory_tier.cc argue.
#include <barrier>
#include <latch>
#include <random>
#include <thread>

#include <doctest/doctest.h>

#include "ring/uring.h"
#include "unit/cache/tier_fixture.h"

namespace blobcache {

using namespace test;

namespace {

constexpr unsigned core_count = 3;
constexpr unsigned requests_per_core = 30000;
constexpr uint64_t objects = 16;
constexpr uint64_t object_bytes = 4 * MiB + 64 * KiB;

struct Counts {
  uint64_t hits = 0;
  uint64_t planned = 0;
  uint64_t loads = 0;
  uint64_t waited = 0;
  uint64_t failed = 0;
  uint64_t canceled = 0;
  uint64_t again = 0;
  uint64_t wrong_bytes = 0;
  uint64_t wrong_errors = 0;
};

class StressCore;

struct Request : Plan {
  StressCore* core = nullptr;
  ObjectId object;
  uint64_t offset = 0;
  uint32_t bytes = 0;
  bool busy = false;
};

struct PendingLoad {
  ObjectId object;
  Frame* frame;
  uint64_t frame_offset;
  uint64_t blocks;
};

class StressCore {
 public:
  StressCore(MemoryTier& tier, Epochs& epochs, unsigned core) : tier_(tier), random_(core + 1), to_(4 * MiB) {
    Result<std::unique_ptr<Ring>> ring = create_uring({.sqes = limits::ring_sqes, .cqes = limits::ring_cqes});
    if (!ring) std::abort();
    reactor_ = std::make_unique<Reactor>(std::move(*ring),
                                         ReactorOptions{.core = core, .cqes = limits::ring_cqes, .epochs = &epochs});
    for (Request& request : requests_) {
      request.core = this;
      request.on_done = [](Plan& plan) {
        auto& self = static_cast<Request&>(plan);
        ++self.core->counts.waited;
        self.core->end(self);
      };
    }
  }

  void turn() { reactor_->turn(false); }

  void begin_one(uint32_t now_s) {
    Request* request = nullptr;
    for (Request& candidate : requests_)
      if (!candidate.busy) request = &candidate;
    if (request == nullptr) return;
    static constexpr uint32_t sizes[] = {4096, 4096, 4096, 64 * 1024, 256 * 1024, 1024 * 1024};
    // Every other request is for 2 MiB of the 64.
    const bool hot = random_() % 2 == 0;
    request->object = make_object(random_() % (hot ? 2 : objects));
    request->bytes = sizes[random_() % (hot ? 5 : 6)];
    request->offset = random_() % (((hot ? 1 * MiB : object_bytes) - request->bytes) / 8) * 8;
    if (tier_.try_copy(request->object, request->offset, request->bytes, to_.data(), now_s)) {
      ++counts.hits;
      verify(*request);
      return;
    }
    const PlanRequest plan_request{.object = request->object,
                                   .object_bytes = object_bytes,
                                   .offset = request->offset,
                                   .bytes = request->bytes,
                                   .kind = random_() % 2 == 0 ? FrameKind::block : FrameKind::chunk};
    if (!tier_.plan(*reactor_, plan_request, now_s, *request)) {
      ++counts.again;
      return;
    }
    ++counts.planned;
    request->busy = true;
    for (unsigned i = 0; i < request->span_count; ++i) {
      const Plan::Span& span = request->spans[i];
      if (span.blocks_to_load != 0) loads_.push_back({request->object, span.frame, span.offset, span.blocks_to_load});
    }
    if (request->waiters_pending == 0) {
      end(*request);
    } else if (random_() % 16 == 0) {
      tier_.cancel_waits(*request);
      ++counts.canceled;
      if (request->waiters_pending == 0) {
        tier_.release(*request);
        request->busy = false;
      }
    }
  }

  // Ends one load, not always the oldest, in up to two parts.
  void end_one_load() {
    if (loads_.empty()) return;
    std::swap(loads_[random_() % loads_.size()], loads_.back());
    PendingLoad& load = loads_.back();
    uint64_t blocks = load.blocks;
    if (random_() % 2 == 0) blocks &= blocks - 1;
    if (blocks == 0) blocks = load.blocks;
    load.blocks &= ~blocks;
    const PendingLoad ended = load;
    if (load.blocks == 0) loads_.pop_back();
    const unsigned fate = random_() % 16;
    ++counts.loads;
    if (fate == 0) {
      tier_.finish_load(*reactor_, *ended.frame, blocks, {.ok = false, .error = {Code::io, 5}});
      return;
    }
    fill_blocks(tier_, ended.object, *ended.frame, ended.frame_offset, blocks);
    tier_.finish_load(*reactor_, *ended.frame, blocks, {.ok = true, .keep = fate != 1});
  }

  void drop_one() { tier_.drop(make_object(random_() % objects), object_bytes); }
  void demote_one() { tier_.demote(make_object(random_() % objects), random_() % object_bytes); }

  bool idle() const {
    for (const Request& request : requests_)
      if (request.busy) return false;
    return loads_.empty();
  }

  Counts counts;

 private:
  void end(Request& request) {
    if (request.failed) {
      ++counts.failed;
      if (request.error != Error{Code::io, 5}) ++counts.wrong_errors;
    } else if (valid(request)) {
      tier_.copy(request, request.offset, request.bytes, to_.data());
      verify(request);
    }
    tier_.release(request);
    request.busy = false;
  }
  // A canceled plan may be called for a wake-up that was under way, with other blocks still missing.
  bool valid(const Request& request) {
    for (unsigned i = 0; i < request.span_count; ++i)
      if (request.spans[i].waiter.blocks != 0) return false;
    return true;
  }
  void verify(const Request& request) {
    if (!right_bytes(request.object, request.offset, request.bytes, to_.data())) ++counts.wrong_bytes;
  }

  MemoryTier& tier_;
  std::mt19937 random_;
  std::vector<std::byte> to_;
  std::unique_ptr<Reactor> reactor_;
  Request requests_[8];
  std::vector<PendingLoad> loads_;
};

}  // namespace

TEST_CASE("three cores under pressure never see a wrong byte") {
  Arena arena;
  REQUIRE(arena.allocate(16 * MiB).has_value());
  Epochs epochs;
  MemoryTier tier({.arena = arena.bytes(), .epochs = &epochs});
  std::atomic<unsigned> idle_cores{0};
  std::barrier<> all(core_count);
  Counts counts[core_count];
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < core_count; ++number) {
    threads.emplace_back([&, number] {
      StressCore core(tier, epochs, number);
      all.arrive_and_wait();
      for (unsigned i = 0; i < requests_per_core; ++i) {
        core.begin_one(1 + i / 100);
        if (i % 3 == 0) core.turn();
        core.end_one_load();
        if (i % 64 == 0) core.demote_one();
        if (i % 512 == 0) core.drop_one();
      }
      bool said = false;
      while (idle_cores.load() < core_count) {
        core.end_one_load();
        core.turn();
        if (!said && core.idle()) {
          idle_cores.fetch_add(1);
          said = true;
        }
      }
      all.arrive_and_wait();
      counts[number] = core.counts;
    });
  }
  for (std::thread& thread : threads) thread.join();
  Counts sum;
  for (const Counts& one : counts) {
    sum.hits += one.hits;
    sum.planned += one.planned;
    sum.loads += one.loads;
    sum.waited += one.waited;
    sum.failed += one.failed;
    sum.canceled += one.canceled;
    sum.again += one.again;
    sum.wrong_bytes += one.wrong_bytes;
    sum.wrong_errors += one.wrong_errors;
  }
  MESSAGE("hits ", sum.hits, ", plans ", sum.planned, ", loads ", sum.loads, ", woken ", sum.waited, ", failed ",
          sum.failed, ", canceled ", sum.canceled, ", again ", sum.again);
  CHECK(sum.wrong_bytes == 0);
  CHECK(sum.wrong_errors == 0);
  // Nothing of this is proved if it did not happen.
  CHECK(sum.hits > 0);
  CHECK(sum.waited > 0);
  CHECK(sum.failed > 0);
  CHECK(sum.canceled > 0);
  CHECK(tier.stats().evicted_bytes > 0);
  CHECK(tier.stats().pinned_frames == 0);
}

}  // namespace blobcache
