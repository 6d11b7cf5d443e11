// PrefetchWindows: how far ahead of the streams of one open file to fetch, and what of it was of use.
// PrefetchBudget: what all of them on a node may have on the way and in memory.
//   Owner     one open file, made when it has its first stream; the budget: Node
//   Thread    windows: one at a time, the caller sees to it; budget: any
//   Limits    6 KiB a file. A stream has at most max_window_bytes ahead of its reader, so a reader that stops costs one
//             window at most; a plan has at most 16 ranges (more: call next_fetch again)
//   Invariant the same calls give the same answers: no clock inside, no randomness. Every byte that the budget granted
//             leaves it once: when it is read, passed by, evicted or dropped
//
// Only reads of users are told to on_read: what a plan makes the caller read moves nothing, so a window cannot feed on
// itself. A read without a stream causes nothing.
//
// Protocol: on_read -> the plan's cancels are looked for among what is in flight, its fetches are begun. For each fetch
// budget.on_landed when it ended in whatever way, and on_dropped when it brought nothing (failed, canceled, the bytes were
// there). on_evicted when what was fetched left memory and disk unread. stop() at release, or when the file idles.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "base/limits.h"
#include "base/spinlock.h"
#include "cache/byte_range.h"
#include "cache/layout.h"
#include "cache/pattern.h"
#include "cache/pieces_read.h"

namespace blobcache {

class PrefetchBudget {
 public:
  struct Options {
    uint64_t in_flight_bytes_max;  // of prefetch and demand together
    uint64_t memory_bytes_max;     // in flight, or arrived and not read yet
    uint64_t bandwidth_bytes = 0;  // a second; 0: no limit
  };
  explicit PrefetchBudget(const Options& options);
  // A second; 0: no limit. From any thread.
  void set_bandwidth(uint64_t bytes);

  // All of bytes, or fewer in whole units, or 0. Demand goes first: what it has in flight is not there to be given.
  struct Request {
    uint64_t bytes;
    uint64_t unit_bytes;
  };
  uint64_t try_acquire(const Request& request, uint64_t now_ns);
  void on_landed(uint64_t bytes);  // no longer in flight
  void leave(uint64_t bytes);      // no longer in memory on account of prefetch
  void begin_demand(uint64_t bytes) { demand_bytes_.fetch_add(bytes, std::memory_order_relaxed); }
  void end_demand(uint64_t bytes) { demand_bytes_.fetch_sub(bytes, std::memory_order_relaxed); }
  uint64_t demand_bytes() const { return demand_bytes_.load(std::memory_order_relaxed); }

  uint64_t in_flight_bytes();
  uint64_t memory_bytes();

 private:
  void refill(uint64_t now_ns);

  const Options options_;  // but for the bandwidth
  std::atomic<uint64_t> demand_bytes_{0};
  Spinlock lock_;
  uint64_t bandwidth_bytes_;
  uint64_t burst_bytes_;
  uint64_t in_flight_bytes_ = 0;
  uint64_t memory_bytes_ = 0;
  uint64_t allowance_bytes_;
  uint64_t refilled_ns_ = 0;
};

struct WindowOptions {
  uint64_t chunk_bytes = limits::chunk_bytes_default;
  uint64_t min_window_bytes = 16 * limits::chunk_bytes_default;
  uint64_t max_window_bytes = 64 * limits::chunk_bytes_default;
};

// A piece to fetch, or to cancel, and for whom.
struct WindowRange {
  static constexpr uint8_t lane_stream = 253;  // in place of a stream: of the next piece of a lane
  ByteRange range;
  uint32_t generation = 0;  // of the stream: another reader than before has another
  uint8_t stream = 0;
  bool descending = false;     // the reader comes from the end
  bool scattered = false;      // a record: what lies beside it is not wanted
  uint64_t granted_bytes = 0;  // of a fetch: what on_landed is to be told
};

struct WindowPlan {
  static constexpr unsigned fetches_max = 16;
  static constexpr unsigned cancels_max = 2 * Pattern::streams_max;

  std::array<WindowRange, fetches_max> fetches;  // in the order in which they will be read
  std::array<WindowRange, cancels_max> cancels;  // all of this stream and generation that lies within
  unsigned fetch_count = 0;
  unsigned cancel_count = 0;
  bool more = false;  // call next_fetch when these are begun
};

class PrefetchWindows {
 public:
  PrefetchWindows(const WindowOptions& options, uint64_t file_bytes);
  // What the file is made of, and how far its readers have come in that, from now on; they live as long as this. A stream is
  // fetched ahead up to the end of the piece in which it is, until it has passed two whole ones behind the first. whole: who
  // reads a piece reads all, in file order.
  void set_layout(const Layout& layout, const PiecesRead& pieces, bool whole = false);

  struct Totals {
    uint64_t asked_bytes = 0;   // given out to fetch
    uint64_t used_bytes = 0;    // of these: read by a user
    uint64_t unused_bytes = 0;  // of these: passed by, canceled or evicted before anyone read them
  };

  void on_read(const Pattern& pattern, const ByteRange& read, PrefetchBudget& budget, uint64_t now_ns,
               WindowPlan* plan);
  // More of the same stream, after a plan that said so.
  void next_fetch(uint8_t stream, PrefetchBudget& budget, uint64_t now_ns, WindowPlan* plan);
  void on_dropped(const WindowRange& dropped, PrefetchBudget& budget);
  void on_evicted(const WindowRange& evicted, PrefetchBudget& budget);
  // What a user reads just now and nobody had for him: what of it was fetched ahead, for whichever stream, was evicted.
  void on_absent(const ByteRange& absent, PrefetchBudget& budget);
  // Of what a stream gave up and somebody may read yet: it was canceled before it began, so it is neither used nor unused.
  // Returns the bytes.
  uint64_t on_canceled(const ByteRange& range) { return take_orphans(range); }
  // It is fetched once more, so it had been evicted.
  void on_fetched_again(const ByteRange& range) { totals_.unused_bytes += take_orphans(range); }
  void stop(PrefetchBudget& budget, WindowPlan* plan);
  // The first `bytes` of a file that nobody has opened yet. Its own stream, ended by stop() or when its place is needed.
  void foretell(uint64_t bytes, PrefetchBudget& budget, uint64_t now_ns, WindowPlan* plan);
  // The readers of the file have come so far that what follows it will be read next: a stream has come through half of it and
  // is fetched ahead to its end, or seven eighths were read in whatever order. The window they had; 0: not yet.
  uint64_t window_at_end() const;

  const Totals& totals() const { return totals_; }
  // Of a stream: its window, 0: there is none; for the status and tests.
  uint64_t window_bytes(uint8_t stream) const;

 private:
  static constexpr unsigned marks_max = 8192;
  static constexpr unsigned orphans_max = 40;
  static constexpr unsigned lanes_max = 16;

  // Steps are blocks, or records when strided, counted from where the stream began in the direction it goes; so whatever
  // the direction, the reader is at `cursor`, and [cursor, issued) has been asked for.
  struct Stream {
    PatternKind kind = PatternKind::unknown;
    uint32_t generation = 0;
    uint64_t base = 0;
    int64_t stride_bytes = 0;  // from one step to the next
    bool records = false;      // steps do not meet
    uint64_t step_bytes = 0;
    uint64_t steps = 0;  // up to the end of the file
    uint64_t tail = 0;   // nothing is marked before
    uint64_t cursor = 0;
    uint64_t issued = 0;
    uint64_t window_bytes = 0;
    uint64_t read_bytes = 0;
    uint64_t used_bytes = 0;
    uint64_t unused_bytes = 0;
    uint64_t piece_end = 0;      // of the layout: where the piece ends in which it began; 0: none is known
    uint64_t piece_bytes = 0;    // and how large it is
    uint64_t tail_bytes = 0;     // of the piece: fetched before what lies between
    uint64_t judged_cursor = 0;  // when the window was last looked at, and what was unused then
    uint64_t judged_unused_bytes = 0;
    std::array<uint64_t, marks_max / 64> marks{};  // asked for and neither read nor given up

    bool live() const { return kind != PatternKind::unknown; }
    bool marked(uint64_t step) const { return (marks[step % marks_max / 64] >> step % 64 & 1) != 0; }
    void mark(uint64_t step) { marks[step % marks_max / 64] |= uint64_t{1} << step % 64; }
    void unmark(uint64_t step) { marks[step % marks_max / 64] &= ~(uint64_t{1} << step % 64); }
    // The first step that a reader who has come so far has not touched.
    uint64_t cursor_of(const Pattern& pattern, const ByteRange& read) const;
    // Steps that a piece of the file touches, as far as they may be marked.
    struct Steps {
      uint64_t first = 0;
      uint64_t end = 0;
    };
    Steps steps_of(const ByteRange& range) const;
    uint64_t start_of(uint64_t step) const {
      const int64_t start = static_cast<int64_t>(base) + static_cast<int64_t>(step) * stride_bytes;
      return static_cast<uint64_t>(std::max<int64_t>(0, start));
    }
    ByteRange range_of(uint64_t first, uint64_t end, uint64_t file_bytes) const;
  };

  // One column of a table, and how far it has been read (window_lanes.cc).
  struct Lane {
    uint32_t column = ~0u;
    uint32_t piece = 0;
    uint32_t followed = 0;     // pieces of it, one after the other
    uint64_t issued = 0;       // of this piece: fetched ahead up to here
    uint64_t next_issued = 0;  // of the next one
  };

  void begin(Stream& stream, const Pattern& pattern, const ByteRange& read);
  void advance(Stream& stream, uint64_t cursor, PrefetchBudget& budget, WindowPlan* plan);
  void judge(Stream& stream);
  void begin_steps(Stream& stream, const ByteRange& read, bool backward);
  // Up to step `goal`, as far as the budget and the plan have room.
  void issue(Stream& stream, uint64_t goal, PrefetchBudget& budget, uint64_t now_ns, WindowPlan* plan);
  void add_fetch(Stream& stream, uint64_t first, uint64_t end, WindowPlan* plan) const;
  uint64_t goal_of(const Stream& stream) const;
  uint64_t steps_within_piece(const Stream& stream) const;
  void bound(Stream& stream, uint64_t position) const;
  void expect_tail(Stream& stream, const ByteRange& read) const;
  bool follow_lane(const ByteRange& read, PrefetchBudget& budget, uint64_t now_ns, WindowPlan* plan);
  bool is_scan(size_t piece) const;
  void fetch_lane(const ByteRange& wanted, PrefetchBudget& budget, uint64_t now_ns, WindowPlan* plan, uint64_t* issued);
  void end(Stream& stream, PrefetchBudget& budget, WindowPlan* plan);
  uint64_t clear(Stream& stream, const Stream::Steps& steps);
  void give_up(Stream& stream, uint64_t until, PrefetchBudget& budget, WindowPlan* plan);
  uint64_t orphan(Stream& stream, const Stream::Steps& steps);
  void add_orphan(const ByteRange& orphan);
  uint64_t take_orphans(const ByteRange& range);
  void distrust();
  uint64_t first_window_bytes() const;
  Stream* find(const WindowRange& range);

  const WindowOptions options_;
  const uint64_t file_bytes_;
  const Layout* layout_ = nullptr;
  const PiecesRead* pieces_ = nullptr;
  bool whole_ = false;
  uint8_t distrust_ = 0;  // halvings of the first window
  uint32_t generations_ = 0;
  uint64_t read_bytes_ = 0;  // of reads that had a stream
  Totals totals_;
  std::array<Stream, Pattern::streams_max> streams_;
  std::array<Lane, lanes_max> lanes_;
  unsigned lane_oldest_ = 0;
  // Whole blocks that were fetched for a stream and given up by it: not unused before nobody else reads them.
  std::array<ByteRange, orphans_max> orphans_;
  unsigned orphan_count_ = 0;
};
static_assert(sizeof(PrefetchWindows) <= 6 * 1024);

}  // namespace blobcache
