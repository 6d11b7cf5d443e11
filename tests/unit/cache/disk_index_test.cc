// The index against a map, with restarts; its memory; its start.
#include <atomic>
#include <chrono>
#include <random>
#include <set>
#include <thread>

#include <fmt/format.h>

#include "unit/cache/disk_fixture.h"

namespace blobcache {

using namespace test;

namespace {

constexpr uint64_t MiB = limits::MiB;
constexpr uint64_t numbers = 300;

// One random operation on both.
class Player {
 public:
  Player(Model& model, uint64_t seed) : model_(model), random_(seed) {}

  void play(DiskIndex& index) {
    const uint64_t number = random_() % numbers;
    const ObjectId id = id_of(number);
    const auto found = model_.objects.find(number);
    if (found == model_.objects.end()) {
      CHECK(index.add_valid(id, 0, 1).error().code == Code::not_found);
      CHECK(index.pin(id).error().code == Code::not_found);
      return add(index, number);
    }
    Model::Object& object = found->second;
    const uint64_t position = random_() % disk_format::index_chunks_of(object.size);
    const uint64_t all = disk_format::blocks_mask(object.size, position);
    const uint64_t blocks = random_() % 4 == 0 ? all : random_() & all;
    Model::Chunk& chunk = object.chunks[position];
    switch (random_() % 18) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
        REQUIRE(index.add_valid(id, position, blocks));
        chunk.valid |= blocks;
        break;
      case 5:
      case 6:
      case 7:
      case 8: {
        model_.settle(object);
        const Result<void> done = index.mark_verified(id, position, blocks);
        CHECK(done.has_value() == object.confirmed);
        if (object.confirmed) chunk.verified |= blocks & chunk.valid;
        break;
      }
      case 9:
        REQUIRE(index.drop_blocks(id, position, blocks));
        chunk.valid &= ~blocks;
        chunk.verified &= ~blocks;
        break;
      case 10:
      case 11: stamp(index, id, object); break;
      case 12:
      case 13: confirm(index, id, object); break;
      case 14: remove(index, number, object.place); break;
      case 15:
      case 16: pin(index, id, object); break;
      default: segment(index); break;
    }
  }

 private:
  void add(DiskIndex& index, uint64_t number) {
    Model::Object object{.size = 1 + random_() % (30 * MiB)};
    if (random_() % 2 == 0 && !model_.segments.empty()) {
      object.size = 1 + random_() % (6 * MiB);
      auto segment = model_.segments.begin();
      std::advance(segment, static_cast<long>(random_() % model_.segments.size()));
      object.place = {.packed = true, .segment = segment->first, .page = static_cast<uint32_t>(random_() % 100000)};
    }
    REQUIRE(index.add({.id = id_of(number), .size = object.size, .place = object.place}));
    CHECK(index.add({.id = id_of(number), .size = 5}).error().code == Code::invalid);
    model_.objects[number] = object;
  }
  void stamp(DiskIndex& index, const ObjectId& id, Model::Object& object) {
    const uint64_t stamp = random_() | 1;
    const Result<void> done = index.record_stamp(id, stamp, false);
    CHECK(done.has_value() == (!object.place.packed && object.confirmed));
    if (done) object.stamp = stamp;
  }
  void confirm(DiskIndex& index, const ObjectId& id, Model::Object& object) {
    const bool right = random_() % 2 == 0;
    if (object.place.packed) {
      Model::Segment& segment = model_.segments.at(object.place.segment);
      const bool same = segment.known == 1 || (segment.known == 0 && right && segment.stamp != 0);
      CHECK(*index.confirm_segment(0, object.place.segment, right ? segment.stamp : 12) == same);
      segment.known = same ? 1 : -1;
      return;
    }
    const bool same = object.confirmed || (right && object.stamp != 0);
    CHECK(*index.confirm(id, right ? object.stamp : 12) == same);
    object.confirmed = true;
    if (same) return;
    object.stamp = 0;
    for (auto& [position, chunk] : object.chunks) chunk.verified = 0;
  }
  void remove(DiskIndex& index, uint64_t number, DiskPlace place) {
    if (model_.objects.at(number).pinned) {
      CHECK(index.remove(id_of(number)).error().code == Code::again);
      REQUIRE(index.unpin(id_of(number)));
    }
    if (place.packed) CHECK(index.remove_segment(0, place.segment).error().code == Code::again);
    REQUIRE(index.remove(id_of(number)));
    model_.objects.erase(number);
  }
  // Once more is the same as once.
  void pin(DiskIndex& index, const ObjectId& id, Model::Object& object) {
    object.pinned = random_() % 3 != 0;
    for (unsigned times = 0; times < 2; ++times) REQUIRE((object.pinned ? index.pin(id) : index.unpin(id)).has_value());
  }
  void segment(DiskIndex& index) {
    if (random_() % 2 == 0 && model_.segments.size() < 20) {
      const uint32_t number = index.next_segment(0);
      REQUIRE(index.add_segment(0, number));
      model_.segments[number] = {};
      return;
    }
    if (model_.segments.empty()) return;
    auto& [number, segment] = *model_.segments.begin();
    const uint64_t stamp = random_() | 1;
    const Result<void> done = index.record_segment_stamp(0, number, stamp);
    CHECK(done.has_value() == (segment.known == 1 && segment.stamp == 0));
    if (done) segment.stamp = stamp;
    uint32_t objects = 0;
    uint32_t pinned = 0;
    for (const auto& [ignored, object] : model_.objects) {
      const bool inside = object.place.packed && object.place.segment == number;
      objects += inside;
      pinned += inside && object.pinned;
    }
    CHECK(index.objects_in_segment(0, number) == objects);
    CHECK(index.pinned_in_segment(0, number) == pinned);
    if (objects > 0) return;
    REQUIRE(index.remove_segment(0, number));
    model_.segments.erase(number);
  }

  Model& model_;
  std::mt19937_64 random_;
};

size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  size_t pages_all = 0;
  size_t pages_resident = 0;
  statm >> pages_all >> pages_resident;
  return pages_resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

TEST_CASE("100,000 random operations, with restarts and snapshots, equal a map") {
  const TempFolder folder;
  Model model;
  Player player(model, 7);
  auto opened = std::make_unique<Opened>(folder.path());
  std::mt19937_64 random(11);
  unsigned restarts = 0;
  for (unsigned i = 0; i < 100000; ++i) {
    player.play(*opened->index);
    // A step now and then, so that most operations fall into the middle of a snapshot.
    if (random() % 40 == 0) REQUIRE(opened->journal->step_snapshot());
    if (i % 2000 != 1999) continue;
    model.check(*opened->index);
    REQUIRE(opened->journal->flush());
    opened = std::make_unique<Opened>(folder.path());
    CHECK(opened->report.bytes_ignored == 0);
    CHECK_FALSE(opened->report.marks_dropped);
    model.restart();
    model.check(*opened->index);
    ++restarts;
  }
  CHECK(restarts == 50);
}

TEST_CASE("one snapshot over random operations, killed before each step of it") {
  const TempFolder folder;
  Model model;
  Player player(model, 3);
  Opened opened(folder.path());
  for (unsigned i = 0; i < 5000; ++i) player.play(*opened.index);
  unsigned steps = 0;
  // Twice, so that there is a snapshot to be replaced.
  for (unsigned snapshot = 0; snapshot < 2; ++snapshot) {
    for (bool more = true; more; ++steps) {
      for (unsigned i = 0; i < 20; ++i) player.play(*opened.index);
      const Result<bool> step = opened.journal->step_snapshot();
      REQUIRE(step);
      more = *step;
      for (unsigned i = 0; i < 20; ++i) player.play(*opened.index);
      REQUIRE(opened.journal->flush());
      // The process dies here: another one finds these files, and twice in a row.
      const TempFolder copy;
      std::filesystem::copy(folder.path(), copy.path(), std::filesystem::copy_options::recursive);
      for (unsigned start = 0; start < 2; ++start) {
        Model restarted = model;
        restarted.restart();
        Opened found(copy.path());
        CHECK(found.report.files_ignored == 0);
        CHECK_FALSE(found.report.marks_dropped);
        restarted.check(*found.index);
      }
    }
  }
  CHECK(steps == 2 * (DiskIndex::stripe_count + 4));
}

TEST_CASE("cleaning up after a snapshot may be cut between any two files") {
  const TempFolder folder;
  Model model;
  Player player(model, 5);
  auto opened = std::make_unique<Opened>(folder.path());
  for (unsigned start = 0; start < 4; ++start) {  // several logs
    for (unsigned i = 0; i < 500; ++i) player.play(*opened->index);
    if (start == 1) opened->snapshot();
    REQUIRE(opened->journal->flush());
    opened = std::make_unique<Opened>(folder.path());
    model.restart();
  }
  std::vector<std::string> old_files;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    old_files.push_back(entry.path().filename());
  const TempFolder old_state;
  std::filesystem::copy(folder.path(), old_state.path(), std::filesystem::copy_options::recursive);
  opened->snapshot();
  REQUIRE(opened->journal->flush());
  REQUIRE(old_files.size() >= 3);
  // Whatever subset of the old files is still there, the new snapshot is what counts.
  for (unsigned subset = 0; subset < 1u << old_files.size(); ++subset) {
    const TempFolder copy;
    std::filesystem::copy(folder.path(), copy.path(), std::filesystem::copy_options::recursive);
    for (size_t i = 0; i < old_files.size(); ++i) {
      if ((subset >> i & 1) != 0) std::filesystem::copy(old_state / old_files[i], copy / old_files[i]);
    }
    Opened found(copy.path());
    Model restarted = model;
    restarted.restart();
    restarted.check(*found.index);
  }
}

TEST_CASE("threads change the index while it is copied, and all of it is found again") {
  const TempFolder folder;
  constexpr uint64_t threads = 3;
  constexpr uint64_t objects = 200;
  std::map<uint64_t, uint64_t> valid[threads];  // blocks of chunk 1, by number
  {
    Opened opened(folder.path(), 4096, 200000);  // nothing is lost, however late the flusher is
    std::atomic<unsigned> running{threads};
    std::vector<std::thread> changers;
    for (uint64_t thread = 0; thread < threads; ++thread) {
      changers.emplace_back([&, thread] {
        std::mt19937_64 random(thread);
        for (unsigned i = 0; i < 20000; ++i) {
          const uint64_t number = thread * objects + random() % objects;
          const uint64_t blocks = random();
          const ObjectId id = id_of(number);
          DiskView view;
          const bool known = opened.index->find(id, 1, &view);
          if (known != valid[thread].contains(number)) std::abort();
          if (known && view.valid != valid[thread][number]) std::abort();
          if (!known) {
            if (!opened.index->add({.id = id, .size = 8 * MiB})) std::abort();
            valid[thread][number] = 0;
          } else if (random() % 8 == 0) {
            if (!opened.index->remove(id)) std::abort();
            valid[thread].erase(number);
          } else {
            if (!opened.index->add_valid(id, 1, blocks) || !opened.index->mark_verified(id, 1, blocks)) std::abort();
            valid[thread][number] |= blocks;
          }
        }
        running.fetch_sub(1);
      });
    }
    unsigned snapshots = 0;
    while (running.load() > 0) {
      const Result<bool> more = opened.journal->step_snapshot();
      REQUIRE(more);
      REQUIRE(opened.journal->flush());
      snapshots += !*more;
    }
    for (std::thread& changer : changers) changer.join();
    REQUIRE(opened.journal->flush());
    CHECK(opened.journal->lost_records_count() == 0);
    MESSAGE(fmt::format("snapshots meanwhile: {}", snapshots));
  }
  const Opened found(folder.path());
  CHECK_FALSE(found.report.marks_dropped);
  uint64_t wrong = 0;
  uint64_t count = 0;
  for (const auto& part : valid) {
    for (const auto& [number, blocks] : part) {
      DiskView view;
      wrong += !found.index->find(id_of(number), 1, &view) || view.valid != blocks;
      ++count;
    }
  }
  CHECK(wrong == 0);
  CHECK(found.index->object_count() == count);
}

TEST_CASE("a full index says so, and is whole again after removals") {
  DiskIndex index;
  REQUIRE(index.allocate({.objects_max = 4, .chunks_max = 3}));
  for (uint64_t i = 0; i < 4; ++i) REQUIRE(index.add({.id = id_of(i), .size = 16 * MiB}));
  CHECK(index.add({.id = id_of(9), .size = 1}).error().code == Code::full);
  for (uint64_t i = 1; i < 4; ++i) REQUIRE(index.add_valid(id_of(0), i, 1));
  CHECK(index.add_valid(id_of(1), 1, 1).error().code == Code::full);
  REQUIRE(index.remove(id_of(0)));
  CHECK(index.chunk_count() == 0);
  REQUIRE(index.add_valid(id_of(1), 1, 1));
  REQUIRE(index.add({.id = id_of(9), .size = 1}));
  for (const uint64_t size : {uint64_t{0}, disk_format::object_bytes_max + 1, ~uint64_t{0}})
    CHECK(index.add({.id = id_of(10), .size = size}).error().code == Code::invalid);
  CHECK(index.add({.id = id_of(10), .size = 1, .place = {.packed = true, .segment = 3}}).error().code == Code::invalid);
  CHECK(index.add_valid(id_of(9), 0, 2).error().code == Code::invalid);
  CHECK(index.add_valid(id_of(9), 1, 1).error().code == Code::invalid);
}

TEST_CASE("a walk meets all chunks of an object that has most of the table, and may remove them") {
  DiskIndex index;
  REQUIRE(index.allocate({.objects_max = 100, .chunks_max = 4096}));
  constexpr uint64_t chunks = 3000;
  REQUIRE(index.add({.id = id_of(1), .size = chunks * disk_format::index_chunk_bytes}));
  for (uint64_t position = 0; position < chunks; ++position) REQUIRE(index.add_valid(id_of(1), position, 1));
  std::set<uint64_t> positions;
  std::set<uint32_t> entries;
  DiskCursor cursor;
  std::vector<DiskEntry> found;
  while (index.copy_entries(0, &cursor, &found)) {
    for (const DiskEntry& entry : found) {
      positions.insert(entry.position);
      entries.insert(entry.entry);
    }
  }
  CHECK(positions.size() == chunks);
  CHECK(entries.size() == chunks);
  REQUIRE(index.remove(id_of(1)));
  CHECK(index.chunk_count() == 0);
  CHECK(index.object_count() == 0);
}

TEST_CASE("a million chunks: at most 64 bytes each, and a start that reads the index only") {
  constexpr uint32_t million = 1000000;
  const TempFolder folder;
  {
    const size_t resident_before = resident_bytes();
    DiskIndex index;
    REQUIRE(index.allocate({.objects_max = million, .chunks_max = million, .segments_max = 256}));
    std::mt19937_64 random(1);
    for (uint32_t i = 0; i < million; ++i) {
      const ObjectId id{{random(), i + 1}};
      REQUIRE(index.add({.id = id, .size = 4 * MiB}));
      REQUIRE(index.add_valid(id, 0, ~uint64_t{0}));
    }
    const double counted = static_cast<double>(index.memory_bytes()) / million;
    const double resident = static_cast<double>(resident_bytes() - resident_before) / million;
    MESSAGE(fmt::format("bytes a chunk, objects of one chunk: {:.2f} counted, {:.2f} resident", counted, resident));
    CHECK(counted <= 64);
    const int fd = open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DiskJournal journal(index, {.index_fd = fd, .disk_uuid = disk_uuid});
    REQUIRE(journal.load());
    for (bool more = true; more;) {
      const Result<bool> step = journal.step_snapshot();
      REQUIRE(step);
      more = *step;
    }
    REQUIRE(journal.stop());
    close(fd);
  }
  const auto before = std::chrono::steady_clock::now();
  const Opened found(folder.path(), million);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - before;
  MESSAGE(fmt::format("start with 1,000,000 chunks: {:.3f} s", took.count()));
  CHECK(found.index->object_count() == million);
  CHECK(found.report.records == million);
  CHECK(found.report.records_rejected == 0);
}

TEST_CASE("chunks beyond the first cost less, and only those that have blocks") {
  constexpr uint32_t million = 1000000;
  DiskIndex index;
  REQUIRE(index.allocate({.objects_max = 1000, .chunks_max = million}));
  for (uint64_t i = 0; i < 100; ++i) {
    REQUIRE(index.add({.id = id_of(i), .size = disk_format::object_bytes_max}));
    for (uint64_t chunk = 0; chunk < million / 100; ++chunk) REQUIRE(index.add_valid(id_of(i), chunk * 800, 1));
  }
  CHECK(index.chunk_count() == million - 100);
  CHECK(static_cast<double>(index.memory_bytes()) / million <= 32);
  for (uint64_t i = 0; i < 100; ++i) REQUIRE(index.remove(id_of(i)));
  CHECK(index.chunk_count() == 0);
}

}  // namespace blobcache
