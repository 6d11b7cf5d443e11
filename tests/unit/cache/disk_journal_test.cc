// Index files as a whole: damage in one of several, lost logs, marks that must not count; and the pages beside data.
#include <cstring>

#include <sys/stat.h>

#include "unit/cache/disk_fixture.h"

namespace blobcache {

using namespace test;

namespace {

constexpr uint64_t MiB = limits::MiB;

std::string log_path(const TempFolder& folder, uint64_t generation) {
  return folder / disk_format::log_name(generation);
}

void add_whole(DiskIndex& index, uint64_t number, uint64_t stamp) {
  REQUIRE(index.add({.id = id_of(number), .size = MiB}));
  REQUIRE(index.add_valid(id_of(number), 0, 0xffff));
  REQUIRE(index.mark_verified(id_of(number), 0, 0xffff));
  REQUIRE(index.record_stamp(id_of(number), stamp, true));
}

bool has(DiskIndex& index, uint64_t number) {
  DiskView view;
  return index.find(id_of(number), 0, &view);
}

// A bit for each of the first objects.
unsigned pins_of(DiskIndex& index) {
  unsigned pins = 0;
  for (unsigned i = 0; i < 2; ++i) {
    DiskView view;
    if (index.find(id_of(i), 0, &view) && view.pinned) pins |= 1u << i;
  }
  return pins;
}

void flip(const std::string& path, size_t byte) {
  std::string bytes = read_file(path);
  REQUIRE(byte < bytes.size());
  bytes[byte] = static_cast<char>(bytes[byte] ^ (1 << byte % 8));
  write_file(path, bytes);
}

}  // namespace

TEST_CASE("marks count after a restart only for the same file in the same boot") {
  const TempFolder folder;
  {
    Opened opened(folder.path());
    for (uint64_t i = 0; i < 2; ++i) add_whole(*opened.index, i, 77);
    DiskView view;
    REQUIRE(opened.index->find(id_of(0), 0, &view));
    CHECK(view.whole_verified);
    REQUIRE(opened.journal->stop());
  }
  {
    Opened opened(folder.path());
    DiskView view;
    REQUIRE(opened.index->find(id_of(0), 0, &view));
    CHECK(view.valid == 0xffff);
    CHECK(view.verified == 0);
    CHECK_FALSE(view.whole_verified);
    CHECK(view.whole);
    CHECK(opened.index->mark_verified(id_of(0), 0, 1).error().code == Code::again);
    CHECK(opened.index->record_stamp(id_of(0), 5, true).error().code == Code::again);
    CHECK(*opened.index->confirm(id_of(0), 77));
    CHECK_FALSE(*opened.index->confirm(id_of(1), 78));
    REQUIRE(opened.index->find(id_of(0), 0, &view));
    CHECK(view.verified == 0xffff);
    CHECK(view.whole_verified);
    REQUIRE(opened.index->find(id_of(1), 0, &view));
    CHECK(view.valid == 0xffff);
    CHECK(view.verified == 0);
    // One block is verified anew and the new file's stamp recorded: the old marks must not come back with it.
    REQUIRE(opened.index->mark_verified(id_of(1), 0, 1));
    REQUIRE(opened.index->record_stamp(id_of(1), 79, false));
    REQUIRE(opened.journal->flush());
  }
  Opened opened(folder.path());
  CHECK(*opened.index->confirm(id_of(1), 79));
  DiskView view;
  REQUIRE(opened.index->find(id_of(1), 0, &view));
  CHECK(view.verified == 1);
}

TEST_CASE("damage in one log ends trust in the logs behind it, for good") {
  const TempFolder folder;
  for (uint64_t start = 0; start < 4; ++start) {
    Opened opened(folder.path());
    for (uint64_t i = 0; i < 10; ++i) add_whole(*opened.index, start * 10 + i, 1);
    REQUIRE(opened.journal->flush());
  }
  flip(log_path(folder, 2), 64 + 64 * 20 + 5);  // object 15: 4 records an object
  {
    Opened opened(folder.path());
    CHECK(opened.index->object_count() == 15);
    CHECK(has(*opened.index, 14));
    CHECK_FALSE(has(*opened.index, 20));
    CHECK(opened.report.bytes_ignored == 64 * 20);
    CHECK(opened.report.files_ignored == 2);
    add_whole(*opened.index, 100, 1);
    REQUIRE(opened.journal->flush());
  }
  // What follows now follows the shortened log; and not its repaired self.
  {
    Opened opened(folder.path());
    CHECK(opened.index->object_count() == 16);
    CHECK(has(*opened.index, 100));
  }
  flip(log_path(folder, 2), 64 + 64 * 20 + 5);
  Opened opened(folder.path());
  CHECK(opened.index->object_count() == 20);
  CHECK_FALSE(has(*opened.index, 100));
}

TEST_CASE("a log cut inside any record is a start with what was before it") {
  const TempFolder folder;
  {
    Opened opened(folder.path());
    for (uint64_t i = 0; i < 5; ++i) add_whole(*opened.index, i, 1);
    REQUIRE(opened.journal->flush());
  }
  const std::string log = read_file(log_path(folder, 1));
  for (size_t bytes = 0; bytes <= log.size(); bytes += 7) {
    const TempFolder copy;
    write_file(log_path(copy, 1), log.substr(0, bytes));
    Opened opened(copy.path());
    const size_t records = bytes < 64 ? 0 : bytes / 64 - 1;
    CHECK(opened.index->object_count() == (records + 3) / 4);
    CHECK(opened.report.records == records);
    // And it goes on from there.
    add_whole(*opened.index, 50, 1);
    REQUIRE(opened.journal->flush());
    const Opened again(copy.path());
    CHECK(again.index->object_count() == (records + 3) / 4 + 1);
  }
}

TEST_CASE("a log of pins cut at any byte tells what was pinned until there, and so does a snapshot of it") {
  const TempFolder folder;
  // What each record leaves pinned: of objects 0 and 1, a bit each.
  std::vector<unsigned> pinned{0};
  {
    Opened opened(folder.path());
    const auto done = [&](const Result<void>& result, unsigned now) {
      REQUIRE(result);
      pinned.push_back(now);
    };
    done(opened.index->add_segment(0, 7), 0);
    done(opened.index->add({.id = id_of(0), .size = MiB}), 0);
    done(opened.index->add({.id = id_of(1), .size = 5, .place = {.packed = true, .segment = 7}}), 0);
    done(opened.index->pin(id_of(0)), 1);
    done(opened.index->pin(id_of(1)), 3);
    REQUIRE(opened.index->pin(id_of(1)));  // says nothing new, and no record
    done(opened.index->add_valid(id_of(0), 0, 0xffff), 3);
    done(opened.index->unpin(id_of(0)), 2);
    done(opened.index->drop_blocks(id_of(0), 0, 1), 2);
    done(opened.index->pin(id_of(0)), 3);
    done(opened.index->unpin(id_of(1)), 1);
    done(opened.index->remove(id_of(1)), 1);
    done(opened.index->add({.id = id_of(1), .size = 9}), 1);  // pins do not outlive their object
    REQUIRE(opened.journal->flush());
  }
  const std::string log = read_file(log_path(folder, 1));
  REQUIRE(log.size() == 64 * pinned.size());
  for (size_t bytes = 0; bytes <= log.size(); ++bytes) {
    const TempFolder copy;
    write_file(log_path(copy, 1), log.substr(0, bytes));
    const unsigned wanted = pinned[bytes < 64 ? 0 : bytes / 64 - 1];
    Opened opened(copy.path(), 64, 64);
    CHECK(pins_of(*opened.index) == wanted);
    CHECK(opened.index->pinned_in_segment(0, 7) == wanted >> 1);
    opened.snapshot();
    CHECK(pins_of(*Opened(copy.path(), 64, 64).index) == wanted);
  }
}

TEST_CASE("a flipped bit in any byte of a snapshot and its log loads to objects that were written") {
  const TempFolder folder;
  {
    Opened opened(folder.path());
    REQUIRE(opened.index->add_segment(0, 1));
    for (uint64_t i = 0; i < 3; ++i) add_whole(*opened.index, i, 1);
    opened.snapshot();
    for (uint64_t i = 3; i < 5; ++i) add_whole(*opened.index, i, 1);
    REQUIRE(opened.journal->flush());
  }
  for (const std::string& name : {disk_format::snapshot_name(2), disk_format::log_name(2)}) {
    const size_t bytes = read_file(folder / name).size();
    for (size_t byte = 0; byte < bytes; ++byte) {
      const TempFolder copy;
      std::filesystem::copy(folder.path(), copy.path(), std::filesystem::copy_options::recursive);
      flip(copy / name, byte);
      const Opened opened(copy.path(), 64, 64);
      CHECK(opened.report.records < 12);
      CHECK(opened.report.bytes_ignored + opened.report.files_ignored > 0);
      for (uint64_t i = 0; i < 5; ++i) {
        DiskView view;
        if (!opened.index->find(id_of(i), 0, &view)) continue;
        CHECK(view.size == MiB);
        CHECK((view.valid & ~uint64_t{0xffff}) == 0);
        CHECK(view.verified == 0);
      }
    }
  }
}

TEST_CASE("a snapshot without the log it was made with keeps blocks and loses marks") {
  const TempFolder folder;
  {
    Opened opened(folder.path());
    add_whole(*opened.index, 1, 5);
    REQUIRE(opened.journal->step_snapshot());  // the log of the snapshot begins
    add_whole(*opened.index, 2, 5);
    opened.snapshot();
  }
  REQUIRE(truncate(log_path(folder, 2).c_str(), 64 + 64 * 2) == 0);
  for (unsigned start = 0; start < 3; ++start) {
    Opened opened(folder.path());
    CHECK(opened.report.marks_dropped);
    CHECK(opened.journal->wants_snapshot());
    for (uint64_t i = 1; i <= 2; ++i) {
      CHECK_FALSE(*opened.index->confirm(id_of(i), 5));
      DiskView view;
      REQUIRE(opened.index->find(id_of(i), 0, &view));
      CHECK(view.valid != 0);
      CHECK(view.verified == 0);
    }
    if (start == 1) std::filesystem::remove(log_path(folder, 2));
    if (start == 2) opened.snapshot();
  }
  const Opened opened(folder.path());
  CHECK_FALSE(opened.report.marks_dropped);
}

TEST_CASE("after a log lost records a snapshot makes everything good again") {
  const TempFolder folder;
  {
    Opened opened(folder.path(), 4096, 8);
    for (uint64_t i = 0; i < 10; ++i) add_whole(*opened.index, i, 1);
    REQUIRE(opened.journal->flush());
    CHECK(opened.journal->wants_snapshot());
    {
      const TempFolder copy;
      std::filesystem::copy(folder.path(), copy.path(), std::filesystem::copy_options::recursive);
      CHECK(Opened(copy.path()).index->object_count() == 2);
    }
    // A snapshot that does not come to its end leaves the need for one.
    REQUIRE(opened.journal->step_snapshot());
    for (uint64_t i = 10; i < 13; ++i) add_whole(*opened.index, i, 1);
    while (true) {
      const Result<bool> more = opened.journal->step_snapshot();
      if (more && *more) continue;
      CHECK_FALSE(more);
      break;
    }
    CHECK(opened.journal->wants_snapshot());
    {
      const TempFolder copy;
      std::filesystem::copy(folder.path(), copy.path(), std::filesystem::copy_options::recursive);
      CHECK(Opened(copy.path()).index->object_count() == 2);
    }
    opened.snapshot();
    CHECK_FALSE(opened.journal->wants_snapshot());
  }
  CHECK(Opened(folder.path()).index->object_count() == 13);
}

TEST_CASE("impossible records are not believed, and forget what they speak of") {
  DiskIndex index;
  REQUIRE(index.allocate({.objects_max = 16, .chunks_max = 16, .segments_max = 4}));
  const ObjectId id = id_of(1);
  using disk_format::RecordType;
  const auto type = [](RecordType t) { return static_cast<uint8_t>(t); };
  const disk_format::IndexRecord good{
      .type = type(RecordType::object), .id = {id.words[0], id.words[1]}, .size = 5 * MiB, .valid = 3, .verified = 1};
  disk_format::IndexRecord blocks{
      .type = type(RecordType::blocks), .position = 1, .id = {id.words[0], id.words[1]}, .valid = 1};
  disk_format::IndexRecord pin{
      .type = type(RecordType::pin), .flags = disk_format::flag_pinned, .id = {id.words[0], id.words[1]}};
  CHECK_FALSE(index.apply(0, blocks));
  CHECK_FALSE(index.apply(0, pin));
  CHECK(index.apply(0, good));
  CHECK(index.apply(0, blocks));
  // A pin is no reason to keep what the log says has left, or was made anew.
  CHECK(index.apply(0, pin));
  CHECK(index.apply(0, {.type = type(RecordType::object_removed), .id = {id.words[0], id.words[1]}}));
  CHECK(index.apply(0, good));
  CHECK(index.apply(0, pin));
  CHECK(index.apply(0, good));
  DiskView view;
  CHECK((index.find(id, 0, &view) && !view.pinned));
  for (const auto& [position, valid, verified] :
       {std::tuple<uint32_t, uint64_t, uint64_t>{2, 1, 0}, {~0u, 1, 0}, {1, 1u << 16, 0}, {1, 1, 2}}) {
    blocks.position = position;
    blocks.valid = valid;
    blocks.verified = verified;
    CHECK_FALSE(index.apply(0, blocks));
  }
  for (const uint64_t size : {uint64_t{0}, ~uint64_t{0}, disk_format::object_bytes_max + 1}) {
    CHECK(index.apply(0, good));
    disk_format::IndexRecord bad = good;
    bad.size = size;
    CHECK_FALSE(index.apply(0, bad));
    CHECK(index.object_count() == 0);
    CHECK(index.chunk_count() == 0);
  }
  disk_format::IndexRecord packed = good;
  packed.flags = disk_format::flag_packed;
  packed.place = disk_format::packed_place(1, ~0u - 10);
  CHECK_FALSE(index.apply(0, packed));  // no such segment
  CHECK(index.apply(0, {.type = type(RecordType::segment), .position = 1}));
  CHECK_FALSE(index.apply(0, packed));  // beyond the end of any file
  packed.place = disk_format::packed_place(1, 3);
  CHECK(index.apply(0, packed));
  CHECK_FALSE(index.apply(0, {.type = type(RecordType::segment_removed), .position = 1}));
  CHECK_FALSE(index.apply(0, {.type = type(RecordType::segment), .position = ~0u}));
  CHECK(index.next_segment(0) == 2);
}

TEST_CASE("header pages and sidecar pages are accepted for their object and place only") {
  const ObjectId id = id_of(4);
  disk_format::PackedHeader header{.id = {id.words[0], id.words[1]}, .size = 100000, .block_count = 2};
  header.block_checksums[0] = 17;
  const uint64_t place = disk_format::packed_place(3, 9);
  seal(header, place);
  CHECK(check(header, place, id, 100000));
  CHECK(check(header, place, {}, 0));
  CHECK_FALSE(check(header, place + 1, id, 100000));
  CHECK_FALSE(check(header, place, id_of(5), 100000));
  CHECK_FALSE(check(header, place, id, 100001));
  disk_format::SidecarPage page;
  seal(page, id, 7);
  CHECK(check(page, id, 7));
  CHECK_FALSE(check(page, id, 8));
  CHECK_FALSE(check(page, id_of(5), 7));
  uint64_t wrong = 0;
  for (size_t bit = 0; bit < sizeof header * 8; ++bit) {
    disk_format::PackedHeader bad_header = header;
    disk_format::SidecarPage bad_page = page;
    reinterpret_cast<uint8_t*>(&bad_header)[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    reinterpret_cast<uint8_t*>(&bad_page)[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    wrong += check(bad_header, place, id, 100000) || check(bad_page, id, 7);
  }
  CHECK(wrong == 0);
  // Well sealed and impossible: a program that is wrong, or not ours.
  for (const uint64_t size : {uint64_t{0}, disk_format::packed_bytes_max + 1, ~uint64_t{0}}) {
    disk_format::PackedHeader bad = header;
    bad.size = size;
    seal(bad, place);
    CHECK_FALSE(check(bad, place, {}, 0));
  }
  header.block_count = 3;
  seal(header, place);
  CHECK_FALSE(check(header, place, id, 100000));
}

}  // namespace blobcache
