// The miss: single-flight over blocks.
//
// plan() goes over its range twice. First it pins the frame of every block, making frames where there are none; only this
// can fail, and then nothing has to be taken back but pins. Then it claims: under the stripe's lock, what is neither valid
// nor loading becomes this plan's to load, and what is not valid hangs a waiter on the frame. So a load is begun by exactly
// one plan, and never for a plan that fails.
//
// Which frame a block takes: the chunk frame of its position if the block is valid or loading there; else its block frame;
// else the chunk frame in any case; else a new frame. Requests over 256 KiB use chunk frames only: their blocks in block
// frames would take more spans than a plan has. Such a block may be loaded a second time, into the chunk frame. That is
// rare (a part of the range must be missing, or try_copy would have answered) and costs a read, never a wrong byte.
//
// A frame's pins: one for each plan that has it in a span, and one for `loading` being not 0, because a plan may be
// canceled and released while the read that it began goes on. keep=false and failure take a frame out of the index; it
// lives on for its pins, further loads into it and its waiters, and whoever takes the last pin gives it to limbo.
//
// Waking. Under the lock finish_load moves the waiters that are done to a list of its own and marks them as no longer in
// the frame's; cancel_waits trusts that mark, under the same lock, and leaves them alone: they are under way. After the
// lock:
//   another core's waiter is posted to it (MSG_RING);
//   our own core's are called directly: a post to ourselves would cost an SQE, a CQE and a whole turn between the end of
//   the read and the reply. The danger of a direct call is nesting (a woken task ends another load, which wakes the next,
//   each on top of the last one's stack), so only the outermost finish_load of a core calls; inner ones queue.
#include <bit>
#include <mutex>

#include "base/assert.h"
#include "cache/memory_tier_state.h"

namespace blobcache {
namespace {

constexpr uint64_t chunk_bytes = limits::chunk_frame_bytes;
constexpr uint64_t block_bytes = limits::block_bytes;
constexpr uint64_t blocks_per_chunk = limits::blocks_per_chunk_frame;

// 256 KiB touch at most 5 blocks and 2 positions: 5 block frames and 2 chunk frames are 7 spans.
constexpr uint32_t small_bytes_max = 256 * limits::KiB;
static_assert(small_bytes_max / block_bytes + 1 + 2 <= Plan::spans_max);

}  // namespace

Result<void> MemoryTier::plan(Reactor& home, const PlanRequest& request, uint32_t now_s, Plan& plan) {
  BC_ASSERT(request.bytes > 0 && request.offset + request.bytes <= request.object_bytes);
  BC_ASSERT(plan.span_count == 0 && plan.waiters_pending == 0);
  plan.home = &home;
  plan.failed = false;
  plan.abandoned = false;
  plan.sources = 0;
  const uint64_t last_byte = request.offset + request.bytes - 1;
  const uint64_t position_first = request.offset / chunk_bytes;
  const uint64_t position_last = last_byte / chunk_bytes;
  if (position_last - position_first >= Plan::spans_max) return fail(Code::invalid);
  const bool small = request.bytes <= small_bytes_max;
  for (uint64_t position = position_first; position <= position_last; ++position) {
    const uint64_t first = position == position_first ? request.offset % chunk_bytes / block_bytes : 0;
    const uint64_t last = position == position_last ? last_byte % chunk_bytes / block_bytes : blocks_per_chunk - 1;
    const Result<void> pinned =
        state_->pin_position({.object = request.object,
                              .chunk_position = position,
                              .stripe = FrameIndex::stripe_of(request.object, position),
                              .blocks = block_bits(static_cast<unsigned>(first), static_cast<unsigned>(last)),
                              .kind = small ? request.kind : FrameKind::chunk,
                              .small = small},
                             now_s, plan);
    if (!pinned) {
      release(plan);
      return pinned;
    }
  }
  for (unsigned i = 0; i < plan.span_count; ++i) {
    plan.spans[i].frame->touch(now_s);
    state_->claim(plan, plan.spans[i]);
  }
  return {};
}

// A new frame is allocated with no stripe locked, so what is missing is looked for again before it is linked.
Result<void> MemoryTier::State::pin_position(const Position& position, uint32_t now_s, Plan& plan) {
  uint64_t rest = position.blocks;
  Frame* fresh = nullptr;
  while (true) {
    {
      const std::lock_guard guard(index->lock(position.stripe));
      pin_existing(position, &rest, plan);
      if (rest != 0 && fresh != nullptr) {
        link_fresh(position, *fresh, &rest, plan);
        fresh = nullptr;
      }
    }
    if (rest == 0) break;
    fresh = slabs->try_allocate(position.kind, now_s);
    if (fresh == nullptr) return fail(Code::again);
  }
  if (fresh != nullptr) slabs->give_back(*fresh);
  return {};
}

// Under the stripe's lock.
void MemoryTier::State::pin_existing(const Position& position, uint64_t* rest, Plan& plan) {
  const FrameKey chunk_key{position.object, FrameKind::chunk, position.chunk_position};
  Frame* chunk = index->find(chunk_key, position.stripe);
  if (chunk != nullptr) {
    const uint64_t there = chunk->valid.load(std::memory_order_relaxed) | chunk->loading;
    const uint64_t taken = position.small ? *rest & there : *rest;
    if (taken != 0) add_span(plan, *chunk, taken);
    *rest &= ~taken;
  }
  if (!position.small) return;
  for (uint64_t blocks = *rest; blocks != 0; blocks &= blocks - 1) {
    const uint64_t block = static_cast<unsigned>(std::countr_zero(blocks));
    const FrameKey key{position.object, FrameKind::block, position.chunk_position * blocks_per_chunk + block};
    Frame* frame = index->find(key, position.stripe);
    if (frame == nullptr) continue;
    add_span(plan, *frame, 1);
    *rest &= ~(uint64_t{1} << block);
  }
  if (*rest != 0 && chunk != nullptr) {
    add_span(plan, *chunk, *rest);
    *rest = 0;
  }
}

// Under the stripe's lock.
void MemoryTier::State::link_fresh(const Position& position, Frame& frame, uint64_t* rest, Plan& plan) {
  const auto block = static_cast<unsigned>(std::countr_zero(*rest));
  const bool whole = frame.kind == FrameKind::chunk;
  frame.object = position.object;
  frame.stripe = static_cast<uint8_t>(position.stripe);
  frame.position = whole ? position.chunk_position : position.chunk_position * blocks_per_chunk + block;
  BC_ASSERT(frame.loading == 0 && frame.waiters.empty());
  index->insert(frame);
  // The pin it came with goes, the span has its own; nobody can take the frame while we hold the stripe.
  frame.state.fetch_sub(1, std::memory_order_relaxed);
  add_span(plan, frame, whole ? *rest : 1);
  *rest &= whole ? 0 : ~(uint64_t{1} << block);
}

// Under the stripe's lock. A frame has one span and one pin in a plan.
void MemoryTier::State::add_span(Plan& plan, Frame& frame, uint64_t blocks) {
  for (unsigned i = 0; i < plan.span_count; ++i) {
    if (plan.spans[i].frame != &frame) continue;
    plan.spans[i].blocks |= blocks;
    return;
  }
  BC_ASSERT(plan.span_count < Plan::spans_max);
  Plan::Span& span = plan.spans[plan.span_count++];
  span.frame = &frame;
  span.offset = frame.offset();
  span.blocks = blocks;
  span.blocks_to_load = 0;
  pin(frame);
}

void MemoryTier::State::claim(Plan& plan, Plan::Span& span) {
  Frame& frame = *span.frame;
  if ((frame.valid.load(std::memory_order_acquire) & span.blocks) == span.blocks) return;
  const std::lock_guard guard(index->lock(frame.stripe));
  const uint64_t missing = span.blocks & ~frame.valid.load(std::memory_order_relaxed);
  if (missing == 0) return;
  span.blocks_to_load = missing & ~frame.loading;
  if (span.blocks_to_load != 0 && frame.loading == 0) pin(frame);
  frame.loading |= span.blocks_to_load;
  Waiter& waiter = span.waiter;
  BC_ASSERT(!waiter.pending && plan.on_done != nullptr);
  waiter.handler = &on_wake;
  waiter.plan = &plan;
  waiter.blocks = missing;
  waiter.failed = false;
  waiter.abandoned = false;
  waiter.sources = 0;
  waiter.woken.store(false, std::memory_order_relaxed);
  waiter.pending = waiter.in_frame = true;
  frame.waiters.push_back(waiter);
  ++plan.waiters_pending;
}

void MemoryTier::finish_load(Reactor& here, Frame& frame, uint64_t blocks, const LoadOutcome& outcome) {
  BC_ASSERT(here.core() < limits::cores_max && blocks != 0 && outcome.source < 8);
  List<Waiter> woken;
  bool gone = false;
  {
    const std::lock_guard guard(state_->index->lock(frame.stripe));
    const uint64_t valid_before = frame.valid.load(std::memory_order_relaxed);
    BC_ASSERT((frame.loading & blocks) == blocks && (valid_before & blocks) == 0);
    frame.loading &= ~blocks;
    if (outcome.ok) frame.valid.store(valid_before | blocks, std::memory_order_release);
    frame.waiters.for_each([&](Waiter& waiter) {
      if ((waiter.blocks & blocks) == 0) return;
      waiter.blocks &= ~blocks;
      waiter.sources |= static_cast<uint8_t>(1u << outcome.source);
      if (outcome.ok && waiter.blocks != 0) return;
      waiter.failed = !outcome.ok;
      waiter.error = outcome.error;
      waiter.in_frame = false;
      waiter.unlink();
      woken.push_back(waiter);
    });
    const bool linked = (frame.state.load(std::memory_order_relaxed) & frame_linked) != 0;
    const bool useless = !outcome.ok && frame.loading == 0 && valid_before == 0;
    if (linked && (useless || (outcome.ok && !outcome.keep))) state_->index->remove(frame);
    if (frame.loading == 0) gone = state_->drop_pin(frame) == 0;
  }
  if (gone) state_->slabs->retire(frame);
  state_->wake(here, woken);
}

// The pin of `loading` keeps the frame until the load ends after all.
void MemoryTier::abandon_load(Reactor& here, Frame& frame, uint64_t blocks) {
  List<Waiter> woken;
  {
    const std::lock_guard guard(state_->index->lock(frame.stripe));
    BC_ASSERT(blocks != 0 && (frame.loading & blocks) == blocks);
    frame.waiters.for_each([&](Waiter& waiter) {
      if ((waiter.blocks & blocks) == 0) return;
      waiter.failed = waiter.abandoned = true;
      waiter.error = Error{Code::timeout};
      waiter.in_frame = false;
      waiter.unlink();
      woken.push_back(waiter);
    });
    if ((frame.state.load(std::memory_order_relaxed) & frame_linked) != 0) state_->index->remove(frame);
  }
  state_->wake(here, woken);
}

// Not under a lock.
void MemoryTier::State::wake(Reactor& here, List<Waiter>& woken) {
  Calls& own = calls[here.core()];
  while (Waiter* waiter = woken.pop_front()) {
    if (waiter->plan->home == &here) {
      own.waiters.push_back(*waiter);
      continue;
    }
    waiter->sender = &here;
    waiter->woken.store(true, std::memory_order_release);
    here.post(*waiter->plan->home, *waiter);
  }
  if (own.running) return;
  own.running = true;
  while (Waiter* waiter = own.waiters.pop_front()) deliver(*waiter);
  own.running = false;
}

// On the home core; or, if the post failed, on the sender's, where nothing of the plan may be touched but home.
void MemoryTier::State::on_wake(Op& op, int32_t result, uint32_t) {
  auto& waiter = static_cast<Waiter&>(op);
  if (result < 0) {
    // The target's CQ was full, or the kernel had no memory for the message. The plan waits, so we try again each turn.
    waiter.sender->post(*waiter.plan->home, waiter);
    return;
  }
  // The kernel orders the message, but no C++ rule says so; this pair does.
  const bool woken = waiter.woken.load(std::memory_order_acquire);
  BC_ASSERT(woken);
  deliver(waiter);
}

void MemoryTier::State::deliver(Waiter& waiter) {
  Plan& plan = *waiter.plan;
  BC_ASSERT(waiter.pending && !waiter.in_frame && plan.waiters_pending > 0);
  waiter.pending = false;
  plan.sources |= waiter.sources;
  plan.abandoned |= waiter.abandoned;
  if (waiter.failed && !plan.failed) {
    plan.failed = true;
    plan.error = waiter.error;
  }
  if (--plan.waiters_pending == 0) plan.on_done(plan);
}

void MemoryTier::cancel_waits(Plan& plan) {
  for (unsigned i = 0; i < plan.span_count; ++i) {
    Waiter& waiter = plan.spans[i].waiter;
    if (!waiter.pending) continue;
    const std::lock_guard guard(state_->index->lock(plan.spans[i].frame->stripe));
    if (!waiter.in_frame) continue;
    waiter.unlink();
    waiter.in_frame = waiter.pending = false;
    plan.sources |= waiter.sources;
    --plan.waiters_pending;
  }
}

void MemoryTier::release(Plan& plan) {
  BC_ASSERT(plan.waiters_pending == 0);
  for (unsigned i = 0; i < plan.span_count; ++i) {
    unhold(*plan.spans[i].frame);
    plan.spans[i].frame = nullptr;
  }
  plan.span_count = 0;
}

// Needs no stripe's lock: the pin that is there already keeps "no pins" from being true under it.
void MemoryTier::hold(Frame& frame) {
  const uint32_t before = frame.state.fetch_add(1, std::memory_order_relaxed);
  BC_ASSERT((before & frame_pins) > 0 && (before & frame_pins) < frame_pins);
}

void MemoryTier::unhold(Frame& frame) {
  if (frame.valid.load(std::memory_order_relaxed) == 0)
    state_->unpin_empty(frame);
  else
    state_->unpin(frame);
}

void MemoryTier::State::pin(Frame& frame) {
  const uint32_t before = frame.state.fetch_add(1, std::memory_order_relaxed);
  BC_ASSERT((before & frame_pins) < frame_pins);
  if ((before & frame_pins) == 0) pinned_frames.fetch_add(1, std::memory_order_relaxed);
}

// What remains of state. 0: the caller gives the frame to Slabs.
uint32_t MemoryTier::State::drop_pin(Frame& frame) {
  // Release: what we copied out of it comes before its reuse.
  const uint32_t before = frame.state.fetch_sub(1, std::memory_order_acq_rel);
  BC_ASSERT((before & frame_pins) > 0);
  if ((before & frame_pins) == 1) pinned_frames.fetch_sub(1, std::memory_order_relaxed);
  return before - 1;
}

void MemoryTier::State::unpin(Frame& frame) {
  if (drop_pin(frame) == 0) slabs->retire(frame);
}

// A frame that holds nothing when its last pin goes (a plan that failed or was canceled before its load began) is not left
// in the index: it would take the room of one that does.
void MemoryTier::State::unpin_empty(Frame& frame) {
  bool gone = false;
  {
    const std::lock_guard guard(index->lock(frame.stripe));
    uint32_t left = drop_pin(frame);
    const bool empty = frame.valid.load(std::memory_order_relaxed) == 0;
    if (left == frame_linked && empty) {
      index->remove(frame);
      left = 0;
    }
    gone = left == 0;
  }
  if (gone) slabs->retire(frame);
}

}  // namespace blobcache
