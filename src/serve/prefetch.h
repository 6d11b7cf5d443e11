// Prefetch: what is fetched ahead of the readers of open files.
//   PrefetchNode   what the files of a node share: budget, settings (which may change at any time), and which files have windows
//   FilePrefetch   of one open file: its pattern, its windows, and what of these is wanted and has not begun
//   Prefetcher     of one core and volume: makes loads of what is wanted (prefetch_loads.cc), those from disk as chains of
//                  linked reads (prefetch_chains.cc). And of files that nobody has opened yet (prefetch_files.cc). What is
//                  at the origin is brought by other cores than the reader's (prefetch_passing.cc)
//   Owner     Node; a Handle, from its first miss on; a VolumeServer
//   Thread    any; any, one at a time by a lock; the core's
//   Limits    the budget: a quarter of the arena for what is fetched and not read yet; files_max files followed;
//             Prefetcher::Limits
//   Locks     in this order: PrefetchNode's, FilePrefetch's, PrefetchBudget's. None is held while a load begins
//   Invariant what is wanted claims no block before its load begins: a demand read never waits behind it
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "base/config.h"
#include "base/list.h"
#include "base/live_value.h"
#include "base/pool.h"
#include "base/spinlock.h"
#include "cache/memory_tier.h"
#include "cache/pattern.h"
#include "cache/window.h"
#include "origin/origin.h"
#include "ring/reactor.h"
#include "ring/sqe.h"
#include "ring/timer.h"
#include "serve/foretell.h"

namespace blobcache::serve {

class VolumeServer;
struct Handle;
struct FilePrefetch;
class Prefetcher;
struct Load;

class PrefetchNode {
 public:
  struct Options {
    PrefetchConfig config;
    uint64_t chunk_bytes = 0;
    uint64_t arena_bytes = 0;
  };
  explicit PrefetchNode(const Options& options);
  ~PrefetchNode();

  // Takes over what may change while files are read, which is all of it. A file keeps its windows as they were made. Any
  // thread.
  void change(const PrefetchConfig& config);

  bool enabled() const { return enabled_; }
  PrefetchBudget& budget() { return budget_; }
  PatternOptions pattern() const { return {trigger_reads_, max_gap_bytes_, idle_timeout_ns_}; }
  WindowOptions window() const;
  unsigned chains_max() const { return chains_max_; }
  uint64_t arena_bytes() const { return arena_bytes_; }
  // Memory for what a file says of itself. False: they have theirs.
  uint64_t layout_bytes_max() const;
  bool try_add_layout(uint64_t bytes);
  void remove_layout(uint64_t bytes) { layout_bytes_.fetch_sub(bytes, std::memory_order_relaxed); }

  // False: as many files are followed as may be.
  bool try_add_file();
  void remove_file() { files_.fetch_sub(1, std::memory_order_relaxed); }
  // A file that has windows, until it ends.
  void watch(FilePrefetch& file);
  void unwatch(FilePrefetch& file);
  // Takes back from files that idle what they have of the budget. By whoever comes by; a look at the clock most times, and
  // 64 files at the others.
  void sweep(uint64_t now_ns);

 private:
  LiveValue<bool> enabled_;
  LiveValue<uint32_t> trigger_reads_;
  LiveValue<uint64_t> max_gap_bytes_;
  LiveValue<uint64_t> idle_timeout_ns_;
  LiveValue<uint64_t> windows_;  // least and most, in chunks: they are of use only together
  LiveValue<unsigned> chains_max_;
  const uint64_t chunk_bytes_;
  const uint64_t arena_bytes_;
  const uint32_t files_max_;
  PrefetchBudget budget_;
  std::atomic<uint32_t> files_{0};
  std::atomic<uint64_t> layout_bytes_{0};
  std::atomic<uint64_t> sweep_due_ns_{0};
  struct Watched : ListNode {
    FilePrefetch* file = nullptr;
  };
  friend struct FilePrefetch;
  Spinlock lock_;
  List<Watched> watched_;
  uint32_t watched_count_ = 0;
  uint32_t sweep_left_ = 0;  // of the files, in this round
};

// What became of prefetched bytes since it was asked last.
struct PrefetchUse {
  uint64_t used_bytes = 0;
  uint64_t wasted_bytes = 0;    // fetched, and not read by anyone
  uint64_t canceled_bytes = 0;  // not even begun
};

struct FilePrefetch : ListNode {  // the node: among the files that a core has work for
  // whole: who reads a piece of it reads all of it (profile "model"): its pieces bound nothing.
  // neighbour: it is a small file that was foretold.
  FilePrefetch(PrefetchNode& node_of_it, Handle& handle_of_it, bool whole, bool neighbour = false);
  ~FilePrefetch();

  // A user's read; absent: pieces of it that were neither in memory nor on their way. True: there is something to begin
  // and no core has the file in its list: this one takes it.
  bool on_read(const ByteRange& read, std::span<const ByteRange> absent, uint64_t now_ns, PrefetchUse* use);
  // Nobody reads any more, for now.
  void stop(PrefetchUse* use);

  // Nobody has opened it yet: its first bytes. True: a core has to take it into its list. False: there is no room.
  bool foretell(uint64_t bytes, uint64_t now_ns);
  // All of it is read, by the kernel and without us.
  void on_passthrough(PrefetchUse* use);
  bool neighbour() const { return neighbour_; }
  // Of the rest of a directory: nobody has opened it, and this handle nobody will. Of the core that fetches it.
  void make_member() { member_ = true; }
  bool member() const { return member_; }
  bool is_wanted() {
    const std::lock_guard held(lock_);
    return in_list_;
  }
  // Once, when its readers have nearly come to its end: the window that they had; else 0.
  uint64_t take_window_at_end() {
    const uint64_t window = window_at_end_.load(relaxed);
    return window == 0 || window == told ? 0 : window_at_end_.exchange(told, relaxed);
  }

  // For the core that has it in its list. The range to begin next; false: there is none, and no core has it any more.
  bool front(WindowRange* front_out, uint64_t now_ns);
  // Takes `bytes` of that range: its start, when descending its end. False: it is another by now.
  bool take(const WindowRange& front, uint64_t bytes, WindowRange* piece);
  // A guess, by any core.
  bool has_windows() const { return streaming_.load(relaxed); }
  bool has_pieces() const { return pieces_.load(relaxed) != 0; }
  void count_piece(int change) { pieces_.fetch_add(static_cast<uint32_t>(change), relaxed); }

  // There was no room to begin it.
  void put_back(const WindowRange& piece);

  // A part of a piece is not in memory, and read now.
  void on_fetched(const ByteRange& range);
  // For each piece that was taken, once: it ended; and before that: a part of it brings nothing.
  void on_landed(const WindowRange& piece);
  void on_dropped(const WindowRange& piece, const ByteRange& part);

  // What the file says of itself (prefetch_layout.cc). learns: a guess. True of learn: a piece of it has to be brought, and
  // no core has the file in its list: this one takes it.
  bool learns() const {
    const Learning now = learning_.load(relaxed);
    return now == Learning::yes || now == Learning::at_end;
  }
  bool begins_piece(const ByteRange& read);
  bool learn(MemoryTier& memory, uint32_t now_s);
  // It is an index of other files, small as it may be: to be learned.
  void learn_index() {
    Learning state = Learning::not_yet;
    learning_.compare_exchange_strong(state, Learning::yes, relaxed);
  }
  // Once, when it was an index: the first of the files that it names; else empty.
  std::string take_first_sibling();
  static bool is_layout(const WindowRange& piece) { return piece.stream == layout_stream; }

  // A visit of the disk tier's chunk that prefetch told it of stands for the reader's own, which follows.
  void visit(uint64_t position) { slot_of(position).store(static_cast<uint32_t>(position) + 1, relaxed); }
  bool visited(uint64_t position) {
    std::atomic<uint32_t>& slot = slot_of(position);
    if (slot.load(relaxed) != static_cast<uint32_t>(position) + 1) return false;
    slot.store(0, relaxed);
    return true;
  }

  // The core that has read from it last.
  void note_reader(unsigned core) { reader_core_.store(static_cast<uint8_t>(core), relaxed); }
  unsigned reader_core() const { return reader_core_.load(relaxed); }
  // To the core whose list it goes to next.
  struct Passage : Message {
    using Message::Message;
    FilePrefetch* file = nullptr;
    Prefetcher* to = nullptr;
  };

  PrefetchNode& node;
  Handle& handle;
  Passage passage;
  AccessPattern pattern;
  // Of the core that has it in its list.
  uint64_t last_visit = ~uint64_t{0};
  static constexpr uint64_t no_turn = ~uint64_t{0};
  uint64_t turn = no_turn;  // for which it was decided which core that is

 private:
  friend class PrefetchNode;
  static constexpr auto relaxed = std::memory_order_relaxed;
  std::atomic<uint32_t>& slot_of(uint64_t position) { return visits_[position % visits_.size()]; }
  static constexpr unsigned wanted_max = 48;
  static constexpr uint8_t layout_stream = 254;
  static constexpr uint64_t told = ~uint64_t{0};
  enum class Learning : uint8_t { not_yet, at_end, yes, done };

  void note_header(const ByteRange& read);
  ByteRange layout_needs() const;
  bool look_at_end(MemoryTier& memory, uint32_t now_s);
  bool take_layout(MemoryTier& memory, uint32_t now_s);
  void end_learning();
  PrefetchWindows& windows();

  bool may_stream(const Pattern& now);
  void want(const WindowPlan& plan);
  void cancel(const WindowRange& canceled);
  void forget_wanted(const ByteRange& range);
  void trim(unsigned index, uint64_t front_bytes, uint64_t back_bytes);
  void remove(unsigned index);
  void give_up();
  PrefetchUse count();

  std::array<std::atomic<uint32_t>, 64> visits_{};  // guesses, by any core
  std::atomic<uint8_t> reader_core_{0};             // a guess
  std::atomic<uint32_t> pieces_{0};                 // in flight
  std::atomic<bool> streaming_{false};              // it has windows, or is about to
  PrefetchNode::Watched watched_;                   // under PrefetchNode's lock
  Spinlock lock_;                                   // for what follows
  std::unique_ptr<PrefetchWindows> windows_;
  std::array<WindowRange, wanted_max> wanted_;  // in the order in which they are begun
  unsigned wanted_count_ = 0;
  uint8_t more_ = 0;      // bit i: stream i wants more than was written down
  bool in_list_ = false;  // of a core
  uint64_t last_read_ns_ = 0;
  const bool whole_;
  const bool neighbour_;
  bool member_ = false;
  std::atomic<uint64_t> window_at_end_{0};
  std::string first_sibling_;
  std::atomic<Learning> learning_{Learning::not_yet};
  std::atomic<bool> end_seen_{false};  // it was read, and told nothing
  uint8_t layout_looks_ = 0;
  ByteRange layout_asked_;
  std::unique_ptr<Layout> layout_;  // constant when done
  std::unique_ptr<PiecesRead> pieces_read_;
  uint64_t layout_bytes_ = 0;  // accounted for
  uint64_t canceled_bytes_ = 0;
  uint64_t canceled_unused_bytes_ = 0;  // of these: among the unused
  PrefetchUse counted_;
};

class Prefetcher {
 public:
  struct Limits {
    unsigned disk_loads = 0;    // in flight
    unsigned origin_loads = 0;  // of the volume, over all cores; a core that has none may begin one
  };
  static Limits limits_of(const PrefetchNode& node, unsigned connections, unsigned cores);
  static constexpr unsigned disk_loads_max = 64;
  // Loads that they may take together.
  static unsigned loads_max(const Limits& limits) { return limits.disk_loads + limits.origin_loads + Plan::spans_max; }

  Prefetcher(VolumeServer& server, PrefetchNode& node, const Limits& limits);
  ~Prefetcher();

  // A user's read, told before it is answered: while the kernel is sure to keep the file open.
  // Whether a part of the range is being fetched by a piece: to be waited for rather than read once more.
  bool fetches(const Handle& handle, ReadRange range) const;
  void on_hit(Handle& handle, ReadRange range);
  void on_disk_hit(Handle& handle, ReadRange range);  // read past the memory
  // So many reads of users are at the disks just now.
  void on_disk_depth(unsigned reads);
  void on_miss(Handle& handle, ReadRange range, const Plan& plan);  // planned
  void on_release(Handle& handle);

  // Files that nobody has opened yet (prefetch_files.cc).
  // An OPEN: the handle that stands in for it, with a reference, complete but for what the open says; null: none does.
  Handle* take_foretold(const std::string& key, const FileVersion& version);
  // Whether it has to be fetched from the origin, as far as anybody wants to know.
  bool lacks(const ObjectId& object, uint64_t bytes) const;
  void on_opened(const Foreteller::Opened& file);
  void on_passthrough(Handle& handle);
  static bool may_be_index(const Handle& handle, ReadRange range, const std::byte* bytes);
  void on_index(Handle& handle);

  // Begins what is wanted, as far as there is room. After the reply.
  void pump() {
    if (!files_.empty()) [[unlikely]]
      begin_wanted();
  }
  void on_load_ended() { --loads_; }
  // It may begin so many more.
  unsigned loads_reserved() const { return loads_max(limits_) - loads_; }
  // Begins nothing more, and waits for nothing.
  void close();
  bool idle() const { return pieces_out_ == 0; }

  static void on_passed(Op& op, int32_t result, uint32_t flags);

 private:
  // A piece within one frame position, on its way.
  struct Piece : ListNode {
    struct PiecePlan : Plan {
      Piece* piece = nullptr;
    } plan;
    Prefetcher* prefetcher = nullptr;
    Handle* handle = nullptr;  // referenced
    WindowRange range;
    bool at_origin = false;
  };
  // What comes next of a range, all from one place.
  struct Next {
    uint64_t bytes = 0;
    bool at_origin = false;
  };
  enum class Step : uint8_t { begun, full, no_room, nothing, passed };
  // A file that is wanted before it is opened, asked for at the origin.
  struct FileCall : OpenCall {
    Prefetcher* prefetcher = nullptr;
    Foreteller::Wish wish;
  };
  static constexpr unsigned file_calls_max = 32;

  FilePrefetch* follow(Handle& handle);
  void enlist(FilePrefetch& file);
  void learn(FilePrefetch& file);
  void stop(FilePrefetch& file);
  void on_read(FilePrefetch& file, ReadRange range, std::span<const ByteRange> absent);
  void add(const PrefetchUse& use);
  void begin_wanted();
  Step begin_next(FilePrefetch& file);
  Next next_of(const Handle& handle, const WindowRange& front) const;
  // prefetch_passing.cc
  Prefetcher& fetcher_of(FilePrefetch& file, const WindowRange& front, bool at_origin);
  void pass(FilePrefetch& file, Prefetcher& to);
  void leave_others();  // none passes anything to this one any more
  bool has_room(const Next& next) const;
  bool readers_keep_disks_busy() const;
  Step begin(FilePrefetch& file, const WindowRange& range, const Next& next);
  void begin_loads(Piece& piece);
  void note_visit(FilePrefetch& file, uint64_t offset);
  void begin_held();
  void submit_chains(std::span<Load* const> loads);
  unsigned chains_for(size_t loads) const;
  ByteRange missing(FilePrefetch& file, const WindowRange& range) const;
  void drop_unclaimed(FilePrefetch& file, const Piece& piece);
  static void on_plan_done(Plan& plan);
  void finish(Piece& piece);
  void retry_soon();
  void retry_later();
  static void on_retry(Timer& timer);

  void fetch_members();
  uint64_t room_for_members() const;
  bool settle_member(const Foreteller::Place& place, Handle& handle);
  void end_member(FilePrefetch& file, bool failed);
  void act(Foreteller::Change& change);
  void ask(Foreteller::Wish& wish);
  static void on_asked(OriginCall& call);
  Handle* begin_standing_in(FileCall& call);
  void want_shard(Foreteller::Shard shard);
  void end(Handle& handle);
  void end_files();
  static void on_expiry(Timer& timer);

  VolumeServer& server_;
  PrefetchNode& node_;
  const Limits limits_;
  List<FilePrefetch> files_;  // with something wanted, each with a reference to its handle
  unsigned file_count_ = 0;
  Pool<Piece> pieces_;
  List<Piece> in_flight_;
  unsigned pieces_out_ = 0;
  unsigned at_disk_ = 0;
  unsigned at_origin_ = 0;
  unsigned loads_ = 0;
  List<Load> held_;  // from disk, to go out together
  unsigned chains_ = 2;
  static constexpr unsigned depth_unit = 16;
  unsigned disk_depth_ = 0;  // how deep readers keep the disks, in 1/16; a peak fades over some ten reads, or with time
  uint64_t disk_depth_ns_ = 0;  // when it was last seen
  bool disk_turn_ = false;      // so few are at the disk that a whole batch may follow
  bool beginning_ = false;
  bool members_due_ = false;  // one was fetched, or was there: the next
  bool fetching_members_ = false;
  bool closed_ = false;
  struct Retry : Timer {
    using Timer::Timer;
    Prefetcher* prefetcher = nullptr;
  } retry_;
  uint64_t retry_ns_ = 1;
  unsigned retries_ = 0;
  Pool<FileCall> file_calls_{file_calls_max};
  struct Expiry : Timer {
    using Timer::Timer;
    Prefetcher* prefetcher = nullptr;
  } expiry_{&Prefetcher::on_expiry};
};

}  // namespace blobcache::serve
