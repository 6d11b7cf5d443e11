// The disk tier as a core sees it: what was written is found, verified, survives a restart, and leaves when it must.
#include "cache/disk_tier.h"

#include <atomic>
#include <deque>
#include <thread>

#include <fmt/format.h>

#include "unit/cache/allocations.h"
#include "unit/cache/disk_tier_fixture.h"

namespace blobcache::test {

namespace {

constexpr uint64_t MiB = limits::MiB;
constexpr uint64_t odd_size = 9 * MiB + 70001;  // three chunks; the last block is short and ends within a page

int closed_backings = 0;
int open_backing(int connection_fd, int file_fd) {
  return connection_fd == 5 && fcntl(file_fd, F_GETFD) >= 0 ? 77 : -1;
}
void close_backing(int connection_fd, int backing_id) { closed_backings += connection_fd == 5 && backing_id == 77; }

void disarm(TierRig& rig, DiskFile* file, int backing_id) {
  AskedJob<DiskDisarmJob> job;
  job.file = file;
  job.close_backing = &close_backing;
  job.connection_fd = 5;
  job.backing_id = backing_id;
  REQUIRE(rig.run(job));
}

}  // namespace

TEST_CASE("what was written is valid at once, verified soon, and exactly as long as the object") {
  TierRig rig;
  rig.open();
  CHECK(!rig.known(1));
  DiskFile* file = rig.create(1, odd_size);
  CHECK(rig.known(1));
  CHECK(rig.view(1).valid == 0);
  REQUIRE(rig.write(*file, 1, 0, 0xf0));
  CHECK(rig.view(1).valid == 0xf0);
  CHECK(rig.tier->stats(0).used_bytes == 4 * limits::block_bytes);
  REQUIRE(rig.write(*file, 1, 0, ~uint64_t{0xf0}));
  REQUIRE(rig.write(*file, 1, 1, ~uint64_t{0}));
  REQUIRE(rig.write(*file, 1, 2, disk_format::blocks_mask(odd_size, 2)));
  struct stat status;
  REQUIRE(fstat(file->fd, &status) == 0);
  CHECK(status.st_size == odd_size);
  rig.until([&] { return rig.view(1).whole_verified; });
  const DiskObjectFacts facts = rig.tier->facts(id_of(1), odd_size);
  CHECK((facts.known && facts.whole_verified && facts.path == rig.path_of(1)));
  CHECK(facts.valid_bytes == odd_size);
  CHECK(facts.verified_bytes == odd_size);
  CHECK(rig.has_bytes(*file, 1, 8 * MiB, 1 * MiB + 70001));
  CHECK(rig.tier->try_file(id_of(1), rig.view(1)) == file);
  rig.tier->release(*file);
  rig.tier->release(*file);
  CHECK(rig.tier->stats(0).corrupt_blocks == 0);
}

TEST_CASE("marks survive a restart, and are counted when the file was looked at") {
  TierRig rig;
  rig.open();
  REQUIRE(rig.write_object(1, odd_size));
  DiskFile* part = rig.create(2, odd_size);
  REQUIRE(rig.write(*part, 2, 1, 0xff));
  rig.tier->mark_verified(id_of(2), 1, 0x0f);
  rig.tier->release(*part);
  rig.until([&] { return rig.view(1).whole_verified; });
  const uint64_t used = rig.tier->stats(0).used_bytes;
  rig.close();

  rig.open();
  CHECK(rig.tier->stats(0).used_bytes == used);
  CHECK(rig.view(1).valid == ~uint64_t{0});
  CHECK(!rig.view(1).whole_verified);  // nobody has looked yet
  CHECK(rig.tier->try_file(id_of(1), rig.view(1)) == nullptr);
  DiskFile* file = rig.open_file(1);
  REQUIRE(file != nullptr);
  CHECK(rig.view(1).whole_verified);
  part = rig.open_file(2);
  REQUIRE(part != nullptr);
  CHECK(rig.view(2, 1).verified == 0x0f);
  CHECK(rig.view(2, 1).valid == 0xff);
  rig.tier->release(*file);
  rig.tier->release(*part);
}

TEST_CASE("a copy of the directory, as a crash of the machine would leave it, is valid and verified anew") {
  TierRig rig;
  rig.open();
  REQUIRE(rig.write_object(1, odd_size));
  rig.until([&] { return rig.view(1).whole_verified; });
  TierRig copy;
  copy.options.cache.disks[0].path = copy.folder / "copy";
  rig.until([&] {  // until the journal has said it all
    if (copy.tier != nullptr) copy.close();
    std::filesystem::remove_all(copy.folder / "copy");
    std::filesystem::copy(rig.folder / "cache", copy.folder / "copy", std::filesystem::copy_options::recursive);
    copy.open();
    return copy.view(1, 2).valid == disk_format::blocks_mask(odd_size, 2);
  });
  CHECK(copy.view(1).verified == 0);
  DiskFile* file = copy.open_file(1);
  REQUIRE(file != nullptr);
  copy.tier->verify_soon(id_of(1));
  copy.until([&] { return copy.view(1).whole_verified; });
  CHECK(copy.tier->stats(0).corrupt_blocks == 0);
  copy.tier->release(*file);
}

TEST_CASE("a block that is not what its checksum says is dropped, and its room with it; the others stay") {
  TierRig rig;
  rig.open();
  REQUIRE(rig.write_object(1, 5 * MiB, uint64_t{1} << 5));
  rig.until([&] { return rig.view(1).valid == ~(uint64_t{1} << 5); });
  rig.until([&] { return rig.view(1).verified == ~(uint64_t{1} << 5); });
  CHECK(!rig.view(1).whole_verified);
  CHECK(rig.tier->stats(0).corrupt_blocks == 1);
  rig.until([&] { return rig.tier->stats(0).used_bytes == 5 * MiB - limits::block_bytes; });
  struct stat status;
  REQUIRE(stat(rig.path_of(1).c_str(), &status) == 0);
  CHECK(static_cast<uint64_t>(status.st_blocks) * 512 == 5 * MiB - limits::block_bytes);
  // It comes again.
  DiskFile* file = rig.open_file(1);
  REQUIRE(rig.write(*file, 1, 0, uint64_t{1} << 5));
  rig.tier->release(*file);
  rig.until([&] { return rig.view(1).whole_verified; });
}

TEST_CASE("the scrubber finds what rotted after it was verified") {
  TierRig rig;
  rig.options.scrub_delay_ns = 0;
  rig.options.scrub_pause_ns = 0;
  rig.options.scrub_bytes_per_s = 200 * MiB;
  rig.open();
  REQUIRE(rig.write_object(1, 5 * MiB));
  rig.until([&] { return rig.view(1).whole_verified; });
  const int fd = ::open(rig.path_of(1).c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(fd >= 0);
  REQUIRE(pwrite(fd, "rot", 3, 4 * MiB + 100) == 3);
  REQUIRE(fsync(fd) == 0);
  ::close(fd);
  rig.until([&] { return rig.view(1, 1).valid == 0xfffe; });
  CHECK(rig.tier->stats(0).corrupt_blocks == 1);
  CHECK(rig.tier->stats(0).scrubbed_bytes > 0);
  CHECK(rig.view(1).verified == ~uint64_t{0});
  CHECK(!rig.view(1).whole_verified);
}

TEST_CASE("blocks are punched only after the reads that may have found them") {
  TierRig rig;
  rig.open();
  REQUIRE(rig.write_object(1, 8 * MiB));
  rig.until([&] { return rig.view(1).whole_verified; });
  DiskFile* file = rig.open_file(1);
  const unsigned phase = rig.tier->reads().enter(3, 0);
  REQUIRE(rig.view(1).valid == ~uint64_t{0});
  AskedJob<DiskDropJob> drop;
  drop.id = id_of(1);
  drop.blocks = 0xffff;
  rig.begin(drop);
  rig.until([&] { return rig.view(1).valid == ~uint64_t{0xffff}; });
  CHECK(rig.has_bytes(*file, 1, 0, 1 * MiB));
  CHECK(!drop.done);
  rig.tier->reads().leave(3, 0, phase);
  rig.until([&] { return drop.done; });
  CHECK(!drop.failed);
  CHECK(!rig.has_bytes(*file, 1, 0, limits::block_bytes));
  CHECK(rig.has_bytes(*file, 1, 1 * MiB, 7 * MiB));
  rig.tier->release(*file);
}

TEST_CASE("an object that is removed while open is read on, and its room is free when it is closed") {
  TierRig rig;
  rig.open();
  REQUIRE(rig.write_object(1, 5 * MiB));
  DiskFile* file = rig.open_file(1);
  REQUIRE(file != nullptr);
  CHECK(rig.tier->remove_and_wait(id_of(1)));
  CHECK(!rig.known(1));
  CHECK(!std::filesystem::exists(rig.path_of(1)));
  CHECK(!std::filesystem::exists(rig.path_of(1) + ".sums"));
  CHECK(file->gone.load());
  CHECK(rig.has_bytes(*file, 1, 0, 5 * MiB));
  CHECK(rig.tier->stats(0).used_bytes == 5 * MiB);
  // A write that was on its way makes nothing valid.
  CHECK(!rig.write(*file, 1, 0, 0x7));
  CHECK(!rig.known(1));
  CHECK(rig.tier->stats(0).writes_shed == 3);
  rig.tier->release(*file);
  rig.until([&] { return rig.tier->stats(0).used_bytes == 0; });
  CHECK(rig.tier->remove_and_wait(id_of(1)).error().code == Code::not_found);
}

TEST_CASE("a whole and verified object is armed; armed, it leaves as a whole or not at all") {
  TierRig rig;
  rig.open();
  DiskFile* writing = rig.create(1, 5 * MiB);
  AskedJob<DiskOpenJob> early;
  early.id = id_of(1);
  early.open_backing = &open_backing;
  early.connection_fd = 5;
  REQUIRE(rig.run(early));
  CHECK(early.backing_id <= 0);  // not whole
  CHECK(early.file->armed.load() == 0);
  rig.tier->release(*early.file);
  REQUIRE(rig.write(*writing, 1, 0, ~uint64_t{0}));
  REQUIRE(rig.write(*writing, 1, 1, 0xffff));
  rig.tier->release(*writing);
  rig.until([&] { return rig.view(1).whole_verified; });

  AskedJob<DiskOpenJob> open;
  open.id = id_of(1);
  open.open_backing = &open_backing;
  open.connection_fd = 5;
  REQUIRE(rig.run(open));
  CHECK(open.backing_id == 77);
  CHECK(open.file->armed.load() == 1);
  AskedJob<DiskDropJob> drop;
  drop.id = id_of(1);
  drop.blocks = 1;
  REQUIRE(rig.run(drop));
  CHECK(!rig.known(1));
  CHECK(rig.has_bytes(*open.file, 1, 0, 5 * MiB));
  closed_backings = 0;
  disarm(rig, open.file, open.backing_id);
  CHECK(closed_backings == 1);
  rig.until([&] { return rig.tier->stats(0).used_bytes == 0; });
}

TEST_CASE("a refused backing file leaves nothing armed") {
  TierRig rig;
  rig.open();
  REQUIRE(rig.write_object(1, 5 * MiB));
  rig.until([&] { return rig.view(1).whole_verified; });
  AskedJob<DiskOpenJob> open;
  open.id = id_of(1);
  open.open_backing = [](int, int) { return -EPERM; };
  REQUIRE(rig.run(open));
  CHECK(open.backing_id == -EPERM);
  CHECK(open.file->armed.load() == 0);
  rig.tier->release(*open.file);
}

TEST_CASE("files that jobs open while the tier stops are closed with it") {
  TierRig rig;
  rig.open();
  // The reference is kept: an object without a block that nobody uses is swept away.
  AskedJob<DiskDisarmJob> blocker;
  blocker.file = rig.create(1, 5 * MiB);
  const auto thread_count = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator());
  };
  const auto open_count = [](const std::string& path_begin) {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      count += std::filesystem::read_symlink(entry.path(), gone).string().starts_with(path_begin);
    }
    return count;
  };
  // The first job holds the keeper until the stop has come about as far as the keeper; the others run then, and are
  // answered or not.
  static std::atomic<bool> keeper_may_go;
  keeper_may_go = false;
  blocker.file->armed.fetch_add(1);
  blocker.close_backing = [](int, int) { keeper_may_go.wait(false); };
  rig.begin(blocker);
  std::deque<AskedJob<DiskOpenJob>> jobs;
  for (int i = 0; i < 2000; ++i) {
    jobs.emplace_back().id = id_of(1);
    rig.begin(jobs.back());
  }
  const auto threads = thread_count();
  bool stopped = false;
  std::atomic<bool> ended = false;
  std::jthread stopper([&] {
    stopped = rig.tier->stop(20000);
    ended = true;
  });
  // One thread more, and the verifier less.
  rig.until([&] { return thread_count() <= threads; });
  keeper_may_go = true;
  keeper_may_go.notify_all();
  rig.until([&] { return ended.load(); });
  REQUIRE(stopped);
  // Nobody gives back what the answers brought, nor what those have that were not answered.
  for (AskedJob<DiskOpenJob>& job : jobs) CHECK(!job.failed);
  CHECK(open_count(rig.path_of(1)) == 2);
  rig.tier.reset();
  CHECK(open_count(rig.folder / "cache") == 0);
}

TEST_CASE("a file that is missing or of another length is of no use, and the object is forgotten") {
  TierRig rig;
  rig.open();
  REQUIRE(rig.write_object(1, 5 * MiB));
  REQUIRE(rig.write_object(2, 5 * MiB));
  REQUIRE(rig.write_object(3, odd_size));
  rig.close();
  std::filesystem::remove(rig.path_of(1));
  std::filesystem::resize_file(rig.path_of(2), 4 * MiB);
  // Not cut before the process ended: as good as whole.
  std::filesystem::resize_file(rig.path_of(3), (odd_size + 4095) / 4096 * 4096);
  rig.open();
  CHECK(rig.open_file(1) == nullptr);
  CHECK(rig.open_file(2) == nullptr);
  CHECK(!rig.known(1));
  CHECK(!rig.known(2));
  CHECK(!std::filesystem::exists(rig.path_of(2)));
  DiskFile* file = rig.open_file(3);
  REQUIRE(file != nullptr);
  CHECK(std::filesystem::file_size(rig.path_of(3)) == odd_size);
  CHECK(rig.has_bytes(*file, 3, 0, odd_size));
  rig.tier->release(*file);
}

TEST_CASE("files that the index does not know are removed, and others' are left alone") {
  TierRig rig;
  rig.open();
  REQUIRE(rig.write_object(1, 5 * MiB));
  rig.close();
  const std::string lost = rig.path_of(2);
  write_file(lost, "lost");
  write_file(lost + ".sums", "lost");
  // More than one look at the folder shows.
  for (int i = 0; i < 1500; ++i) write_file(fmt::format("{}{:05}.sums", lost.substr(0, lost.size() - 5), i), "lost");
  write_file(rig.folder / "cache/segments/0000002a", "lost");
  write_file(rig.folder / "cache/segments/README", "not ours");
  rig.open();
  rig.until([&] { return !std::filesystem::exists(rig.folder / "cache/segments/0000002a"); });
  CHECK(!std::filesystem::exists(lost));
  CHECK(std::filesystem::is_empty(std::filesystem::path(lost).parent_path()));
  CHECK(std::filesystem::exists(rig.path_of(1)));
  CHECK(std::filesystem::exists(rig.path_of(1) + ".sums"));
  CHECK(std::filesystem::exists(rig.folder / "cache/segments/README"));
}

#if BC_TEST_COUNTS_ALLOCATIONS
TEST_CASE("a hit allocates nothing") {
  TierRig rig;
  rig.open();
  REQUIRE(rig.write_object(1, odd_size));
  rig.until([&] { return rig.view(1).whole_verified; });
  const uint64_t before = allocation_count();
  for (int i = 0; i < 10000; ++i) {
    const uint64_t position = static_cast<unsigned>(i) % disk_format::index_chunks_of(odd_size);
    const unsigned phase = rig.tier->reads().enter(0, 0);
    DiskView view;
    REQUIRE(rig.tier->find(id_of(1), position, &view));
    DiskFile* file = rig.tier->try_file(id_of(1), view);
    REQUIRE(file != nullptr);
    rig.tier->on_visit(id_of(1), position, 4 * MiB, &view);
    rig.tier->mark_verified(id_of(1), position, view.valid);
    rig.tier->release(*file);
    rig.tier->reads().leave(0, 0, phase);
  }
  CHECK(allocation_count() == before);
}
#endif

}  // namespace blobcache::test
