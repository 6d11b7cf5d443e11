// What the tests of the memory tier share: rings without a kernel, bytes that say whose they are, and loads.
//   Thread    one, where it says TestCore; the real rings are for the tests with threads
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include <doctest/doctest.h>

#include "base/memory.h"
#include "cache/memory_tier.h"

namespace blobcache::test {

// Delivers MSG_RING between the rings of one thread. posts_to_fail: so many posts fail with -EOVERFLOW first.
class MessageRing : public Ring {
 public:
  static inline int posts_to_fail = 0;

  MessageRing() : fd_(next_fd_++) { rings_[fd_] = this; }
  ~MessageRing() override { rings_.erase(fd_); }

  Sqe* get_sqe() override {
    if (used_ == slots_.size()) return nullptr;
    Slot& slot = slots_[used_++];
    slot = Slot{};
    return reinterpret_cast<Sqe*>(slot.bytes);
  }
  unsigned sqes_free() const override { return static_cast<unsigned>(slots_.size() - used_); }
  void submit() override {
    for (size_t i = 0; i < used_; ++i) {
      const Sqe& sqe = *reinterpret_cast<const Sqe*>(slots_[i].bytes);
      REQUIRE(sqe.opcode == IORING_OP_MSG_RING);
      if (posts_to_fail > 0) {
        --posts_to_fail;
        cqes_.push_back({sqe.user_data, -EOVERFLOW, 0});
      } else {
        rings_.at(sqe.fd)->cqes_.push_back({sqe.off, static_cast<int32_t>(sqe.len), 0});
      }
    }
    used_ = 0;
  }
  void submit_and_wait(int64_t) override { submit(); }
  unsigned reap(std::span<Cqe> cqes) override {
    unsigned count = 0;
    while (count < cqes.size() && !cqes_.empty()) {
      cqes[count++] = cqes_.front();
      cqes_.pop_front();
    }
    return count;
  }
  uint64_t now_ns() override { return 1; }
  int fd() const override { return fd_; }
  Result<void> register_file(unsigned, int) override { return {}; }
  Result<void> register_buffer(unsigned, iovec) override { return {}; }

 private:
  struct alignas(64) Slot {
    std::byte bytes[128]{};
  };
  static inline int next_fd_ = 1000;
  static inline std::map<int, MessageRing*> rings_;
  std::vector<Slot> slots_{1024};
  size_t used_ = 0;
  std::deque<Cqe> cqes_;
  int fd_;
};

inline ObjectId make_object(uint64_t number) {
  return {{number * 0x9e3779b97f4a7c15u + 1, number ^ 0x5555555555555555u}};
}

// Every eight bytes of every object differ from all others'.
inline uint64_t word_of(const ObjectId& object, uint64_t word_index) {
  return (object.words[0] ^ (word_index * 0xd6e8feb86659fd93u)) * 0x9e3779b97f4a7c15u + object.words[1];
}
inline void fill_bytes(const ObjectId& object, uint64_t offset, size_t bytes, std::byte* to) {
  for (size_t i = 0; i < bytes; i += 8) {
    const uint64_t word = word_of(object, (offset + i) / 8);
    std::memcpy(to + i, &word, 8);
  }
}
// offset and bytes are multiples of 8.
inline bool right_bytes(const ObjectId& object, uint64_t offset, size_t bytes, const std::byte* from) {
  for (size_t i = 0; i < bytes; i += 8) {
    const uint64_t word = word_of(object, (offset + i) / 8);
    if (std::memcmp(from + i, &word, 8) != 0) return false;
  }
  return true;
}

inline void fill_blocks(MemoryTier& tier, const ObjectId& object, const Frame& frame, uint64_t frame_offset,
                        uint64_t blocks) {
  for (unsigned block = 0; block < 64; ++block) {
    if ((blocks >> block & 1) == 0) continue;
    const uint64_t at = block * limits::block_bytes;
    fill_bytes(object, frame_offset + at, limits::block_bytes, tier.frame_bytes(frame) + at);
  }
}

// A plan and what became of it.
struct TestPlan : Plan {
  TestPlan() {
    on_done = [](Plan& plan) { ++static_cast<TestPlan&>(plan).done_count; };
  }
  unsigned done_count = 0;

  unsigned blocks_to_load_count() const {
    unsigned count = 0;
    for (unsigned i = 0; i < span_count; ++i)
      count += static_cast<unsigned>(__builtin_popcountll(spans[i].blocks_to_load));
    return count;
  }
};

struct TestTier {
  explicit TestTier(size_t arena_bytes) {
    REQUIRE(arena.allocate(arena_bytes).has_value());
    tier = std::make_unique<MemoryTier>(
        MemoryTier::Options{.arena = arena.bytes(), .buffer_index_first = 3, .epochs = &epochs});
    for (unsigned core = 0; core < 2; ++core) {
      reactors[core] = std::make_unique<Reactor>(std::make_unique<MessageRing>(),
                                                 ReactorOptions{.core = core, .cqes = 8192, .epochs = &epochs});
      reactors[core]->turn(false);
    }
  }
  Reactor& core(unsigned number) { return *reactors[number]; }
  // Both cores pass the end of a turn.
  void turn() {
    for (auto& reactor : reactors) reactor->turn(false);
  }

  // Loads what the plan is to load, with the object's bytes.
  void load(const ObjectId& object, Plan& plan, unsigned on_core = 0, LoadOutcome outcome = {.ok = true}) {
    for (unsigned i = 0; i < plan.span_count; ++i) {
      Plan::Span& span = plan.spans[i];
      const uint64_t blocks = span.blocks_to_load;
      if (blocks == 0) continue;
      span.blocks_to_load = 0;
      if (outcome.ok) fill_blocks(*tier, object, *span.frame, span.offset, blocks);
      tier->finish_load(core(on_core), *span.frame, blocks, outcome);
    }
  }
  // plan, load, release. What plan() said.
  Result<void> bring_in(const PlanRequest& request, uint32_t now_s = 1) {
    TestPlan plan;
    const Result<void> planned = tier->plan(core(0), request, now_s, plan);
    if (!planned) return planned;
    load(request.object, plan);
    CHECK(plan.waiters_pending == 0);
    tier->release(plan);
    return {};
  }
  // Whether [offset, offset + bytes) is a hit; its bytes are checked.
  bool hit(const ObjectId& object, uint64_t offset, uint32_t bytes, uint32_t now_s = 1) {
    std::vector<std::byte> to(bytes);
    if (!tier->try_copy(object, offset, bytes, to.data(), now_s)) return false;
    CHECK(right_bytes(object, offset, bytes, to.data()));
    return true;
  }

  Arena arena;
  Epochs epochs;
  std::unique_ptr<MemoryTier> tier;
  std::unique_ptr<Reactor> reactors[2];
};

inline constexpr uint64_t KiB = 1024;
inline constexpr uint64_t MiB = 1024 * KiB;
inline constexpr uint64_t huge_object = uint64_t{1} << 40;

inline PlanRequest block_request(const ObjectId& object, uint64_t offset, uint64_t bytes) {
  return {.object = object,
          .object_bytes = huge_object,
          .offset = offset,
          .bytes = static_cast<uint32_t>(bytes),
          .kind = FrameKind::block};
}
inline PlanRequest chunk_request(const ObjectId& object, uint64_t offset, uint64_t bytes) {
  return {.object = object,
          .object_bytes = huge_object,
          .offset = offset,
          .bytes = static_cast<uint32_t>(bytes),
          .kind = FrameKind::chunk};
}

}  // namespace blobcache::test
