// Index files read back after every truncation and every bit flip: what is accepted is a prefix of what was written.
#include <csignal>

#include <sys/resource.h>

#include "cache/disk_log.h"
#include "unit/cache/disk_fixture.h"

namespace blobcache {

using namespace test;
using disk_format::IndexFileHeader;
using disk_format::IndexFileKind;
using disk_format::IndexRecord;

namespace {

IndexRecord record_of(uint64_t i) {
  return {.type = static_cast<uint8_t>(1 + i % disk_format::record_type_max),
          .flags = static_cast<uint8_t>(i % 4),
          .position = static_cast<uint32_t>(i * 7),
          .id = {i, ~i},
          .size = i * i,
          .place = i << 32,
          .valid = i * 3,
          .verified = i};
}

bool same(const IndexRecord& a, IndexRecord b) {
  b.checksum = a.checksum;
  return a == b;
}

// Records accepted from the file; every one of them is compared with record_of. -1: its header was not accepted.
int64_t accepted_of(const std::string& path, IndexFileKind kind, const disk_format::Uuid& disk = disk_uuid) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  DiskRecordReader reader(fd, kind, disk);
  int64_t accepted = -1;
  if (reader.read_header()) {
    accepted = 0;
    while (const IndexRecord* record = reader.next()) {
      if (!same(*record, record_of(static_cast<uint64_t>(accepted)))) FAIL("accepted what was not written");
      ++accepted;
    }
  }
  close(fd);
  return accepted;
}

std::string write_log(const TempFolder& folder, uint64_t records, uint64_t generation = 5) {
  const int fd = open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DiskLog log({.index_fd = fd, .disk = disk_uuid});
  REQUIRE(log.switch_file(generation, 0));
  for (uint64_t i = 0; i < records; ++i) {
    log.append(record_of(i));
    if (i % 37 == 0) REQUIRE(log.flush());
  }
  REQUIRE(log.pending() == (records % 37 != 1));
  REQUIRE(log.flush());
  CHECK(log.records_written() == records);
  CHECK_FALSE(log.lost_records());
  close(fd);
  return folder / disk_format::log_name(generation);
}

// The same bytes as a snapshot.
std::string write_snapshot(const TempFolder& folder, uint64_t records) {
  IndexFileHeader header{.kind = static_cast<uint64_t>(IndexFileKind::snapshot),
                         .version = disk_format::version,
                         .record_bytes = sizeof(IndexRecord),
                         .disk = {disk_uuid.words[0], disk_uuid.words[1]},
                         .generation = 9,
                         .records = records};
  seal(header, disk_uuid);
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof header);
  for (uint64_t i = 0; i < records; ++i) {
    IndexRecord record = record_of(i);
    seal(record, disk_format::record_seed(disk_uuid, IndexFileKind::snapshot, 9, i));
    bytes.append(reinterpret_cast<const char*>(&record), sizeof record);
  }
  write_file(folder / "snapshot", bytes);
  return folder / "snapshot";
}

void check_bit_flips(const std::string& path, IndexFileKind kind, int64_t records) {
  const std::string good = read_file(path);
  REQUIRE(accepted_of(path, kind) == records);
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  uint64_t wrong = 0;
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    const auto flipped = static_cast<char>(good[bit / 8] ^ (1 << bit % 8));
    REQUIRE(pwrite(fd, &flipped, 1, static_cast<off_t>(bit / 8)) == 1);
    const auto expected = static_cast<int64_t>(bit / 8 / sizeof(IndexRecord)) - 1;
    wrong += accepted_of(path, kind) != expected;
    REQUIRE(pwrite(fd, &good[bit / 8], 1, static_cast<off_t>(bit / 8)) == 1);
  }
  close(fd);
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("a log cut at any byte gives the records before the cut") {
  const TempFolder folder;
  constexpr uint64_t records = 2000;
  const std::string path = write_log(folder, records);
  uint64_t wrong = 0;
  for (uint64_t bytes = sizeof(IndexFileHeader) + records * sizeof(IndexRecord) + 1; bytes-- > 0;) {
    REQUIRE(truncate(path.c_str(), static_cast<off_t>(bytes)) == 0);
    const int64_t expected = static_cast<int64_t>(bytes / sizeof(IndexRecord)) - 1;
    wrong += accepted_of(path, IndexFileKind::log) != expected;
  }
  CHECK(wrong == 0);
}

TEST_CASE("every flipped bit of a log ends it before the record it is in") {
  const TempFolder folder;
  check_bit_flips(write_log(folder, 24), IndexFileKind::log, 24);
}

TEST_CASE("every flipped bit of a snapshot ends it before the record it is in") {
  const TempFolder folder;
  check_bit_flips(write_snapshot(folder, 24), IndexFileKind::snapshot, 24);
}

TEST_CASE("records of another disk, kind, generation or place are not accepted") {
  const TempFolder folder;
  const std::string path = write_log(folder, 10);
  CHECK(accepted_of(path, IndexFileKind::snapshot) == -1);
  CHECK(accepted_of(path, IndexFileKind::log, {{1, 2}}) == -1);
  const std::string good = read_file(path);
  // A record over its neighbour.
  std::string bad = good;
  bad.replace(64 * 4, 64, good, 64 * 5, 64);
  write_file(path, bad);
  CHECK(accepted_of(path, IndexFileKind::log) == 3);
  // The tail of an older file under a new one.
  const std::string newer = read_file(write_log(folder, 3, 6));
  write_file(path, newer + good.substr(newer.size()));
  CHECK(accepted_of(path, IndexFileKind::log) == 3);
}

TEST_CASE("a log that lost a record takes no more, until the next file, which says so") {
  const TempFolder folder;
  const int fd = open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DiskLog log({.index_fd = fd, .disk = disk_uuid, .records_max = 8});
  REQUIRE(log.switch_file(1, 0));
  for (uint64_t i = 0; i < 12; ++i) log.append(record_of(i));
  CHECK(log.lost_records());
  REQUIRE(log.flush());
  for (uint64_t i = 12; i < 14; ++i) log.append(record_of(i));
  REQUIRE(log.flush());
  CHECK(log.lost_records_count() == 6);
  CHECK(accepted_of(folder / disk_format::log_name(1), IndexFileKind::log) == 8);
  REQUIRE(log.switch_file(2, 0));
  CHECK(log.follows_gap());
  log.append(record_of(0));
  REQUIRE(log.flush());
  CHECK(accepted_of(folder / disk_format::log_name(2), IndexFileKind::log) == 1);
  close(fd);
}

TEST_CASE("a full disk ends a log in front of what did not fit") {
  const TempFolder folder;
  const int fd = open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DiskLog log({.index_fd = fd, .disk = disk_uuid});
  REQUIRE(log.switch_file(1, 0));
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{64 * 11 + 20, before.rlim_max};  // stands for the disk: the header and 10 records
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  for (uint64_t i = 0; i < 20; ++i) log.append(record_of(i));
  const Result<void> done = log.flush();
  setrlimit(RLIMIT_FSIZE, &before);
  REQUIRE_FALSE(done);
  CHECK(done.error().code == Code::full);
  CHECK(log.lost_records());
  for (uint64_t i = 20; i < 30; ++i) log.append(record_of(i));
  CHECK(log.flush());
  CHECK(accepted_of(folder / disk_format::log_name(1), IndexFileKind::log) == 10);
  close(fd);
}

}  // namespace blobcache
