// A life is a row of random deeds with up to six reads under way, then an end. Each answer is compared with what the origin
// would say. An error is taken only when there was reason for one: an interrupt, a failure that the origin was told to give,
// or a version that is no longer current.
//
// Death comes between two turns of the core; the keeper, the verifier and the ring are wherever they are then.
#include "long/chaos_life.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "long/chaos_damage.h"
#include "long/chaos_files.h"
#include "long/chaos_node.h"

namespace blobcache::chaos {

namespace {

constexpr unsigned reads_max = 6;
constexpr unsigned files_max = 6;
constexpr unsigned rounds_max = 20;
constexpr uint64_t whole_bytes_max = 3 * MiB;  // larger files are read here and there

unsigned open_descriptors() {
  DIR* folder = opendir("/proc/self/fd");
  unsigned count = 0;
  while (folder != nullptr && readdir(folder) != nullptr) ++count;
  if (folder != nullptr) closedir(folder);
  return count;
}

// A file as the kernel knows it: a node, an open handle, the version it was opened with.
struct OpenFile {
  bool open = false;
  unsigned key = 0;
  unsigned version = 0;
  uint64_t node = 0;
  uint64_t handle = 0;
  uint64_t bytes = 0;
};

struct Reading {
  bool going = false;
  unsigned file = 0;
  uint64_t offset = 0;
  uint32_t bytes = 0;
  uint64_t failures_before = 0;
  bool interrupted = false;
};

// A file of the cache that the kernel would read past us.
struct Backing {
  DiskFile* file = nullptr;
  int fd = -1;  // as the backing id: a descriptor of our own
  unsigned key = 0;
  unsigned version = 0;
};

template <class Job>
struct AskedJob : Job {
  AskedJob() {
    this->on_done = [](DiskJob& job) { static_cast<AskedJob&>(job).done = true; };
  }
  bool done = false;
};

class Life {
 public:
  Life(const World& world, const LifePlan& plan, Totals& totals)
      : world_(world),
        plan_(plan),
        totals_(totals),
        random_(world.seed, 100 + plan.number),
        node_(world, plan.folder, Random(world.seed, 200 + plan.number), plan.number * 16) {}

  std::string run();

 private:
  void deed();
  void read_somewhere();
  void read_everything();
  void read_whole(unsigned file);
  void fill();
  void check_hits();
  void forget_all();
  void pause();
  void replace_version();
  void interrupt_some_read();
  void remove_object();
  void pin_object();
  void pass_through();
  void check_backing(const Backing& backing);
  void disarm(Backing& backing);
  void damage_while_running();

  // A request and its answer. os_errno of the answer.
  int ask(const ChaosTransport::RequestIn& in, unsigned* slot_out);
  bool open_file(unsigned file, unsigned key);
  void close_file(unsigned file);
  void begin_read(unsigned file, uint64_t offset, uint64_t bytes);
  void take_answers();
  void check_answer(unsigned slot);
  void finish_reads();
  template <class Condition>
  void until(Condition&& condition) {
    while (!condition()) turn(true);
  }
  void turn(bool may_wait);
  void die();
  ObjectId id_of(unsigned key) const {
    return node_.volume->object_id_of(fmt::format("k{}", key), node_.origin->info_of(key));
  }
  uint64_t size_of(unsigned key) const { return world_.size_of(key, node_.origin->version(key)); }
  void fail(std::string why) {
    if (failure_.empty()) failure_ = std::move(why);
  }
  void count(Node& node);

  const World& world_;
  const LifePlan& plan_;
  Totals& totals_;
  Random random_;
  Node node_;
  std::array<OpenFile, files_max> files_;
  std::array<Reading, slots_max> readings_;
  std::vector<Backing> backings_;
  unsigned key_to_pass_ = ~0u;  // none
  unsigned bumps_ = 0;
  uint64_t turns_ = 0;
  uint64_t copy_at_turn_ = 0;  // 0: no copy
  uint64_t die_at_turn_ = 0;   // 0: at the end of the deeds, if at all
  uint64_t reads_ = 0;
  uint64_t compared_ = 0;
  std::string failure_;
};

// ---- turns, and death ----

void Life::turn(bool may_wait) {
  ++turns_;
  if (turns_ == copy_at_turn_) copy_tree(plan_.folder, plan_.older);
  if (turns_ == die_at_turn_) die();
  node_.reactor->turn(may_wait);
  take_answers();
}

void Life::die() {
  count(node_);
  if (plan_.end == End::copied) copy_tree(plan_.folder, plan_.copied);
  kill(getpid(), SIGKILL);
}

void Life::count(Node& node) {
  const serve::Counters& counters = node.server->counters();
  totals_.reads += reads_;
  totals_.bytes_compared += compared_;
  totals_.memory_hits += counters.memory_hits.value();
  totals_.direct_hits += counters.disk_hits.value();
  totals_.disk_bytes += node.disk_bytes();
  totals_.origin_bytes += counters.origin_bytes.value();
  for (unsigned disk = 0; disk < world_.disks; ++disk) {
    const DiskStats stats = node.disk().stats(disk);
    totals_.corrupt_blocks += stats.corrupt_blocks;
    totals_.evicted_bytes += stats.evicted_bytes;
  }
}

// ---- requests ----

int Life::ask(const ChaosTransport::RequestIn& in, unsigned* slot_out) {
  take_answers();  // a slot with an answer in it is free for the next request
  until([&] { return node_.transport->free_slot() >= 0; });
  const auto slot = static_cast<unsigned>(node_.transport->free_slot());
  node_.transport->begin(slot, in);
  until([&] { return node_.transport->reply_of(slot).done; });
  if (slot_out != nullptr) *slot_out = slot;
  return node_.transport->reply_of(slot).os_errno;
}

bool Life::open_file(unsigned file, unsigned key) {
  OpenFile& opened = files_[file];
  BC_ASSERT(!opened.open);
  unsigned slot = 0;
  const std::string name = fmt::format("k{}", key);
  if (const int error = ask({.opcode = FUSE_LOOKUP, .node = fuse::root_node, .name = name}, &slot); error != 0) {
    fail(fmt::format("the look-up of {} failed with errno {}", name, error));
    return false;
  }
  const auto entry = *reinterpret_cast<const fuse_entry_out*>(node_.transport->payload(slot));
  fuse_open_in in{};
  if (random_.chance(30)) in.flags = O_DIRECT;
  const unsigned version = node_.origin->version(key);
  if (const int error =
          ask({.opcode = FUSE_OPEN, .node = entry.nodeid, .argument = &in, .argument_bytes = sizeof in}, &slot);
      error != 0) {
    fail(fmt::format("the open of {} failed with errno {}", name, error));
    return false;
  }
  const auto out = *reinterpret_cast<const abi::OpenOut*>(node_.transport->payload(slot));
  opened = {.open = true,
            .key = key,
            .version = version,
            .node = entry.nodeid,
            .handle = out.fh,
            .bytes = world_.size_of(key, version)};
  return true;
}

void Life::close_file(unsigned file) {
  OpenFile& opened = files_[file];
  const auto reads_it = [&](const Reading& reading) { return reading.going && reading.file == file; };
  until([&] { return std::ranges::none_of(readings_, reads_it); });
  fuse_release_in in{};
  in.fh = opened.handle;
  std::ignore =
      ask({.opcode = FUSE_RELEASE, .node = opened.node, .argument = &in, .argument_bytes = sizeof in}, nullptr);
  fuse_forget_in forget{};
  forget.nlookup = 1;
  std::ignore =
      ask({.opcode = FUSE_FORGET, .node = opened.node, .argument = &forget, .argument_bytes = sizeof forget}, nullptr);
  opened.open = false;
}

void Life::begin_read(unsigned file, uint64_t offset, uint64_t bytes) {
  const auto going = [](const Reading& reading) { return reading.going; };
  take_answers();
  until([&] {
    return node_.transport->free_slot() >= 0 && std::ranges::count_if(readings_, going) < static_cast<int>(reads_max);
  });
  const auto slot = static_cast<unsigned>(node_.transport->free_slot());
  fuse_read_in in{};
  in.fh = files_[file].handle;
  in.offset = offset;
  in.size = static_cast<uint32_t>(std::min<uint64_t>(bytes, payload_bytes_max));
  readings_[slot] = {
      .going = true, .file = file, .offset = offset, .bytes = in.size, .failures_before = node_.origin->failures()};
  ++reads_;
  node_.transport->begin(
      slot, {.opcode = FUSE_READ, .node = files_[file].node, .argument = &in, .argument_bytes = sizeof in});
  take_answers();
}

void Life::take_answers() {
  for (unsigned slot = 0; slot < slots_max; ++slot) {
    if (readings_[slot].going && node_.transport->reply_of(slot).done) check_answer(slot);
  }
}

void Life::check_answer(unsigned slot) {
  Reading& reading = readings_[slot];
  reading.going = false;
  const Reply& reply = node_.transport->reply_of(slot);
  const OpenFile& file = files_[reading.file];
  const auto where = [&] {
    return fmt::format("k{} v{} ({} bytes), read of {} at {}", file.key, file.version, file.bytes, reading.bytes,
                       reading.offset);
  };
  if (reply.os_errno != 0) {
    const bool interrupted = reading.interrupted && reply.os_errno == EINTR;
    const bool failed = node_.origin->failures() != reading.failures_before;
    if (!interrupted && !failed) fail(fmt::format("ERROR {}: errno {} without a reason", where(), reply.os_errno));
    return;
  }
  const uint64_t rest = file.bytes > reading.offset ? file.bytes - reading.offset : 0;
  const uint64_t wanted = std::min<uint64_t>(rest, reading.bytes);
  if (reply.bytes != wanted)
    return fail(fmt::format("WRONG LENGTH {}: {} instead of {}", where(), reply.bytes, wanted));
  const size_t wrong =
      first_wrong(world_.base_of(file.key, file.version), reading.offset, node_.transport->payload(slot), reply.bytes);
  compared_ += reply.bytes;
  if (wrong != reply.bytes) fail(fmt::format("WRONG BYTES {}: from {} on", where(), reading.offset + wrong));
}

void Life::finish_reads() {
  until([&] { return std::ranges::none_of(readings_, [](const Reading& reading) { return reading.going; }); });
}

// ---- deeds ----

void Life::read_somewhere() {
  const auto file = static_cast<unsigned>(random_.below(files_max));
  const auto key = static_cast<unsigned>(random_.below(world_.keys));
  if (files_[file].open && random_.chance(40)) close_file(file);
  if (!files_[file].open && !open_file(file, key)) return;
  const uint64_t size = files_[file].bytes;
  const uint64_t kind = random_.below(10);
  if (kind < 5) return read_whole(file);
  for (uint64_t left = random_.between(1, 6); left > 0; --left) {
    uint64_t offset = random_.below(size + 1);
    uint64_t bytes = random_.between(1, 100'000);
    if (kind < 8) {
      offset = offset / limits::page_bytes * limits::page_bytes;
      bytes = random_.between(1, 8) * limits::page_bytes;
    }
    if (kind == 9) offset = size > 70'000 ? size - random_.below(70'000) : 0;
    begin_read(file, offset, bytes);
  }
}

// Large ones at some places, among them the ends and what lies around chunks and sidecar pages.
void Life::read_whole(unsigned file) {
  const uint64_t size = files_[file].bytes;
  // A healthy node reads the same places again.
  Random places(world_.seed, world_.healthy ? 1000 + files_[file].key : random_.next());
  const uint64_t step = places.chance(50) ? 128 * KiB : payload_bytes_max;
  if (size <= whole_bytes_max) {
    for (uint64_t offset = 0; offset < size; offset += step) begin_read(file, offset, step);
    return;
  }
  for (uint64_t around : {uint64_t{0}, 4 * MiB, 28 * MiB, size}) {
    if (around > size) continue;
    const uint64_t before = around < 64 * KiB ? around : 64 * KiB;
    begin_read(file, (around - before) / limits::page_bytes * limits::page_bytes, 192 * KiB);
  }
  for (unsigned i = 0; i < 3; ++i) begin_read(file, places.below(size) / limits::page_bytes * limits::page_bytes, step);
}

void Life::read_everything() {
  finish_reads();
  for (unsigned key = 0; key < world_.keys && failure_.empty(); ++key) {
    const unsigned file = key % files_max;
    if (files_[file].open) close_file(file);
    if (open_file(file, key)) read_whole(file);
  }
  finish_reads();
}

// What is in memory hides the disk.
void Life::forget_all() {
  for (unsigned key = 0; key < world_.keys; ++key) node_.memory->drop(id_of(key), size_of(key));
}

void Life::pause() {
  Timer timer([](Timer&) {});
  node_.reactor->arm(timer, random_.below(120) * 1'000'000);
  until([&] { return !timer.armed(); });
}

void Life::replace_version() {
  const auto key = static_cast<unsigned>(random_.below(world_.keys));
  if (world_.changes(key)) node_.origin->replace(key, plan_.number * 16 + ++bumps_ % 16);
}

void Life::interrupt_some_read() {
  for (unsigned slot = 0; slot < slots_max; ++slot) {
    if (!readings_[slot].going || random_.chance(50)) continue;
    readings_[slot].interrupted = true;
    node_.broadcast_interrupt(node_.transport->unique_of(slot));
    return;
  }
}

void Life::remove_object() {
  const auto key = static_cast<unsigned>(random_.below(world_.keys));
  AskedJob<DiskRemoveJob> job;
  DiskView view;
  job.id = id_of(key);
  job.damaged = random_.chance(50);
  if (!node_.disk().find(job.id, 0, &view)) return;
  const bool pinned = view.pinned;
  job.disk = view.place.disk;
  node_.disk().post(*node_.reactor, job);
  until([&] { return job.done; });
  if (pinned && !job.damaged && !job.failed) fail(fmt::format("k{} was removed although it was pinned", key));
}

// Also what is not there yet. A pin that was given holds at once, and is given up for damage alone.
void Life::pin_object() {
  const auto key = static_cast<unsigned>(random_.below(world_.keys));
  DiskView view;
  const bool known = node_.disk().find(id_of(key), 0, &view);
  const int disk = known ? view.place.disk : node_.disk().disk_for(id_of(key));
  if (disk < 0) return;
  if (random_.chance(40)) {
    AskedJob<DiskUnpinJob> job;
    job.id = random_.chance(10) ? ObjectId() : id_of(key);
    job.disk = static_cast<uint8_t>(disk);
    node_.disk().post(*node_.reactor, job);
    until([&] { return job.done; });
    return;
  }
  AskedJob<DiskPinJob> job;
  job.id = id_of(key);
  job.object_bytes = size_of(key);
  job.disk = static_cast<uint8_t>(disk);
  node_.disk().post(*node_.reactor, job);
  until([&] { return job.done; });
  if (!job.failed && !job.was_pinned && job.pinned_bytes + job.wanted_bytes > job.pinned_bytes_max)
    fail(fmt::format("{} bytes are pinned, {} may be", job.pinned_bytes + job.wanted_bytes, job.pinned_bytes_max));
}

// ---- passthrough: what the kernel reads of a backing file is not seen by us, so all of it must be right ----

void Life::pass_through() {
  const unsigned key = key_to_pass_ < world_.keys ? key_to_pass_ : static_cast<unsigned>(random_.below(world_.keys));
  key_to_pass_ = world_.keys;
  AskedJob<DiskOpenJob> job;
  DiskView view;
  job.id = id_of(key);
  if (backings_.size() >= 2 || !node_.disk().find(job.id, 0, &view)) return;
  job.disk = view.place.disk;
  job.open_backing = [](int, int file_fd) { return fcntl(file_fd, F_DUPFD_CLOEXEC, 3); };
  const unsigned version = node_.origin->version(key);
  node_.disk().post(*node_.reactor, job);
  until([&] { return job.done; });
  if (job.failed) return;
  if (job.backing_id <= 0) {
    node_.disk().release(*job.file);
    node_.disk().verify_soon(job.id);
    key_to_pass_ = key;  // the next time it may be verified
    return;
  }
  ++totals_.passed_through;
  backings_.push_back({.file = job.file, .fd = job.backing_id, .key = key, .version = version});
  check_backing(backings_.back());
}

void Life::check_backing(const Backing& backing) {
  constexpr size_t piece = 256 * KiB;
  const std::unique_ptr<std::byte, FreeMemory> buffer(static_cast<std::byte*>(std::aligned_alloc(4096, piece)));
  const uint64_t size = world_.size_of(backing.key, backing.version);
  const uint64_t base = world_.base_of(backing.key, backing.version);
  for (uint64_t offset = 0; offset < size; offset += piece) {
    const auto wanted = static_cast<size_t>(std::min<uint64_t>(piece, size - offset));
    const ssize_t count = pread(backing.fd, buffer.get(), piece, static_cast<off_t>(offset));
    const size_t got = count < 0 ? 0 : std::min(static_cast<size_t>(count), wanted);
    const size_t wrong = first_wrong(base, offset, buffer.get(), got);
    if (count == static_cast<ssize_t>(wanted) && wrong == wanted) continue;
    return fail(fmt::format("WRONG BYTES passed through: k{} v{} ({} bytes), {} of {} at {}, wrong from {} on",
                            backing.key, backing.version, size, count, wanted, offset, offset + wrong));
  }
  compared_ += size;
}

void Life::disarm(Backing& backing) {
  check_backing(backing);
  AskedJob<DiskDisarmJob> job;
  job.file = backing.file;
  job.disk = backing.file->disk;
  job.backing_id = backing.fd;
  job.close_backing = [](int, int backing_id) { close(backing_id); };
  node_.disk().post(*node_.reactor, job);
  until([&] { return job.done; });
}

void Life::damage_while_running() {
  if (!world_.verify_always) return;
  ++totals_.damages;
  damage_running(Node::disk_path(plan_.folder, static_cast<unsigned>(random_.below(world_.disks))), random_);
}

void Life::deed() {
  const auto key = static_cast<unsigned>(random_.below(world_.keys));
  const uint64_t choice = random_.below(100);
  if (choice < 50) return read_somewhere();
  if (choice < 62) return forget_all();
  if (choice < 68) return node_.writer->flush();
  if (choice < 72) return pause();
  if (choice < 77) return node_.disk().verify_soon(id_of(key));
  if (choice < 79) return remove_object();
  if (choice < 83) return pin_object();
  if (choice < 85) return replace_version();
  if (choice < 87) return interrupt_some_read();
  if (choice < 94) return pass_through();
  if (choice < 97) return damage_while_running();
  if (backings_.empty()) return;
  disarm(backings_.back());
  backings_.pop_back();
}

// ---- the healthy run: the second time nothing is asked of the origin ----

// Until a round brings nothing from the origin: writes may be shed, and are made up for by the next reader.
void Life::fill() {
  for (unsigned round = 0; round < rounds_max && failure_.empty(); ++round) {
    const uint64_t before = node_.server->counters().origin_bytes.value();
    read_everything();
    node_.writer->flush();
    until([&] { return node_.writer->idle(); });
    forget_all();
    if (node_.server->counters().origin_bytes.value() == before) return;
  }
  fail(fmt::format("after {} rounds of the same reads some still came from the origin", rounds_max));
}

void Life::check_hits() {
  read_everything();
  const uint64_t origin_bytes = node_.server->counters().origin_bytes.value();
  if (origin_bytes != 0)
    fail(fmt::format("nothing was damaged, and {} bytes came from the origin again", origin_bytes));
  forget_all();
  const uint64_t direct = node_.server->counters().disk_hits.value();
  const uint64_t reads = reads_;
  read_everything();
  const uint64_t direct_now = node_.server->counters().disk_hits.value() - direct;
  // All is verified and its files are open now; what the memory still had is the rest.
  if (direct_now * 2 < reads_ - reads)
    fail(fmt::format("of {} reads of verified objects {} were direct", reads_ - reads, direct_now));
}

std::string Life::run() {
  const unsigned descriptors = open_descriptors();
  if (std::string why = node_.open(); !why.empty()) return why;
  const uint64_t deeds = world_.healthy ? 0 : random_.between(5, 60);
  if (!plan_.older.empty()) copy_at_turn_ = random_.between(1, 40 + deeds * 8);
  if (plan_.end != End::clean) die_at_turn_ = random_.between(1, 60 + deeds * 12);
  if (world_.healthy) plan_.last ? check_hits() : fill();
  for (uint64_t i = 0; i < deeds && failure_.empty(); ++i) {
    deed();
    if (random_.chance(50)) turn(false);
  }
  if (plan_.last && failure_.empty() && !world_.healthy) read_everything();
  if (plan_.end != End::clean) die();
  if (turns_ < copy_at_turn_) copy_tree(plan_.folder, plan_.older);
  finish_reads();
  for (Backing& backing : backings_) disarm(backing);
  for (unsigned file = 0; file < files_max; ++file) {
    if (files_[file].open) close_file(file);
  }
  count(node_);
  if (!failure_.empty()) return failure_;
  if (std::string why = node_.close(); !why.empty()) return why;
  if (const unsigned left = open_descriptors(); left != descriptors)
    return fmt::format("{} descriptors were open before, {} are now", descriptors, left);
  return {};
}

}  // namespace

std::string live(const World& world, const LifePlan& plan, Totals& totals) {
  ++totals.lives;
  if (plan.end != End::clean) ++totals.kills;
  auto* life = new Life(world, plan, totals);
  std::string failure = life->run();
  if (failure.empty()) delete life;
  return failure;
}

}  // namespace blobcache::chaos
