// How much to fetch ahead. Too little, and the reader waits for each round trip; too much, and a reader that was about to
// stop has cost the disk, the network and other readers' frames. Four things bound it:
//
//   window   starts at min_window (of a small file: a quarter of it, but a chunk), doubles whenever the reader has passed
//            a whole window of which every byte was read, and halves when an eighth of it was not
//   ramp     never more than eight times what the stream has read so far. Two 4 KiB reads that happened to be neighbours
//            cost one block; a real scan has its first 64 MiB window on the way after 8 MiB
//   piece    of a file that describes itself: who begins in a tensor wants the rest of it, and the next one when he goes on
//            there by himself (the kernel reads on by a request or two: 2 MiB are not the reader's wish). Who has taken
//            three pieces, of the size of the first, and 8 MiB in their order is not bounded by them any more; where
//            pieces are of one size, equal distances are no stride
//   budget   of the node: bytes in flight, memory, bandwidth; demand takes first
//
// A file whose streams were for nothing begins the next one with half the window (`distrust_`, up to six times; each
// window fully read takes one back), so useless prefetch throttles itself down to a chunk and below, and recovers.
//
// The window is topped up when half of it is left, in one piece of whole chunks: a submission of eight chunks of a
// 16-chunk window, two io_uring_enter a window.
//
// Used is what was marked as asked for and then touched by any user's read, in blocks of 64 KiB (a record, when strided).
// What the reader left behind by more than 2 MiB (8 records) is given up: requests overtake each other by less.
//
// What a stream gave up may be read all the same, by another one or the same one under another name: it is an orphan until
// it is read, found missing, or the file is closed, and only then counted.
//
// Rejected: windows in time (needs a clock and a rate per stream, and the ramp already follows the rate), a score of the
// whole node (one bad file would cost the others), marks per chunk (a 64 KiB use would vouch for 4 MiB).
#include "cache/window.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "base/assert.h"

namespace blobcache {

namespace {

constexpr uint64_t block_bytes = limits::block_bytes;
constexpr uint64_t ramp_factor = 8;
constexpr uint64_t overtaken_bytes = 2 * limits::MiB;
constexpr uint64_t overtaken_records = 8;
constexpr uint64_t run_on_bytes = 2 * limits::MiB;
constexpr uint64_t in_order_bytes = 8 * limits::MiB;
constexpr size_t in_order_pieces = 2;
constexpr uint8_t distrust_max = 6;
constexpr uint64_t unused_share = 8;  // an eighth
constexpr uint64_t steps_ahead_max = 4096;

uint64_t down(uint64_t value, uint64_t unit) { return value - value % unit; }
uint64_t up(uint64_t value, uint64_t unit) { return down(value + unit - 1, unit); }

// What may be asked for at once.
uint64_t burst_of(uint64_t bandwidth_bytes) {
  return std::max<uint64_t>(bandwidth_bytes / 10, limits::chunk_bytes_max);
}

}  // namespace

PrefetchBudget::PrefetchBudget(const Options& options)
    : options_(options),
      bandwidth_bytes_(options.bandwidth_bytes),
      burst_bytes_(burst_of(options.bandwidth_bytes)),
      allowance_bytes_(burst_bytes_) {}

void PrefetchBudget::set_bandwidth(uint64_t bytes) {
  const std::lock_guard held(lock_);
  if (bytes == bandwidth_bytes_) return;
  bandwidth_bytes_ = bytes;
  burst_bytes_ = burst_of(bytes);
  allowance_bytes_ = std::min(allowance_bytes_, burst_bytes_);
}

uint64_t PrefetchBudget::try_acquire(const Request& request, uint64_t now_ns) {
  BC_ASSERT(request.unit_bytes > 0);
  const std::lock_guard held(lock_);
  refill(now_ns);
  const auto left = [](uint64_t limit, uint64_t taken) { return limit - std::min(limit, taken); };
  uint64_t granted =
      left(options_.in_flight_bytes_max, in_flight_bytes_ + demand_bytes_.load(std::memory_order_relaxed));
  granted = std::min(granted, left(options_.memory_bytes_max, memory_bytes_));
  if (bandwidth_bytes_ != 0) granted = std::min(granted, allowance_bytes_);
  granted = down(std::min(granted, request.bytes), request.unit_bytes);
  in_flight_bytes_ += granted;
  memory_bytes_ += granted;
  if (bandwidth_bytes_ != 0) allowance_bytes_ -= granted;
  return granted;
}

void PrefetchBudget::refill(uint64_t now_ns) {
  if (bandwidth_bytes_ == 0 || now_ns <= refilled_ns_) return;
  // A tenth of a second fills it from empty, or what it takes for the largest chunk.
  const double seconds = static_cast<double>(now_ns - refilled_ns_) * 1e-9;
  const double bytes = seconds * static_cast<double>(bandwidth_bytes_);
  if (bytes < 1) return;
  allowance_bytes_ = bytes >= static_cast<double>(burst_bytes_)
                         ? burst_bytes_
                         : std::min(burst_bytes_, allowance_bytes_ + static_cast<uint64_t>(bytes));
  refilled_ns_ = now_ns;
}

void PrefetchBudget::on_landed(uint64_t bytes) {
  const std::lock_guard held(lock_);
  BC_ASSERT(bytes <= in_flight_bytes_);
  in_flight_bytes_ -= bytes;
}

void PrefetchBudget::leave(uint64_t bytes) {
  const std::lock_guard held(lock_);
  BC_ASSERT(bytes <= memory_bytes_);
  memory_bytes_ -= bytes;
}

uint64_t PrefetchBudget::in_flight_bytes() {
  const std::lock_guard held(lock_);
  return in_flight_bytes_;
}

uint64_t PrefetchBudget::memory_bytes() {
  const std::lock_guard held(lock_);
  return memory_bytes_;
}

PrefetchWindows::PrefetchWindows(const WindowOptions& options, uint64_t file_bytes)
    : options_(options), file_bytes_(file_bytes) {
  BC_ASSERT(options.chunk_bytes >= block_bytes && options.chunk_bytes % block_bytes == 0);
  BC_ASSERT(options.min_window_bytes >= options.chunk_bytes && options.max_window_bytes >= options.min_window_bytes);
}

PrefetchWindows::Stream::Steps PrefetchWindows::Stream::steps_of(const ByteRange& range) const {
  const int64_t distance = std::abs(stride_bytes);
  // Steps whose piece [start, start + step_bytes) meets the range; start goes up or down from base.
  const int64_t from = static_cast<int64_t>(range.offset) - static_cast<int64_t>(base);
  const int64_t to = static_cast<int64_t>(range.end()) - static_cast<int64_t>(base);
  const int64_t length = static_cast<int64_t>(step_bytes);
  // first: the lowest k with k * stride + length > from; end: beyond the highest with k * stride < to. Mirrored for < 0.
  const int64_t low = stride_bytes > 0 ? from - length + 1 : 1 - to;
  const int64_t high = stride_bytes > 0 ? to : length - from;
  Steps found;
  if (high <= 0) return found;
  found.first = low <= 0 ? 0 : static_cast<uint64_t>((low + distance - 1) / distance);
  found.end = static_cast<uint64_t>((high + distance - 1) / distance);
  found.first = std::max(found.first, tail);
  found.end = std::max(std::min(found.end, issued), found.first);
  return found;
}

// Of steps that lie side by side, or of one.
ByteRange PrefetchWindows::Stream::range_of(uint64_t first, uint64_t end, uint64_t file_bytes) const {
  const uint64_t low = std::min(start_of(first), start_of(end - 1));
  const uint64_t high = std::max(start_of(first), start_of(end - 1)) + step_bytes;
  // Records are asked for in whole blocks.
  const uint64_t start = std::min(down(low, block_bytes), file_bytes);
  return {start, std::min(up(high, block_bytes), file_bytes) - start};
}

uint64_t PrefetchWindows::window_bytes(uint8_t stream) const {
  return streams_[stream].live() ? streams_[stream].window_bytes : 0;
}

uint64_t PrefetchWindows::first_window_bytes() const {
  const uint64_t small = std::max(options_.chunk_bytes, file_bytes_ / 4);
  return std::max(block_bytes, std::min(options_.min_window_bytes, small) >> distrust_);
}

void PrefetchWindows::distrust() {
  if (distrust_ < distrust_max) ++distrust_;
}

void PrefetchWindows::on_read(const Pattern& pattern, const ByteRange& read, PrefetchBudget& budget, uint64_t now_ns,
                              WindowPlan* plan) {
  *plan = {};
  for (unsigned i = 0; i < Pattern::streams_max; ++i) {
    if ((pattern.ended >> i & 1) != 0) end(streams_[i], budget, plan);
  }
  for (Stream& stream : streams_) {
    if (!stream.live()) continue;
    const uint64_t used = clear(stream, stream.steps_of(read));
    stream.used_bytes += used;
    totals_.used_bytes += used;
    budget.leave(used);
  }
  totals_.used_bytes += take_orphans(read);
  if (layout_ != nullptr && layout_->lanes() > 1 && follow_lane(read, budget, now_ns, plan)) {
    if (pattern.stream != Pattern::no_stream) end(streams_[pattern.stream], budget, plan);
    return;
  }
  if (pattern.stream == Pattern::no_stream) return;
  BC_ASSERT(pattern.stream < Pattern::streams_max);
  read_bytes_ += read.bytes;
  Stream& stream = streams_[pattern.stream];
  if (layout_ != nullptr && pattern.kind == PatternKind::strided) return end(stream, budget, plan);
  if (pattern.changed || stream.kind != pattern.kind) {
    end(stream, budget, plan);
    begin(stream, pattern, read);
  }
  stream.read_bytes += read.bytes;
  if (!pattern.late) advance(stream, stream.cursor_of(pattern, read), budget, plan);
  const uint64_t goal = goal_of(stream);
  if (goal <= stream.issued) return;
  // Half of it is on the way still: later, in one piece.
  if (stream.issued > stream.cursor && stream.issued - stream.cursor > (goal - stream.cursor) / 2) return;
  issue(stream, goal, budget, now_ns, plan);
}

void PrefetchWindows::next_fetch(uint8_t stream, PrefetchBudget& budget, uint64_t now_ns, WindowPlan* plan) {
  *plan = {};
  if (streams_[stream].live()) issue(streams_[stream], goal_of(streams_[stream]), budget, now_ns, plan);
}

void PrefetchWindows::begin(Stream& stream, const Pattern& pattern, const ByteRange& read) {
  stream = {};
  stream.kind = pattern.kind;
  stream.generation = ++generations_;
  stream.window_bytes = std::min(first_window_bytes(), options_.max_window_bytes);
  // Of the reads that made it a stream there was at least one more.
  stream.read_bytes = read.bytes;
  const uint64_t distance = static_cast<uint64_t>(std::abs(pattern.stride_bytes));
  // Records so near that their blocks would meet, or larger than what lies between them, are read in one piece.
  if (pattern.kind == PatternKind::strided &&
      distance >= pattern.record_bytes + std::max(pattern.record_bytes, 2 * block_bytes)) {
    stream.records = true;
    stream.base = pattern.position;
    stream.stride_bytes = pattern.stride_bytes;
    stream.step_bytes = pattern.record_bytes;
    const uint64_t behind = stream.base >= file_bytes_ ? 0 : file_bytes_ - stream.base - 1;
    stream.steps = (pattern.stride_bytes > 0 ? behind : stream.base) / distance + 1;
    return;
  }
  begin_steps(stream, read, pattern.kind == PatternKind::backward || pattern.stride_bytes < 0);
}

void PrefetchWindows::begin_steps(Stream& stream, const ByteRange& read, bool backward) {
  // Marks enough for the largest window, and as many for what lies behind the reader.
  stream.step_bytes = block_bytes;
  while (stream.step_bytes * steps_ahead_max < options_.max_window_bytes) stream.step_bytes *= 2;
  const int64_t step = static_cast<int64_t>(stream.step_bytes);
  stream.stride_bytes = backward ? -step : step;
  stream.base = down(backward ? read.end() - 1 : read.offset, stream.step_bytes);
  if (backward) {
    stream.steps = stream.base / stream.step_bytes + 1;
  } else {
    stream.steps = file_bytes_ <= stream.base ? 0 : (file_bytes_ - stream.base - 1) / stream.step_bytes + 1;
  }
  bound(stream, read.end() - 1);
  expect_tail(stream, read);
}

void PrefetchWindows::set_layout(const Layout& layout, const PiecesRead& pieces, bool whole) {
  layout_ = &layout;
  pieces_ = &pieces;
  whole_ = whole;
  for (Stream& stream : streams_) {
    if (stream.live() && !stream.records) bound(stream, stream.start_of(stream.cursor));
  }
}

void PrefetchWindows::bound(Stream& stream, uint64_t position) const {
  if (layout_ == nullptr || whole_ || stream.stride_bytes <= 0) return;
  const size_t piece = layout_->pieces_before(position);
  stream.piece_end = layout_->piece_end(position);
  stream.piece_bytes = piece < layout_->extents().size() ? layout_->extents()[piece].bytes : 0;
}

// A read around the first page of a piece is a fault of a mapped file. The next one is around its last page, where the C
// library's copy goes from there, and its reader waits for it before all that lies between. Who has the first page of the
// next piece has that one too, and what lies around it.
void PrefetchWindows::expect_tail(Stream& stream, const ByteRange& read) const {
  const size_t piece = layout_ == nullptr ? Layout::no_piece : layout_->piece_begun(read);
  if (piece == Layout::no_piece || stream.stride_bytes < 0) return;
  const ByteRange& extent = layout_->extents()[piece];
  if (extent.offset - read.offset < read.bytes / 4 || extent.end() <= read.end()) return;
  if (pieces_->unread_end(piece) != UINT64_MAX) return;
  stream.tail_bytes = read.bytes;
  if (!whole_) stream.piece_end = std::min(file_bytes_, extent.end() + read.bytes / 2);
}

uint64_t PrefetchWindows::steps_within_piece(const Stream& stream) const {
  if (stream.piece_end == 0) return stream.steps;
  const uint64_t position = stream.start_of(stream.cursor);
  uint64_t end = stream.piece_end;
  if (position > end + run_on_bytes) {
    const size_t passed = layout_->pieces_before(position) - layout_->pieces_before(end);
    // In bytes too: large tensors have small ones between them.
    const uint64_t far = std::max(in_order_bytes, in_order_pieces * stream.piece_bytes);
    if (passed >= in_order_pieces && position - end >= far) return stream.steps;
    end = layout_->piece_end(position);
  }
  end = std::min(end, pieces_->unread_end(layout_->pieces_before(position)));
  const uint64_t bytes = end - std::min(stream.base, end);
  return std::min(stream.steps, (bytes + stream.step_bytes - 1) / stream.step_bytes);
}

uint64_t PrefetchWindows::Stream::cursor_of(const Pattern& pattern, const ByteRange& read) const {
  const int64_t distance = std::abs(stride_bytes);
  const int64_t start = static_cast<int64_t>(base);
  int64_t passed = 0;  // bytes between step 0 and the end of the last one touched
  if (records) {
    const int64_t from_base = static_cast<int64_t>(pattern.position) - start;
    passed = (stride_bytes > 0 ? from_base : -from_base) + distance;
  } else if (stride_bytes > 0) {
    passed = static_cast<int64_t>(read.end()) - start + distance - 1;
  } else {
    passed = start + distance - static_cast<int64_t>(read.offset) + distance - 1;
  }
  return passed <= 0 ? 0 : std::min(static_cast<uint64_t>(passed / distance), steps);
}

void PrefetchWindows::advance(Stream& stream, uint64_t cursor, PrefetchBudget& budget, WindowPlan* plan) {
  if (cursor <= stream.cursor) return;
  stream.cursor = cursor;
  const uint64_t overtaken =
      stream.records ? overtaken_records : std::max<uint64_t>(1, overtaken_bytes / stream.step_bytes);
  const uint64_t kept = cursor - std::min(cursor, overtaken);
  give_up(stream, std::min(kept, stream.issued), budget, plan);
  stream.issued = std::max(stream.issued, cursor);  // it may have come further than what was asked for
  stream.tail = std::max(stream.tail, kept);
  judge(stream);
}

// Marks before `until` will not be read any more.
void PrefetchWindows::give_up(Stream& stream, uint64_t until, PrefetchBudget& budget, WindowPlan* plan) {
  if (until <= stream.tail) return;
  uint64_t first = stream.tail;
  while (first < until && !stream.marked(first)) ++first;
  if (first < until) {
    const uint64_t unused = stream.records ? clear(stream, {first, until}) : orphan(stream, {first, until});
    stream.unused_bytes += unused;
    if (stream.records) totals_.unused_bytes += unused;
    budget.leave(unused);
    BC_ASSERT(plan->cancel_count < WindowPlan::cancels_max);
    plan->cancels[plan->cancel_count++] = {.range = stream.range_of(first, until, file_bytes_),
                                           .generation = stream.generation,
                                           .stream = static_cast<uint8_t>(&stream - streams_.data()),
                                           .descending = stream.stride_bytes < 0};
  }
  stream.tail = until;
}

// What is marked becomes orphans. Returns their bytes.
uint64_t PrefetchWindows::orphan(Stream& stream, const Stream::Steps& steps) {
  uint64_t bytes = 0;
  for (uint64_t step = steps.first; step < steps.end;) {
    uint64_t end = step;
    while (end < steps.end && stream.marked(end)) stream.unmark(end++);
    if (end > step) {
      const uint64_t low = std::min(stream.start_of(step), stream.start_of(end - 1));
      add_orphan({low, (end - step) * stream.step_bytes});
      bytes += (end - step) * stream.step_bytes;
    }
    step = std::max(end, step + 1);
  }
  return bytes;
}

// Without room for it the smallest is unused at once: a block or two at the edge of what was read, most of the time.
void PrefetchWindows::add_orphan(const ByteRange& orphan) {
  if (orphan_count_ < orphans_max) {
    orphans_[orphan_count_++] = orphan;
    return;
  }
  ByteRange& smallest = *std::ranges::min_element(orphans_, {}, &ByteRange::bytes);
  totals_.unused_bytes += std::min(smallest.bytes, orphan.bytes);
  if (smallest.bytes < orphan.bytes) smallest = orphan;
}

// The blocks of orphans that the range touches are none any more. Returns their bytes.
uint64_t PrefetchWindows::take_orphans(const ByteRange& range) {
  uint64_t bytes = 0;
  for (unsigned i = orphan_count_; i-- > 0;) {
    const ByteRange orphan = orphans_[i];
    const uint64_t low = std::max(orphan.offset, down(range.offset, block_bytes));
    const uint64_t high = std::min(orphan.end(), up(range.end(), block_bytes));
    if (low >= high) continue;
    bytes += high - low;
    orphans_[i] = orphans_[--orphan_count_];
    if (low > orphan.offset) add_orphan({orphan.offset, low - orphan.offset});
    if (high < orphan.end()) add_orphan({high, orphan.end() - high});
  }
  return bytes;
}

void PrefetchWindows::judge(Stream& stream) {
  const uint64_t unused = stream.unused_bytes - stream.judged_unused_bytes;
  const uint64_t passed = (stream.cursor - stream.judged_cursor) * stream.step_bytes;
  if (unused > stream.window_bytes / unused_share) {
    distrust();
    stream.window_bytes = std::max(std::min(first_window_bytes(), stream.window_bytes), stream.window_bytes / 2);
  } else if (passed >= stream.window_bytes) {
    if (unused == 0) {
      stream.window_bytes =
          std::min(stream.window_bytes * 2,
                   std::min(options_.max_window_bytes, std::max(up(file_bytes_, block_bytes), block_bytes)));
      if (distrust_ > 0) --distrust_;
    }
  } else {
    return;
  }
  stream.judged_cursor = stream.cursor;
  stream.judged_unused_bytes = stream.unused_bytes;
}

// The step up to which to fetch.
uint64_t PrefetchWindows::goal_of(const Stream& stream) const {
  const uint64_t ahead_bytes = std::min(stream.window_bytes, stream.read_bytes * ramp_factor);
  const uint64_t ahead = std::min(std::max<uint64_t>(1, ahead_bytes / stream.step_bytes), steps_ahead_max);
  const uint64_t steps = steps_within_piece(stream);
  const uint64_t goal = std::min(stream.cursor + ahead, steps);
  const uint64_t chunk_steps = std::max<uint64_t>(1, options_.chunk_bytes / stream.step_bytes);
  if (goal == steps || ahead < 2 * chunk_steps || stream.records || stream.stride_bytes < 0) return goal;
  const uint64_t first = stream.base / stream.step_bytes;
  return down(first + goal, chunk_steps) - first;  // whole chunks of the file
}

void PrefetchWindows::issue(Stream& stream, uint64_t goal, PrefetchBudget& budget, uint64_t now_ns, WindowPlan* plan) {
  if (goal <= stream.issued) return;
  uint64_t wanted = goal - stream.issued;
  if (stream.records && wanted > WindowPlan::fetches_max) {
    wanted = WindowPlan::fetches_max;
    plan->more = true;
  }
  const uint64_t granted =
      budget.try_acquire({.bytes = wanted * stream.step_bytes, .unit_bytes = stream.step_bytes}, now_ns);
  if (granted < wanted * stream.step_bytes) plan->more = false;
  const uint64_t end = stream.issued + granted / stream.step_bytes;
  totals_.asked_bytes += granted;
  for (uint64_t step = stream.issued; step < end; ++step) stream.mark(step);
  // A step more on either side: pages are no steps.
  const uint64_t tail_steps = stream.tail_bytes == 0 ? 0 : stream.tail_bytes / stream.step_bytes + 2;
  const bool tail_first =
      tail_steps > 0 && !whole_ && end == steps_within_piece(stream) && end - stream.issued > tail_steps;
  stream.tail_bytes = 0;
  if (tail_first) {
    add_fetch(stream, end - tail_steps, end, plan);
    add_fetch(stream, stream.issued, end - tail_steps, plan);
    stream.issued = end;
  }
  while (stream.issued < end) {
    const uint64_t until = stream.records ? stream.issued + 1 : end;
    add_fetch(stream, stream.issued, until, plan);
    stream.issued = until;
  }
}

void PrefetchWindows::add_fetch(Stream& stream, uint64_t first, uint64_t end, WindowPlan* plan) const {
  plan->fetches[plan->fetch_count++] = {.range = stream.range_of(first, end, file_bytes_),
                                        .generation = stream.generation,
                                        .stream = static_cast<uint8_t>(&stream - streams_.data()),
                                        .descending = stream.stride_bytes < 0,
                                        .scattered = stream.records,
                                        .granted_bytes = (end - first) * stream.step_bytes};
}

uint64_t PrefetchWindows::clear(Stream& stream, const Stream::Steps& steps) {
  uint64_t cleared = 0;
  for (uint64_t step = steps.first; step < steps.end; ++step) {
    if (!stream.marked(step)) continue;
    stream.unmark(step);
    ++cleared;
  }
  return cleared * stream.step_bytes;
}

void PrefetchWindows::end(Stream& stream, PrefetchBudget& budget, WindowPlan* plan) {
  if (!stream.live()) return;
  give_up(stream, stream.issued, budget, plan);
  if (stream.unused_bytes > stream.used_bytes) distrust();
  stream.kind = PatternKind::unknown;
}

void PrefetchWindows::stop(PrefetchBudget& budget, WindowPlan* plan) {
  *plan = {};
  for (Stream& stream : streams_) end(stream, budget, plan);
  for (; orphan_count_ > 0; --orphan_count_) totals_.unused_bytes += orphans_[orphan_count_ - 1].bytes;
}

void PrefetchWindows::foretell(uint64_t bytes, PrefetchBudget& budget, uint64_t now_ns, WindowPlan* plan) {
  *plan = {};
  Stream& stream = streams_.back();
  BC_ASSERT(!stream.live());
  bytes = std::min(bytes, options_.max_window_bytes);  // which a reload may have made smaller since it was asked for
  stream = {};
  stream.kind = PatternKind::forward;
  stream.generation = ++generations_;
  stream.window_bytes = bytes;
  begin_steps(stream, {0, 1}, false);
  issue(stream, std::min(stream.steps, (bytes + stream.step_bytes - 1) / stream.step_bytes), budget, now_ns, plan);
}

uint64_t PrefetchWindows::window_at_end() const {
  uint64_t window = 0;
  bool at_end = read_bytes_ / 7 >= file_bytes_ / 8;
  for (const Stream& stream : streams_) {
    if (!stream.live() || stream.records || stream.stride_bytes < 0 || stream.read_bytes == 0) continue;
    window = std::max(window, stream.window_bytes);
    // How far it has come, not what was read: of what two processes read together the page cache tells us half.
    at_end |= stream.issued == stream.steps && stream.cursor * stream.step_bytes >= file_bytes_ / 2;
  }
  return at_end ? window : 0;
}

PrefetchWindows::Stream* PrefetchWindows::find(const WindowRange& range) {
  if (range.stream >= Pattern::streams_max) return nullptr;
  Stream& stream = streams_[range.stream];
  return stream.live() && stream.generation == range.generation ? &stream : nullptr;
}

void PrefetchWindows::on_dropped(const WindowRange& dropped, PrefetchBudget& budget) {
  if (dropped.stream == WindowRange::lane_stream) take_orphans(dropped.range);
  if (Stream* stream = find(dropped)) budget.leave(clear(*stream, stream->steps_of(dropped.range)));
}

void PrefetchWindows::on_evicted(const WindowRange& evicted, PrefetchBudget& budget) {
  Stream* stream = find(evicted);
  if (stream == nullptr) return;
  const uint64_t unused = clear(*stream, stream->steps_of(evicted.range));
  stream->unused_bytes += unused;
  totals_.unused_bytes += unused;
  budget.leave(unused);
  judge(*stream);
}

void PrefetchWindows::on_absent(const ByteRange& absent, PrefetchBudget& budget) {
  for (uint8_t i = 0; i < streams_.size(); ++i) {
    if (streams_[i].live()) on_evicted({.range = absent, .generation = streams_[i].generation, .stream = i}, budget);
  }
  totals_.unused_bytes += take_orphans(absent);
}

}  // namespace blobcache
