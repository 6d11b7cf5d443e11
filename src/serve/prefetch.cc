// What is wanted ahead of a reader, told from its reads. What a user reads comes in by on_read; what prefetch itself reads
// never does, so a window cannot feed on itself.
//
//   read --pattern: which stream--> windows: what to fetch, what to cancel --> wanted_ --front, take--> a piece in flight
//                                                                                 '--cancel, or a reader was faster--> gone
//
// A range that is wanted is a note, no more: no frame, no claim, so nobody waits for it, and taking it back costs nothing.
// It counts as in flight in the budget all the same, or the windows of many files would queue what never has its turn.
//
// A core that finds another inside declines: the next read of the stream says what this one would have.
#include "serve/prefetch.h"

#include <algorithm>
#include <mutex>

#include "base/assert.h"
#include "serve/handle.h"

namespace blobcache::serve {
namespace {

constexpr uint64_t arena_share = 4;                       // a quarter for what is fetched and not read
constexpr uint64_t arena_bytes_a_file = 1 * limits::MiB;  // 6 KiB of windows for each file: 0.6 % of the arena
constexpr uint32_t files_min = 64;
constexpr uint64_t sweep_ns = 1'000'000'000;
constexpr uint32_t sweep_files = 64;  // a visit

PrefetchBudget::Options budget_of(const PrefetchNode::Options& options) {
  const uint64_t bytes = std::max<uint64_t>(options.arena_bytes / arena_share, limits::chunk_frame_bytes);
  return {.in_flight_bytes_max = bytes, .memory_bytes_max = bytes, .bandwidth_bytes = options.config.bandwidth_bytes};
}

uint64_t windows_of(const PrefetchConfig& config) { return uint64_t{config.min_window} << 32 | config.max_window; }

// Another core is inside for the time of a list operation, or for that of a plan: some microseconds. A read that is not seen
// is a gap, and the last one of a file is said by nobody else.
bool try_enter(std::unique_lock<Spinlock>& lock) {
  constexpr unsigned tries = 16;
  constexpr unsigned pauses = 64;  // a microsecond or two
  for (unsigned i = 0; i < tries; ++i) {
    if (lock.try_lock()) return true;
    for (unsigned j = 0; j < pauses; ++j) Spinlock::relax_cpu();
  }
  return false;
}

bool same(const WindowRange& a, const WindowRange& b) { return a.stream == b.stream && a.generation == b.generation; }

}  // namespace

PrefetchNode::PrefetchNode(const Options& options)
    : enabled_(options.config.enabled),
      trigger_reads_(options.config.trigger_reads),
      max_gap_bytes_(options.config.max_gap_bytes),
      idle_timeout_ns_(options.config.idle_timeout_ns),
      windows_(windows_of(options.config)),
      chains_max_(options.config.streams),
      chunk_bytes_(options.chunk_bytes),
      arena_bytes_(options.arena_bytes),
      files_max_(std::max(files_min, static_cast<uint32_t>(options.arena_bytes / arena_bytes_a_file))),
      budget_(budget_of(options)) {}

PrefetchNode::~PrefetchNode() { BC_ASSERT(files_.load() == 0 && watched_.empty()); }

void PrefetchNode::change(const PrefetchConfig& config) {
  enabled_.set(config.enabled);
  trigger_reads_.set(config.trigger_reads);
  max_gap_bytes_.set(config.max_gap_bytes);
  idle_timeout_ns_.set(config.idle_timeout_ns);
  windows_.set(windows_of(config));
  chains_max_.set(config.streams);
  budget_.set_bandwidth(config.bandwidth_bytes);
}

WindowOptions PrefetchNode::window() const {
  const uint64_t windows = windows_;
  return {chunk_bytes_, (windows >> 32) * chunk_bytes_, (windows & UINT32_MAX) * chunk_bytes_};
}

bool PrefetchNode::try_add_file() {
  if (files_.fetch_add(1, std::memory_order_relaxed) < files_max_) return true;
  remove_file();
  return false;
}

void PrefetchNode::watch(FilePrefetch& file) {
  const std::lock_guard held(lock_);
  watched_.push_back(file.watched_);
  ++watched_count_;
}

void PrefetchNode::unwatch(FilePrefetch& file) {
  const std::lock_guard held(lock_);
  file.watched_.unlink();
  --watched_count_;
  sweep_left_ = std::min(sweep_left_, watched_count_);
}

void PrefetchNode::sweep(uint64_t now_ns) {
  if (now_ns < sweep_due_ns_.load(std::memory_order_relaxed)) return;
  const std::unique_lock held(lock_, std::try_to_lock);
  if (!held || now_ns < sweep_due_ns_.load(std::memory_order_relaxed)) return;
  if (sweep_left_ == 0) sweep_left_ = watched_count_;
  const uint32_t count = std::min(sweep_left_, sweep_files);
  for (uint32_t i = 0; i < count; ++i) {
    Watched& watched = *watched_.pop_front();
    watched_.push_back(watched);
    FilePrefetch& file = *watched.file;
    const std::unique_lock inside(file.lock_, std::try_to_lock);
    if (inside && now_ns > file.last_read_ns_ && now_ns - file.last_read_ns_ > idle_timeout_ns_) file.give_up();
  }
  sweep_left_ -= count;
  if (sweep_left_ == 0) sweep_due_ns_.store(now_ns + sweep_ns, std::memory_order_relaxed);
}

FilePrefetch::FilePrefetch(PrefetchNode& node_of_it, Handle& handle_of_it, bool whole, bool neighbour)
    : node(node_of_it), handle(handle_of_it), passage(&Prefetcher::on_passed), whole_(whole), neighbour_(neighbour) {
  passage.file = watched_.file = this;
}

FilePrefetch::~FilePrefetch() {
  if (streaming_.load(std::memory_order_relaxed)) node.unwatch(*this);
  if (windows_ != nullptr) give_up();
  node.remove_layout(layout_bytes_);
  node.remove_file();
}

bool FilePrefetch::may_stream(const Pattern& now) {
  if (streaming_.load(std::memory_order_acquire)) return true;
  if (now.stream == Pattern::no_stream) return false;
  if (!streaming_.exchange(true, std::memory_order_acq_rel)) node.watch(*this);
  return true;
}

bool FilePrefetch::on_read(const ByteRange& read, std::span<const ByteRange> absent, uint64_t now_ns,
                           PrefetchUse* use) {
  PatternOptions options = node.pattern();
  if (begins_piece(read)) options.trigger_reads = 1;
  const Pattern now = pattern.on_read(read.offset, read.bytes, now_ns, options);
  note_header(read);
  // Who looks at the end of a table comes for its footer, from the last bytes to the first, and then goes elsewhere.
  if (now.kind == PatternKind::backward && learns()) return false;
  if (!may_stream(now)) return false;
  // That a stream is another or is no more is said once.
  std::unique_lock held(lock_, std::defer_lock);
  if (now.changed || now.ended != 0) {
    held.lock();
  } else if (!try_enter(held)) {
    return false;
  }
  PrefetchWindows& windows = this->windows();
  last_read_ns_ = now_ns;
  forget_wanted(read);
  for (const ByteRange& range : absent) windows.on_absent(range, node.budget());
  WindowPlan plan;
  windows.on_read(now, read, node.budget(), now_ns, &plan);
  want(plan);
  if (window_at_end_.load(relaxed) == 0) window_at_end_.store(windows.window_at_end(), relaxed);
  *use = count();
  if (in_list_ || wanted_count_ == 0) return false;
  return in_list_ = true;
}

bool FilePrefetch::foretell(uint64_t bytes, uint64_t now_ns) {
  if (!streaming_.exchange(true, std::memory_order_acq_rel)) node.watch(*this);
  const std::lock_guard held(lock_);
  last_read_ns_ = now_ns;
  WindowPlan plan;
  windows().foretell(bytes, node.budget(), now_ns, &plan);
  want(plan);
  in_list_ = wanted_count_ > 0;
  return in_list_;
}

void FilePrefetch::on_passthrough(PrefetchUse* use) {
  const std::lock_guard held(lock_);
  if (windows_ == nullptr) return;
  forget_wanted({0, handle.object_bytes});
  WindowPlan plan;
  windows_->on_read({}, {0, handle.object_bytes}, node.budget(), last_read_ns_, &plan);
  *use = count();
}

// Under the lock.
PrefetchWindows& FilePrefetch::windows() {
  if (windows_ == nullptr) windows_ = std::make_unique<PrefetchWindows>(node.window(), handle.object_bytes);
  return *windows_;
}

// Under the lock.
void FilePrefetch::want(const WindowPlan& plan) {
  for (unsigned i = 0; i < plan.cancel_count; ++i) cancel(plan.cancels[i]);
  for (unsigned i = 0; i < plan.fetch_count; ++i) {
    const WindowRange& fetch = plan.fetches[i];
    if (wanted_count_ < wanted_max) {
      wanted_[wanted_count_++] = fetch;
      if (plan.more) more_ |= static_cast<uint8_t>(1u << fetch.stream);
      continue;
    }
    windows_->on_dropped(fetch, node.budget());
    node.budget().on_landed(fetch.granted_bytes);
  }
}

void FilePrefetch::cancel(const WindowRange& canceled) {
  for (unsigned i = wanted_count_; i-- > 0;) {
    const WindowRange& wanted = wanted_[i];
    const uint64_t from = std::max(wanted.range.offset, canceled.range.offset);
    const uint64_t until = std::min(wanted.range.end(), canceled.range.end());
    if (!same(wanted, canceled) || from >= until) continue;
    if (from != wanted.range.offset && until != wanted.range.end()) continue;
    canceled_bytes_ += until - from;
    canceled_unused_bytes_ += until - from - std::min(until - from, windows_->on_canceled({from, until - from}));
    if (from == wanted.range.offset) {
      trim(i, until - from, 0);
    } else {
      trim(i, 0, until - from);
    }
  }
}

// A reader came by first: what he reads is not fetched for him.
void FilePrefetch::forget_wanted(const ByteRange& range) {
  for (unsigned i = wanted_count_; i-- > 0;) {
    const WindowRange wanted = wanted_[i];
    const uint64_t from = std::max(wanted.range.offset, range.offset);
    const uint64_t until = std::min(wanted.range.end(), range.end());
    if (from >= until) continue;
    if (from != wanted.range.offset && until != wanted.range.end()) continue;
    WindowRange part = wanted;
    part.range = {from, until - from};
    windows_->on_dropped(part, node.budget());
    if (from == wanted.range.offset) {
      trim(i, until - from, 0);
    } else {
      trim(i, 0, until - from);
    }
  }
}

// Takes bytes away from one end of what is wanted. Of the grant the last byte takes what is left of it.
void FilePrefetch::trim(unsigned index, uint64_t front_bytes, uint64_t back_bytes) {
  WindowRange& wanted = wanted_[index];
  const uint64_t bytes = front_bytes + back_bytes;
  BC_ASSERT(bytes <= wanted.range.bytes);
  const bool all = bytes == wanted.range.bytes;
  const uint64_t landed = all ? wanted.granted_bytes : std::min(bytes, wanted.granted_bytes);
  node.budget().on_landed(landed);
  wanted.granted_bytes -= landed;
  wanted.range = {wanted.range.offset + front_bytes, wanted.range.bytes - bytes};
  if (all) remove(index);
}

void FilePrefetch::remove(unsigned index) {
  std::move(wanted_.begin() + index + 1, wanted_.begin() + wanted_count_, wanted_.begin() + index);
  --wanted_count_;
}

void FilePrefetch::stop(PrefetchUse* use) {
  const std::lock_guard held(lock_);
  if (windows_ == nullptr) return;
  give_up();
  *use = count();
}

// Under the lock.
void FilePrefetch::give_up() {
  if (windows_ == nullptr) return;
  while (wanted_count_ > 0) {
    windows_->on_dropped(wanted_[0], node.budget());
    canceled_bytes_ += wanted_[0].range.bytes;
    trim(0, wanted_[0].range.bytes, 0);
  }
  more_ = 0;
  WindowPlan plan;
  windows_->stop(node.budget(), &plan);
}

PrefetchUse FilePrefetch::count() {
  const PrefetchWindows::Totals& totals = windows_->totals();
  // What was canceled before it began was never fetched.
  const uint64_t wasted = totals.unused_bytes - std::min(totals.unused_bytes, canceled_unused_bytes_);
  // Whole blocks are counted: of a small file that would be twice what it has.
  const uint64_t most = neighbour_ ? handle.object_bytes : UINT64_MAX;
  const PrefetchUse now{.used_bytes = std::min(most, totals.used_bytes),
                        .wasted_bytes = std::min(most, std::max(wasted, counted_.wasted_bytes)),
                        .canceled_bytes = canceled_bytes_};
  const PrefetchUse use{.used_bytes = now.used_bytes - counted_.used_bytes,
                        .wasted_bytes = now.wasted_bytes - counted_.wasted_bytes,
                        .canceled_bytes = now.canceled_bytes - counted_.canceled_bytes};
  counted_ = now;
  return use;
}

bool FilePrefetch::front(WindowRange* front_out, uint64_t now_ns) {
  const std::lock_guard held(lock_);
  for (uint8_t stream = 0; wanted_count_ == 0 && stream < Pattern::streams_max; ++stream) {
    if ((more_ >> stream & 1) == 0) continue;
    more_ &= static_cast<uint8_t>(~(1u << stream));
    WindowPlan plan;
    windows_->next_fetch(stream, node.budget(), now_ns, &plan);
    want(plan);
  }
  in_list_ = wanted_count_ > 0;
  if (in_list_) *front_out = wanted_[0];
  return in_list_;
}

bool FilePrefetch::take(const WindowRange& front, uint64_t bytes, WindowRange* piece) {
  const std::lock_guard held(lock_);
  if (wanted_count_ == 0) return false;
  WindowRange& wanted = wanted_[0];
  if (!same(wanted, front) || !(wanted.range == front.range)) return false;
  BC_ASSERT(bytes > 0 && bytes <= wanted.range.bytes);
  const bool all = bytes == wanted.range.bytes;
  *piece = wanted;
  piece->range = {wanted.descending ? wanted.range.end() - bytes : wanted.range.offset, bytes};
  piece->granted_bytes = all ? wanted.granted_bytes : std::min(bytes, wanted.granted_bytes);
  wanted.granted_bytes -= piece->granted_bytes;
  wanted.range = {wanted.descending ? wanted.range.offset : wanted.range.offset + bytes, wanted.range.bytes - bytes};
  if (all) remove(0);
  return true;
}

void FilePrefetch::put_back(const WindowRange& piece) {
  {
    const std::lock_guard held(lock_);
    if (wanted_count_ < wanted_max) {
      std::move_backward(wanted_.begin(), wanted_.begin() + wanted_count_, wanted_.begin() + wanted_count_ + 1);
      ++wanted_count_;
      wanted_[0] = piece;
      return;
    }
  }
  on_dropped(piece, piece.range);
  on_landed(piece);
}

void FilePrefetch::on_fetched(const ByteRange& range) {
  const std::lock_guard held(lock_);
  windows_->on_fetched_again(range);
}

void FilePrefetch::on_landed(const WindowRange& piece) { node.budget().on_landed(piece.granted_bytes); }

void FilePrefetch::on_dropped(const WindowRange& piece, const ByteRange& part) {
  if (part.empty()) return;
  WindowRange dropped = piece;
  dropped.range = part;
  const std::lock_guard held(lock_);
  windows_->on_dropped(dropped, node.budget());
}

}  // namespace blobcache::serve
