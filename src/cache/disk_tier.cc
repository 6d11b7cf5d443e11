// The tier puts its parts together: one index and one DiskReads for all disks; for each disk a directory, space, open files,
// health, journal, keeper and verifier (disk_unit.h). Its threads may hang in the kernel with the disk; watch() is called by
// a core, which does not, and sees when they do.
//
// A new object goes to the disk that rendezvous hashing gives it among those that take writes, weighted by their limits; so a
// disk that comes or goes moves only its share. A known object stays where it is.
#include "cache/disk_tier.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>
#include <utility>

#include <sys/statvfs.h>

#include <fmt/format.h>

#include "base/log.h"
#include "cache/disk_keeper.h"
#include "cache/disk_unit.h"
#include "cache/disk_verifier.h"

namespace blobcache {

namespace {

constexpr uint64_t millisecond_ns = 1'000'000;
constexpr uint32_t open_files_max = 512;
constexpr uint32_t open_files_min = 32;  // a disk
// With buckets, those of chunks unevenly filled, and what eviction keeps.
constexpr uint64_t bytes_per_object = 56 + 7 + sizeof(EvictionEntry) + 4;
constexpr uint64_t bytes_per_chunk = 24 + 10 + sizeof(EvictionEntry) + 4;
constexpr uint32_t items_min = 4096;

uint32_t items_for(uint64_t bytes, uint64_t bytes_per_item) {
  return static_cast<uint32_t>(std::clamp<uint64_t>(bytes / bytes_per_item, items_min, 1u << 30));
}

}  // namespace

std::string_view state_name(DiskState state) {
  switch (state) {
    case DiskState::ok: return "ok";
    case DiskState::degraded: return "degraded";
    case DiskState::down: return "down";
  }
  return "";
}

struct DiskTier::Impl {
  DiskShared shared;
  std::vector<std::unique_ptr<DiskUnit>> disks;
  // What watch() saw of each disk.
  struct Seen {
    uint64_t reads_ended = 0;
    uint64_t since_ns = 0;  // no read ended while some were in flight
  };
  std::vector<Seen> seen;
  bool running = false;

  DiskUnit& unit(unsigned disk) const {
    BC_ASSERT(disk < disks.size());
    return *disks[disk];
  }
  Result<void> allocate(uint64_t memory_bytes);
  Result<void> open_disk(DiskUnit& unit, std::string* message_out);
  void account(DiskUnit& unit);
  enum class Among : uint8_t { well, all };
  int disk_for(const ObjectId& id, Among among) const;
};

DiskTier::DiskTier() : impl_(std::make_unique<Impl>()) {}

DiskTier::~DiskTier() {
  // Threads that hang use all of it: it stays.
  if (impl_->running && !stop(5000)) std::ignore = impl_.release();
}

// Of models nearly all is chunks, of image data sets objects of some 100 KiB: room for objects of 512 KiB on the mean.
uint64_t DiskTier::memory_wanted(uint64_t disk_bytes) {
  const uint64_t objects = disk_bytes / (512 * limits::KiB);
  const uint64_t chunks = disk_bytes / disk_format::index_chunk_bytes;
  return std::max<uint64_t>(limits::MiB, objects * bytes_per_object + chunks * bytes_per_chunk);
}

// ---- opening ----

Result<void> DiskTier::Impl::allocate(uint64_t memory_bytes) {
  const auto disk_count = static_cast<unsigned>(disks.size());
  const DiskIndexOptions options{.objects_max = items_for(memory_bytes / 4 * 3, bytes_per_object),
                                 .chunks_max = items_for(memory_bytes / 4, bytes_per_chunk),
                                 .segments_max = shared.segments_max,
                                 .disk_count = disk_count};
  const Result<void> allocated = shared.index.allocate(options);
  if (!allocated) return allocated;
  const size_t entries = shared.index.entries_count() + size_t{disk_count} * shared.segments_max;
  shared.entries.reset(static_cast<EvictionEntry*>(std::calloc(entries, sizeof(EvictionEntry))));
  if (shared.entries == nullptr) return fail(Code::again);
  for (const std::unique_ptr<DiskUnit>& unit : disks) {
    const DiskConfig& config = unit->config;
    unit->space =
        std::make_unique<DiskSpace>(DiskSpace::Options{.entries = {shared.entries.get(), entries},
                                                       .keys_count = entries / disk_count,
                                                       .limit_bytes = 0,
                                                       .detect_scans = shared.cache.admission != Admission::all,
                                                       .write_budget_bytes = shared.cache.write_budget_bytes});
    unit->set_watermarks(config.high_watermark, config.low_watermark);
    unit->keeper = std::make_unique<DiskKeeper>(*unit);
    unit->verifier = std::make_unique<DiskVerifier>(*unit);
  }
  return {};
}

// All that the index knows of a disk takes room there. No file is looked at.
void DiskTier::Impl::account(DiskUnit& unit) {
  DiskCursor cursor;
  std::vector<DiskEntry> entries;
  while (shared.index.copy_entries(unit.number, &cursor, &entries)) {
    for (const DiskEntry& entry : entries) {
      if (!entry.packed) {
        if (entry.valid != 0) {
          unit.space->add(entry.entry, chunk_hash(entry.id, entry.position),
                          disk_format::bytes_of_blocks(entry.size, entry.position, entry.valid));
          unit.space->restore(entry.entry, entry.frequency);
        }
        if (entry.pinned) unit.keeper->add_known_pin(entry);
      } else if (entry.position == 0) {
        unit.keeper->add_known_segment(entry.segment, disk_format::packed_pages(entry.size) * limits::page_bytes);
      }
    }
  }
  std::vector<DiskIndex::Record> segments;
  shared.index.copy_segments(unit.number, &segments);
  for (const DiskIndex::Record& segment : segments)
    unit.space->restore(shared.segment_entry(unit.number, segment.position), segment.frequency);
}

Result<void> DiskTier::Impl::open_disk(DiskUnit& unit, std::string* message_out) {
  const auto frequency_of = [](void* context, const disk_format::IndexRecord& record) {
    return static_cast<const DiskUnit*>(context)->frequency_of(record);
  };
  unit.journal = std::make_unique<DiskJournal>(shared.index, DiskJournal::Options{.index_fd = unit.directory.index_fd(),
                                                                                  .disk_uuid = unit.directory.disk(),
                                                                                  .disk = unit.number,
                                                                                  .frequency_of = frequency_of,
                                                                                  .context = &unit});
  const Result<DiskLoadReport> loaded = unit.journal->load();
  unit.load_spent();
  Result<void> measured;
  if (loaded) {
    measured = unit.measure();
    account(unit);
    if (measured) measured = unit.measure();  // what it holds counts as its own
  }
  if (!loaded || !measured) {
    const Error error = loaded ? measured.error() : loaded.error();
    *message_out = fmt::format("the index in cache directory {} cannot be {} ({}): {}", unit.directory.path(),
                               loaded ? "measured" : "read", code_name(error.code),
                               error.code == Code::full ? "free some space on its filesystem"
                                                        : "repair its filesystem or choose another directory");
    return std::unexpected(error);
  }
  BC_LOG(info, "cache disk {}: {} of {} MiB used, {} index records{}", unit.directory.path(),
         unit.space->used_bytes() / limits::MiB, unit.space->limit_bytes() / limits::MiB, loaded->records,
         unit.directory.stacked() ? "; a stacked filesystem: no passthrough" : "");
  if (loaded->records_rejected + loaded->bytes_ignored + loaded->files_ignored > 0 || loaded->marks_dropped) {
    BC_LOG(info, "cache disk {}: {} records, {} bytes and {} files of the index were not believed{}",
           unit.directory.path(), loaded->records_rejected, loaded->bytes_ignored, loaded->files_ignored,
           loaded->marks_dropped ? "; everything is verified anew" : "");
  }
  return {};
}

Result<void> DiskTier::open(const Options& options, std::string* message_out) {
  const std::vector<DiskConfig>& configs = options.cache.disks;
  BC_ASSERT(impl_->disks.empty() && !configs.empty());
  if (configs.size() > disks_max) {
    *message_out = fmt::format("{} cache disks are more than {}: join some of them", configs.size(), disks_max);
    return fail(Code::invalid);
  }
  DiskShared& shared = impl_->shared;
  shared.cache = options.cache;
  shared.object_ttl_ns = options.cache.object_ttl_ns;
  shared.quota.set(options.quota);
  shared.scrub_bytes_per_s = std::max<uint64_t>(1, options.scrub_bytes_per_s);
  shared.scrub_delay_ns = options.scrub_delay_ns;
  shared.scrub_pause_ns = options.scrub_pause_ns;
  shared.reads = std::make_unique<DiskReads>(static_cast<unsigned>(configs.size()));
  const Result<disk_format::Uuid> boot = boot_id();
  if (!boot) {
    *message_out = "the boot id cannot be read from /proc/sys/kernel/random/boot_id: mount /proc";
    return std::unexpected(boot.error());
  }
  shared.boot = *boot;
  const uint32_t files = std::max<uint32_t>(open_files_min, open_files_max / static_cast<uint32_t>(configs.size()));
  impl_->seen.resize(configs.size());
  uint64_t disk_bytes = 0;
  for (unsigned i = 0; i < configs.size(); ++i) {
    impl_->disks.push_back(std::make_unique<DiskUnit>(shared, i, files));
    DiskUnit& unit = *impl_->disks.back();
    unit.config = configs[i];
    unit.health = std::make_unique<DiskHealth>(configs[i].path);
    const Result<void> opened = unit.directory.open({.path = configs[i].path, .node = options.node}, message_out);
    if (!opened) return opened;
    struct statvfs status;
    if (fstatvfs(unit.directory.root_fd(), &status) == 0)
      disk_bytes += configs[i].size.resolve(status.f_blocks * status.f_frsize);
  }
  const Result<void> allocated =
      impl_->allocate(options.memory_bytes != 0 ? options.memory_bytes : memory_wanted(disk_bytes));
  if (!allocated) {
    *message_out = "there is no memory for the index of the disks: raise memory.limit or give the cache less disk";
    return allocated;
  }
  for (const std::unique_ptr<DiskUnit>& unit : impl_->disks) {
    const Result<void> opened = impl_->open_disk(*unit, message_out);
    if (!opened) return opened;
  }
  return {};
}

// ---- threads ----

void DiskTier::start() {
  impl_->running = true;
  for (const std::unique_ptr<DiskUnit>& unit : impl_->disks) {
    unit->keeper->start();
    unit->verifier->start();
  }
}

void DiskTier::watch(uint64_t now_ns) {
  for (const std::unique_ptr<DiskUnit>& unit : impl_->disks) {
    Impl::Seen& reads = impl_->seen[unit->number];
    const uint64_t ended = impl_->shared.reads->ended(unit->number);
    if (ended != reads.reads_ended || impl_->shared.reads->in_flight(unit->number) == 0 || reads.since_ns == 0)
      reads = {.reads_ended = ended, .since_ns = now_ns};
    const auto stuck = [&](uint64_t since_ns, uint64_t patience_ns) {
      return since_ns != 0 && since_ns + patience_ns < now_ns;
    };
    if (stuck(unit->keeper->thread().busy_since_ns(), DiskHealth::stuck_after_ns))
      unit->health->on_stuck("a file operation did not end within 2 s", now_ns);
    else if (stuck(unit->verifier->thread().busy_since_ns(), DiskHealth::read_stuck_after_ns) ||
             stuck(reads.since_ns, DiskHealth::read_stuck_after_ns))
      unit->health->on_stuck("a read did not end within 1 s", now_ns);
    else
      unit->health->on_moving();
    unit->health->tick(now_ns);
    if (unit->health->state() != DiskState::ok) unit->verifier->thread().wake();
    // What cores mark as verified waits in the journal, whose memory is bounded.
    if (unit->journal->pending()) unit->keeper->wake();
  }
}

void DiskTier::change(const CacheConfig& cache, const Amount& quota) {
  BC_ASSERT(cache.disks.size() == impl_->disks.size());
  impl_->shared.object_ttl_ns.store(cache.object_ttl_ns, std::memory_order_relaxed);
  impl_->shared.quota.set(quota);
  for (const std::unique_ptr<DiskUnit>& unit : impl_->disks) {
    const DiskConfig& config = cache.disks[unit->number];
    unit->space->set_write_budget(cache.write_budget_bytes);
    unit->set_watermarks(config.high_watermark, config.low_watermark);
  }
}

bool DiskTier::stop(unsigned patience_ms) {
  if (!impl_->running) return true;
  const uint64_t deadline_ns = steady_now_ns() + patience_ms * millisecond_ns;
  bool all_ended = true;
  for (const std::unique_ptr<DiskUnit>& unit : impl_->disks) unit->verifier->begin_stop();
  for (const std::unique_ptr<DiskUnit>& unit : impl_->disks) {
    // A verifier waits for its keeper, so it ends first.
    if (unit->verifier->thread().join_until(deadline_ns)) continue;
    unit->verifier->thread().abandon();
    all_ended = false;
  }
  for (const std::unique_ptr<DiskUnit>& unit : impl_->disks) unit->keeper->begin_stop();
  for (const std::unique_ptr<DiskUnit>& unit : impl_->disks) {
    if (unit->keeper->thread().join_until(deadline_ns)) continue;
    unit->keeper->thread().abandon();
    all_ended = false;
  }
  impl_->running = !all_ended;
  return all_ended;
}

// ---- reading ----

DiskReads& DiskTier::reads() { return *impl_->shared.reads; }

bool DiskTier::verify_always() const { return impl_->shared.cache.verify == Verify::always; }

bool DiskTier::find(const ObjectId& id, uint64_t position, DiskView* view_out) {
  return impl_->shared.index.find(id, position, view_out) &&
         impl_->unit(view_out->place.disk).health->state() != DiskState::down;
}

DiskFile* DiskTier::try_file(const ObjectId& id, const DiskView& view) {
  DiskFiles& files = impl_->unit(view.place.disk).files;
  return view.place.packed ? files.find_segment(view.place.segment) : files.find(id);
}

void DiskTier::release(DiskFile& file) { impl_->unit(file.disk).files.release(file); }

uint32_t DiskTier::direct_alignment(unsigned disk) const { return impl_->unit(disk).directory.direct_alignment(); }

bool DiskTier::stacked(unsigned disk) const { return impl_->unit(disk).directory.stacked(); }

void DiskTier::mark_verified(const ObjectId& id, uint64_t position, uint64_t blocks) {
  std::ignore = impl_->shared.index.mark_verified(id, position, blocks);
}

void DiskTier::on_visit(const ObjectId& id, uint64_t position, uint64_t bytes, const DiskView* view) {
  const bool hit = view != nullptr && view->valid != 0;
  const int disk = view != nullptr ? view->place.disk : disk_for(id);
  if (disk < 0 || bytes == 0) return;
  uint32_t entry = disk_slot_none;
  if (hit)
    entry = view->place.packed ? impl_->shared.segment_entry(view->place.disk, view->place.segment) : view->entry;
  impl_->unit(static_cast<unsigned>(disk)).space->on_visit(chunk_hash(id, position), bytes, entry);
}

void DiskTier::on_read_error(unsigned disk, int os_errno) { impl_->unit(disk).on_read_error(os_errno); }

void DiskTier::on_slow_read(unsigned disk) {
  impl_->unit(disk).counters.read_errors.fetch_add(1, std::memory_order_relaxed);
  impl_->unit(disk).health->on_stuck("a read did not end within 1 s", steady_now_ns());
}

void DiskTier::on_corrupt(unsigned disk, unsigned blocks) {
  impl_->unit(disk).counters.corrupt_blocks.fetch_add(blocks, std::memory_order_relaxed);
}

uint64_t DiskTier::drops_done(unsigned disk) const { return impl_->unit(disk).keeper->drops_done(); }

// ---- writing ----

bool DiskTier::packs(uint64_t object_bytes) const { return object_bytes < impl_->shared.cache.chunk_bytes; }

int DiskTier::Impl::disk_for(const ObjectId& id, Among among) const {
  int best = -1;
  double best_score = -1;
  for (const std::unique_ptr<DiskUnit>& each : disks) {
    if (among == Among::well && each->health->state() != DiskState::ok) continue;
    if (disks.size() == 1) return 0;
    const disk_format::Uuid disk = each->directory.disk();
    const uint64_t hash = disk_format::seed_of(id.words[0] ^ disk.words[0], id.words[1], disk.words[1]);
    const double uniform = (static_cast<double>(hash >> 11) + 0.5) / static_cast<double>(uint64_t{1} << 53);
    const double score = -static_cast<double>(each->space->limit_bytes() + 1) / std::log(uniform);
    if (score <= best_score) continue;
    best_score = score;
    best = static_cast<int>(each->number);
  }
  return best;
}

int DiskTier::disk_for(const ObjectId& id) const { return impl_->disk_for(id, Impl::Among::well); }

void DiskTier::on_shed(const ObjectId& id, uint64_t bytes) {
  impl_->unit(static_cast<unsigned>(impl_->disk_for(id, Impl::Among::all))).on_shed(bytes);
}

bool DiskTier::begin_write(unsigned disk, uint64_t bytes, DiskSpace::For what) {
  DiskUnit& unit = impl_->unit(disk);
  const bool reserved = unit.health->state() == DiskState::ok && unit.space->try_reserve(bytes, day_now(), what);
  if (!reserved) unit.on_shed(bytes);
  if (unit.space->wants_room()) unit.keeper->wake();
  return reserved;
}

bool DiskTier::awaits_pins(unsigned disk) const {
  return impl_->unit(disk).counters.pins_awaited.load(std::memory_order_relaxed) != 0;
}

void DiskTier::abandon_write(unsigned disk, uint64_t bytes, int os_errno, bool written) {
  DiskUnit& unit = impl_->unit(disk);
  if (written || os_errno != 0)
    unit.space->unreserve(bytes);  // what a failed write has worn is not known
  else
    unit.space->give_back(bytes);
  unit.on_shed(bytes);
  if (os_errno != 0) unit.on_write_error(os_errno);
}

uint64_t DiskTier::segment_bytes(unsigned disk) const { return impl_->unit(disk).keeper->segment_bytes(); }

// ---- jobs ----

void DiskTier::post(Reactor& home, DiskJob& job) {
  job.home = &home;
  impl_->unit(job.disk).keeper->post(job);
}

Result<void> DiskTier::remove_and_wait(const ObjectId& id) {
  DiskView view;
  if (!impl_->shared.index.find(id, 0, &view)) return fail(Code::not_found);
  WaitedDiskJob<DiskRemoveJob> job;
  job.id = id;
  job.disk = view.place.disk;
  job.run_on(*impl_->unit(job.disk).keeper);
  if (job.failed) return std::unexpected(job.error);
  return {};
}

Result<void> DiskTier::pin_and_wait(const ObjectId& id, uint64_t object_bytes, PinFacts* facts_out) {
  DiskView view;
  const int disk = impl_->shared.index.find(id, 0, &view) ? view.place.disk : disk_for(id);
  if (disk < 0) return fail(Code::io);
  WaitedDiskJob<DiskPinJob> job;
  job.id = id;
  job.object_bytes = object_bytes;
  job.disk = static_cast<uint8_t>(disk);
  job.run_on(*impl_->unit(job.disk).keeper);
  *facts_out = {.disk = job.disk,
                .was_pinned = job.was_pinned,
                .wanted_bytes = job.wanted_bytes,
                .pinned_bytes = job.pinned_bytes,
                .pinned_bytes_max = job.pinned_bytes_max};
  if (job.failed) return std::unexpected(job.error);
  return {};
}

Result<uint64_t> DiskTier::unpin_and_wait(const ObjectId& id) {
  uint64_t unpinned = 0;
  std::optional<Error> failed;
  for (const std::unique_ptr<DiskUnit>& unit : impl_->disks) {
    WaitedDiskJob<DiskUnpinJob> job;
    job.id = id;
    job.disk = static_cast<uint8_t>(unit->number);
    job.run_on(*unit->keeper);
    unpinned += job.unpinned;
    if (job.failed && !failed) failed = job.error;
  }
  if (failed) return std::unexpected(*failed);
  return unpinned;
}

void DiskTier::verify_soon(const ObjectId& id) {
  DiskView view;
  if (impl_->shared.index.find(id, 0, &view)) impl_->unit(view.place.disk).verifier->verify_soon(id);
}

// ---- what others ask ----

unsigned DiskTier::disk_count() const { return static_cast<unsigned>(impl_->disks.size()); }

DiskStats DiskTier::stats(unsigned disk) const {
  const DiskUnit& unit = impl_->unit(disk);
  const DiskCounters& counters = unit.counters;
  return {.path = unit.directory.path(),
          .state = unit.health->state(),
          .why = unit.health->why(),
          .stacked = unit.directory.stacked(),
          .used_bytes = unit.space->used_bytes(),
          .limit_bytes = unit.space->limit_bytes(),
          .pinned_bytes = counters.pinned_own_bytes.load(std::memory_order_relaxed) +
                          counters.pinned_segment_bytes.load(std::memory_order_relaxed),
          .pinned_bytes_max = unit.space->pinned_bytes_max(),
          .objects = impl_->shared.index.object_count(),
          .evicted_bytes = counters.evicted_bytes.load(std::memory_order_relaxed),
          .written_bytes = counters.written_bytes.load(std::memory_order_relaxed),
          .writes_shed = counters.writes_shed.load(std::memory_order_relaxed),
          .read_errors = counters.read_errors.load(std::memory_order_relaxed),
          .write_errors = counters.write_errors.load(std::memory_order_relaxed),
          .corrupt_blocks = counters.corrupt_blocks.load(std::memory_order_relaxed),
          .scrubbed_bytes = counters.scrubbed_bytes.load(std::memory_order_relaxed),
          .scan_frozen = unit.space->scan_frozen()};
}

uint64_t DiskTier::free_bytes() const {
  uint64_t bytes = 0;
  for (unsigned disk = 0; disk < disk_count(); ++disk) {
    const DiskSpace& space = *impl_->unit(disk).space;
    const uint64_t taken = space.used_bytes() + space.reserved_bytes();
    bytes += space.limit_bytes() - std::min(space.limit_bytes(), taken);
  }
  return bytes;
}

DiskObjectFacts DiskTier::facts(const ObjectId& id, uint64_t object_bytes) {
  DiskObjectFacts facts;
  DiskView view;
  if (!find(id, 0, &view) || view.size != object_bytes) return facts;
  facts.known = true;
  facts.whole_verified = view.whole_verified;
  facts.pinned = view.pinned;
  if (!view.place.packed)
    facts.path = impl_->unit(view.place.disk).directory.path() + "/" + disk_format::object_path(id);
  for (uint64_t position = 0; position < disk_format::index_chunks_of(object_bytes); ++position) {
    if (!find(id, position, &view)) continue;
    // Of the last block only what the object has.
    const auto bytes_of = [&](uint64_t blocks) {
      uint64_t bytes = 0;
      for (uint64_t left = blocks; left != 0; left &= left - 1) {
        const uint64_t begin = position * disk_format::index_chunk_bytes +
                               static_cast<uint64_t>(std::countr_zero(left)) * limits::block_bytes;
        bytes += std::min<uint64_t>(limits::block_bytes, object_bytes - begin);
      }
      return bytes;
    };
    facts.valid_bytes += bytes_of(view.valid);
    facts.verified_bytes += bytes_of(view.verified);
  }
  return facts;
}

uint64_t DiskTier::memory_bytes() const { return impl_->shared.index.memory_bytes(); }

}  // namespace blobcache
