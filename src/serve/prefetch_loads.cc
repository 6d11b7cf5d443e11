// From what is wanted to loads.
//
//   files_ (round robin) --front--> next_of: verified on disk | valid on disk | at the origin --has room?--> take
//     --> plan: pins the frames, claims what nobody loads --> a load each --> finish: landed; what failed is dropped
//                                  those from disk are held back and go out as chains (prefetch_chains.cc)
//
// A piece comes from one place and lies in one frame position. What is in memory by then, or on its way for somebody else,
// is told back and not waited for. From the origin a piece is a whole chunk frame where it can be: requests cost time, not
// bytes. From disk it is a read of 1 MiB: a reader waits for the piece that it is in, and the device reads it as fast as
// four.
//
// Room. Prefetch has loads and a lane of its own, so a demand load never queues behind one; at the origin it leaves an
// eighth of the connections free. A reader that keeps several reads at the disks needs nobody to read ahead of him. Chunk frames can be short for a turn (those just evicted are free in the next): the piece
// goes back and a timer comes again, a few times.
//
// Nothing is fetched from the origin while the disk writer is behind: what comes faster than it is written would be shed.
//
// A piece that fails is no error of anybody: its blocks are absent, and the reader who wants them asks again.
#include <algorithm>
#include <array>
#include <bit>

#include "base/trace.h"
#include "serve/prefetch.h"
#include "serve/volume_server.h"

namespace blobcache::serve {
namespace {

using limits::block_bytes;
using limits::chunk_frame_bytes;

constexpr uint64_t disk_piece_blocks = 16;
constexpr unsigned reader_depth_max = 4;
constexpr size_t absent_max = 17;                               // blocks that a request of 1 MiB touches
constexpr uint64_t untracked_bytes_max = 2 * block_bytes;       // one request of the kernel's readahead
constexpr uint64_t block_frames_bytes_max = 256 * limits::KiB;  // MemoryTier takes chunk frames for more
constexpr uint64_t small_file_bytes = chunk_frame_bytes / 4;
constexpr uint64_t disk_depth_fades_ns = 100'000'000;
constexpr uint64_t retry_ns_max = 1'000'000;
constexpr unsigned retries_max = 16;

uint64_t bits(uint64_t first, uint64_t count) {
  return (count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1) << first;
}

ByteRange range_of(ReadRange range) { return {range.offset, range.bytes}; }

// Of a frame's blocks, the part within the object.
ByteRange bytes_of(uint64_t frame_offset, unsigned first, unsigned count, uint64_t object_bytes) {
  const uint64_t offset = frame_offset + first * block_bytes;
  return {offset, std::min<uint64_t>(count * block_bytes, object_bytes - offset)};
}

// Calls f(first, count) for each run of ones.
template <class F>
void for_each_run(uint64_t blocks, F&& f) {
  while (blocks != 0) {
    const auto first = static_cast<unsigned>(std::countr_zero(blocks));
    const auto count = static_cast<unsigned>(std::countr_one(blocks >> first));
    f(first, count);
    blocks &= ~bits(first, count);
  }
}

}  // namespace

Prefetcher::Limits Prefetcher::limits_of(const PrefetchNode& node, unsigned connections, unsigned cores) {
  // Frames that are being loaded are pinned: an eighth of the arena for all cores.
  const uint64_t frames = std::max<uint64_t>(1, node.arena_bytes() / 8 / chunk_frame_bytes / cores);
  const unsigned reserved = std::max(1u, connections / 8);
  const unsigned connections_left = connections > reserved ? connections - reserved : 1;
  return {.disk_loads = static_cast<unsigned>(std::min<uint64_t>(disk_loads_max, frames * 4)),
          .origin_loads = static_cast<unsigned>(std::min<uint64_t>(connections_left, frames * cores))};
}

Prefetcher::Prefetcher(VolumeServer& server, PrefetchNode& node, const Limits& limits)
    : server_(server),
      node_(node),
      limits_(limits),
      pieces_(limits.disk_loads + limits.origin_loads),
      retry_(&Prefetcher::on_retry) {
  retry_.prefetcher = expiry_.prefetcher = this;
  for (uint32_t i = 0; i < file_calls_max; ++i) file_calls_[i].prefetcher = this;
  for (uint32_t i = 0; i < pieces_.count(); ++i) {
    pieces_[i].prefetcher = this;
    pieces_[i].plan.piece = &pieces_[i];
    pieces_[i].plan.on_done = &Prefetcher::on_plan_done;
  }
  server_.volume().prefetchers[server_.reactor().core()].store(this, std::memory_order_release);
}

Prefetcher::~Prefetcher() {
  leave_others();
  while (files_.pop_front() != nullptr) continue;
  BC_ASSERT(in_flight_.empty());
}

// Null: the file is not followed. Made at its first miss: what is in memory needs nobody to fetch it.
FilePrefetch* Prefetcher::follow(Handle& handle) {
  FilePrefetch* file = handle.prefetch.load(std::memory_order_acquire);
  if (file != nullptr || !node_.enabled() || !handle.cacheable || handle.object_bytes <= untracked_bytes_max)
    return file;
  if (!node_.try_add_file()) return nullptr;
  auto made = std::make_unique<FilePrefetch>(node_, handle, server_.volume().config.profile == Profile::model);
  if (handle.prefetch.compare_exchange_strong(file, made.get(), std::memory_order_acq_rel)) return made.release();
  return file;
}

void Prefetcher::on_hit(Handle& handle, ReadRange range) {
  FilePrefetch* file = handle.prefetch.load(std::memory_order_acquire);
  if (file != nullptr) on_read(*file, range, {});
}

bool Prefetcher::fetches(const Handle& handle, ReadRange range) const {
  const FilePrefetch* file = handle.prefetch.load(std::memory_order_acquire);
  if (file == nullptr || !file->has_pieces()) return false;
  return server_.volume().memory->loads(handle.object, range.offset, range.bytes);
}

void Prefetcher::on_disk_hit(Handle& handle, ReadRange range) {
  FilePrefetch* file = follow(handle);
  if (file == nullptr) return;
  std::array<ByteRange, absent_max> absent;
  size_t count = 0;
  const uint64_t end = range.offset + range.bytes;
  for (uint64_t at = range.offset; file->has_windows() && at < end && count < absent.size();) {
    const uint64_t until = std::min(end, (at / block_bytes + 1) * block_bytes);
    if (!server_.volume().memory->holds(handle.object, at, until - at)) absent[count++] = {at, until - at};
    at = until;
  }
  on_read(*file, range, {absent.data(), count});
}

void Prefetcher::on_miss(Handle& handle, ReadRange range, const Plan& plan) {
  FilePrefetch* file = follow(handle);
  if (file == nullptr) return;
  std::array<ByteRange, absent_max> absent;
  size_t count = 0;
  bool caught_up = false;
  for (unsigned i = 0; i < plan.span_count; ++i) {
    const Plan::Span& span = plan.spans[i];
    caught_up |= span.waiter.pending && (span.waiter.blocks & ~span.blocks_to_load) != 0;
    for_each_run(span.blocks_to_load, [&](unsigned first, unsigned blocks) {
      if (count < absent.size()) absent[count++] = bytes_of(span.offset, first, blocks, handle.object_bytes);
    });
  }
  // It waits for what is on its way, probably from us.
  if (caught_up && at_disk_ > 0) chains_ = std::min(chains_ + 1, node_.chains_max());
  on_read(*file, range, {absent.data(), count});
}

void Prefetcher::on_read(FilePrefetch& file, ReadRange range, std::span<const ByteRange> absent) {
  if (!node_.enabled()) [[unlikely]]
    return stop(file);  // it was when the file was first missed
  const uint64_t now_ns = server_.reactor().now_ns();
  PrefetchUse use;
  file.note_reader(server_.reactor().core());
  if (file.learns()) learn(file);
  if (file.on_read(range_of(range), absent, now_ns, &use)) enlist(file);
  add(use);
  node_.sweep(now_ns);
  if (const uint64_t window = file.take_window_at_end(); window != 0) [[unlikely]] {
    want_shard({.key = next_shard(file.handle.key), .bytes = window});
  }
}

void Prefetcher::enlist(FilePrefetch& file) {
  file.turn = FilePrefetch::no_turn;
  server_.volume().handles.reference(file.handle);
  files_.push_back(file);
  ++file_count_;
}

void Prefetcher::learn(FilePrefetch& file) {
  if (file.learn(*server_.volume().memory, server_.now_s())) enlist(file);
  if (const std::string first = file.take_first_sibling(); !first.empty()) {
    const std::string& index = file.handle.key;
    const size_t folder = index.rfind('/') + 1;  // 0: it lies in the root
    want_shard({.key = index.substr(0, folder) + first, .bytes = node_.window().min_window_bytes});
  }
}

void Prefetcher::on_release(Handle& handle) {
  FilePrefetch* file = handle.prefetch.load(std::memory_order_acquire);
  if (file != nullptr) stop(*file);
}

void Prefetcher::stop(FilePrefetch& file) {
  PrefetchUse use;
  file.stop(&use);
  add(use);
  if (file.neighbour() && !file.member() && use.wasted_bytes > file.handle.object_bytes / 2) {
    server_.volume().foreteller->on_unread(file.handle.key, true);
  }
}

void Prefetcher::add(const PrefetchUse& use) {
  server_.counters_.prefetch_used_bytes.add(use.used_bytes);
  server_.counters_.prefetch_wasted_bytes.add(use.wasted_bytes);
  server_.counters_.prefetch_canceled_bytes.add(use.canceled_bytes);
}

void Prefetcher::begin_wanted() {
  if (beginning_ || closed_) return;
  beginning_ = true;
  disk_turn_ = at_disk_ <= limits_.disk_loads / 2;
  unsigned full = 0;  // files in a row for whose next piece there is no room
  while (full < file_count_) {
    FilePrefetch& file = *files_.pop_front();
    const Step step = begin_next(file);
    if (step == Step::passed) {
      --file_count_;
      continue;
    }
    if (step == Step::nothing) {
      --file_count_;
      if (file.member() && !file.has_pieces()) end_member(file, false);
      server_.release_handle(file.handle);
      continue;
    }
    files_.push_back(file);
    full = step == Step::begun ? 0 : full + 1;
    if (step == Step::no_room) break;
  }
  begin_held();
  beginning_ = false;
  if (members_due_) fetch_members();
}

Prefetcher::Step Prefetcher::begin_next(FilePrefetch& file) {
  if (!node_.enabled()) [[unlikely]]
    stop(file);
  WindowRange front;
  if (!file.front(&front, server_.reactor().now_ns())) return Step::nothing;
  const Next next = next_of(file.handle, front);
  if (Prefetcher& fetcher = fetcher_of(file, front, next.at_origin); &fetcher != this) {
    pass(file, fetcher);
    return Step::passed;
  }
  const bool useless = !next.at_origin && readers_keep_disks_busy();
  if (!useless && !has_room(next)) {
    // When it is other cores that have the connections, nothing here ends when they do.
    if (next.at_origin && at_origin_ < server_.volume().prefetch_at_origin.load(std::memory_order_relaxed))
      retry_later();
    return Step::full;
  }
  if (next.at_origin && server_.options_.writer != nullptr && server_.options_.writer->crowded()) {
    retry_later();
    return Step::full;
  }
  WindowRange piece;
  if (!file.take(front, next.bytes, &piece)) return Step::begun;  // another core changed it: look again
  if (useless) {
    file.on_dropped(piece, piece.range);
    file.on_landed(piece);
    return Step::begun;
  }
  return begin(file, piece, next);
}

// Within one frame position, up to where it changes between disk and origin, and not too much at a time.
Prefetcher::Next Prefetcher::next_of(const Handle& handle, const WindowRange& front) const {
  const ByteRange& range = front.range;
  const uint64_t position = (front.descending ? range.end() - 1 : range.offset) / chunk_frame_bytes;
  const uint64_t frame_offset = position * chunk_frame_bytes;
  const uint64_t low = std::max(range.offset, frame_offset);
  const uint64_t high = std::min(range.end(), frame_offset + chunk_frame_bytes);
  const auto first = static_cast<unsigned>((low - frame_offset) / block_bytes);
  const auto last = static_cast<unsigned>((high - 1 - frame_offset) / block_bytes);
  DiskView view;
  Volume& volume = server_.volume();
  const bool known = volume.disk != nullptr && volume.disk->find(handle.object, position, &view);
  const unsigned at = front.descending ? last : first;
  Next next;
  next.at_origin = !known || (view.valid >> at & 1) == 0;
  const uint64_t verified = known && !volume.disk->verify_always() ? view.valid & view.verified : 0;
  uint64_t alike = next.at_origin ? (known ? ~view.valid : ~uint64_t{0}) : view.valid & ~verified;
  uint64_t blocks = std::max<uint64_t>(1, volume.live.range_bytes / block_bytes);
  if (!next.at_origin) {
    if ((verified >> at & 1) != 0) alike = verified;
    blocks = disk_piece_blocks;
  }
  if (handle.object_bytes <= small_file_bytes) blocks = std::min(blocks, block_frames_bytes_max / block_bytes);
  if (front.descending) {
    blocks = std::min<uint64_t>(blocks, static_cast<unsigned>(std::countl_one(alike << (63 - last))));
    const uint64_t begin = frame_offset + (last + 1 - std::min<uint64_t>(blocks, last + 1)) * block_bytes;
    next.bytes = high - std::max(low, begin);
  } else {
    blocks = std::min<uint64_t>(blocks, static_cast<unsigned>(std::countr_one(alike >> first)));
    next.bytes = std::min(high, frame_offset + (first + blocks) * block_bytes) - low;
  }
  return next;
}

void Prefetcher::on_disk_depth(unsigned reads) {
  disk_depth_ = std::max(reads * depth_unit, disk_depth_ - disk_depth_ / depth_unit);
  disk_depth_ns_ = server_.reactor().now_ns();
}

bool Prefetcher::readers_keep_disks_busy() const {
  return disk_depth_ >= reader_depth_max * depth_unit &&
         server_.reactor().now_ns() - disk_depth_ns_ < disk_depth_fades_ns;
}

bool Prefetcher::has_room(const Next& next) const {
  if (pieces_.free_count() == 0) return false;
  if (loads_ + Plan::spans_max > loads_max(limits_)) return false;
  if (!next.at_origin) {
    return disk_turn_ && at_disk_ < limits_.disk_loads;
  }
  return at_origin_ == 0 || server_.volume().prefetch_at_origin.load(std::memory_order_relaxed) < limits_.origin_loads;
}

Prefetcher::Step Prefetcher::begin(FilePrefetch& file, const WindowRange& range, const Next& next) {
  Handle& handle = file.handle;
  MemoryTier& memory = *server_.volume().memory;
  const ByteRange wanted = missing(file, range);
  if (wanted.empty()) {
    file.on_landed(range);
    if (FilePrefetch::is_layout(range)) learn(file);
    return Step::begun;
  }
  const bool small = wanted.bytes <= block_bytes || handle.object_bytes <= small_file_bytes || range.scattered;
  Piece* piece = pieces_.try_acquire();
  piece->handle = &handle;
  piece->range = range;
  piece->at_origin = next.at_origin;
  const Result<void> planned = memory.plan(server_.reactor(),
                                           {.object = handle.object,
                                            .object_bytes = handle.object_bytes,
                                            .offset = wanted.offset,
                                            .bytes = static_cast<uint32_t>(wanted.bytes),
                                            .kind = small ? FrameKind::block : FrameKind::chunk},
                                           server_.now_s(), piece->plan);
  if (!planned) {
    pieces_.release(*piece);
    if (++retries_ <= retries_max) {
      file.put_back(range);
      retry_soon();
      return Step::no_room;
    }
    retries_ = 0;
    file.on_dropped(range, wanted);
    file.on_landed(range);
    return Step::begun;
  }
  retries_ = 0;
  retry_ns_ = 1;
  drop_unclaimed(file, *piece);
  server_.volume().handles.reference(handle);
  in_flight_.push_back(*piece);
  ++pieces_out_;
  file.count_piece(1);
  ++(piece->at_origin ? at_origin_ : at_disk_);
  if (piece->at_origin) server_.volume().prefetch_at_origin.fetch_add(1, std::memory_order_relaxed);
  server_.counters_.prefetch_pieces.add(1);
  BC_TRACE(prefetch, handle.node.load(std::memory_order_relaxed), wanted.offset, wanted.bytes, piece->at_origin);
  Counter& most = server_.counters_.prefetch_in_flight_max;
  if (pieces_out_ > most.value()) most.add(pieces_out_ - most.value());
  begin_loads(*piece);
  return Step::begun;
}

// The piece may have ended when it returns.
void Prefetcher::begin_loads(Piece& piece) {
  uint64_t claimed = 0;
  for (unsigned i = 0; i < piece.plan.span_count; ++i) claimed |= piece.plan.spans[i].blocks_to_load;
  if (claimed == 0) {
    server_.volume().memory->cancel_waits(piece.plan);
    if (piece.plan.waiters_pending == 0) finish(piece);
    return;
  }
  note_visit(*piece.handle->prefetch.load(std::memory_order_acquire), piece.plan.spans[0].offset);
  loads_ += server_.begin_prefetch_loads(piece.plan, *piece.handle, piece.at_origin ? nullptr : &held_);
}

// The disk tier learns of readers from what memory does not have. What is fetched ahead would hide them.
void Prefetcher::note_visit(FilePrefetch& file, uint64_t offset) {
  const Handle& handle = file.handle;
  const uint64_t position = offset / chunk_frame_bytes;
  DiskTier* disk = server_.volume().disk;
  if (disk == nullptr || file.last_visit == position) return;
  file.last_visit = position;
  file.visit(position);
  DiskView view;
  const bool there = disk->find(handle.object, position, &view) && view.valid != 0;
  const uint64_t frame_offset = position * chunk_frame_bytes;
  disk->on_visit(handle.object, position, std::min<uint64_t>(chunk_frame_bytes, handle.object_bytes - frame_offset),
                 there ? &view : nullptr);
}

// Without what memory has at both ends.
ByteRange Prefetcher::missing(FilePrefetch& file, const WindowRange& range) const {
  const Handle& handle = file.handle;
  const MemoryTier& memory = *server_.volume().memory;
  uint64_t low = range.range.offset;
  uint64_t high = range.range.end();
  while (low < high) {
    const uint64_t next = std::min(high, low / block_bytes * block_bytes + block_bytes);
    if (!memory.holds(handle.object, low, next - low)) break;
    low = next;
  }
  while (high > low) {
    const uint64_t next = std::max(low, (high - 1) / block_bytes * block_bytes);
    if (!memory.holds(handle.object, next, high - next)) break;
    high = next;
  }
  file.on_dropped(range, {range.range.offset, low - range.range.offset});
  file.on_dropped(range, {high, range.range.end() - high});
  return {low, high - low};
}

// What others load brings nothing of ours.
void Prefetcher::drop_unclaimed(FilePrefetch& file, const Piece& piece) {
  for (unsigned i = 0; i < piece.plan.span_count; ++i) {
    const Plan::Span& span = piece.plan.spans[i];
    for_each_run(span.blocks & ~span.blocks_to_load, [&](unsigned first, unsigned count) {
      file.on_dropped(piece.range, bytes_of(span.offset, first, count, file.handle.object_bytes));
    });
    if (piece.range.stream == WindowRange::lane_stream) continue;  // what it is counted as now stands for this fetch
    for_each_run(span.blocks_to_load, [&](unsigned first, unsigned count) {
      file.on_fetched(bytes_of(span.offset, first, count, file.handle.object_bytes));
    });
  }
}

void Prefetcher::on_plan_done(Plan& plan) {
  Piece& piece = *static_cast<Piece::PiecePlan&>(plan).piece;
  Prefetcher& self = *piece.prefetcher;
  self.finish(piece);
  if (self.members_due_) self.fetch_members();
  self.pump();
}

void Prefetcher::finish(Piece& piece) {
  Volume& volume = server_.volume();
  FilePrefetch& file = *piece.handle->prefetch.load(std::memory_order_acquire);
  if (piece.plan.failed) {
    server_.counters_.prefetch_failed.add(1);
    file.on_dropped(piece.range, piece.range.range);
  }
  file.on_landed(piece.range);
  if (FilePrefetch::is_layout(piece.range) && !closed_) learn(file);
  file.count_piece(-1);
  if (file.member() && !file.has_pieces() && !file.is_wanted()) end_member(file, piece.plan.failed);
  volume.memory->release(piece.plan);
  Handle& handle = *piece.handle;
  piece.handle = nullptr;
  piece.unlink();
  --pieces_out_;
  --(piece.at_origin ? at_origin_ : at_disk_);
  if (piece.at_origin) volume.prefetch_at_origin.fetch_sub(1, std::memory_order_relaxed);
  pieces_.release(piece);
  server_.release_handle(handle);
  if (closed_) server_.become_idle_if_done();
}

void Prefetcher::retry_soon() {
  if (retry_.armed()) return;
  server_.reactor().arm(retry_, retry_ns_);
  retry_ns_ = std::min(retry_ns_ * 8, retry_ns_max);
}

// What it waits for may take minutes.
void Prefetcher::retry_later() {
  retry_ns_ = retry_ns_max;
  retry_soon();
}

void Prefetcher::on_retry(Timer& timer) { static_cast<Retry&>(timer).prefetcher->pump(); }

// Loads that are under way go on by themselves.
void Prefetcher::close() {
  closed_ = true;
  leave_others();
  if (retry_.armed()) server_.reactor().cancel(retry_);
  end_files();
  while (FilePrefetch* file = files_.pop_front()) server_.release_handle(file->handle);
  file_count_ = 0;
  in_flight_.for_each([&](Piece& piece) {
    server_.volume().memory->cancel_waits(piece.plan);
    if (piece.plan.waiters_pending == 0) finish(piece);
  });
}

}  // namespace blobcache::serve
