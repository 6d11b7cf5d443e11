// When a disk is read and written, by what is told of it.
#include "cache/disk_health.h"

#include <cerrno>

#include <doctest/doctest.h>

#include "cache/disk_files.h"
#include "cache/disk_reads.h"

namespace blobcache {

namespace {

constexpr uint64_t second = DiskHealth::second_ns;

}  // namespace

TEST_CASE("three read errors within ten seconds are too many, slower ones are not") {
  DiskHealth slow("disk");
  for (uint64_t i = 1; i < 20; ++i) slow.on_read_error(EIO, i * 6 * second);
  CHECK(slow.state() == DiskState::ok);
  DiskHealth health("disk");
  health.on_read_error(EIO, 100 * second);
  health.on_read_error(EIO, 101 * second);
  CHECK(health.state() == DiskState::ok);
  health.on_read_error(EIO, 109 * second);
  CHECK(health.state() == DiskState::down);
  CHECK(!health.why().empty());
}

TEST_CASE("a read that fails because the filesystem is read-only does not take the disk from its readers") {
  DiskHealth health("disk");
  for (unsigned i = 0; i < DiskHealth::read_errors_max; ++i) health.on_read_error(EROFS, (100 + i) * second);
  CHECK(health.state() == DiskState::degraded);
}

TEST_CASE("two good probes in a row bring a disk back, and none while it stands still") {
  DiskHealth health("disk");
  health.on_write_error(EIO, 10 * second);
  CHECK(health.state() == DiskState::degraded);
  CHECK(!health.wants_probe(11 * second));
  CHECK(health.wants_probe(12 * second));
  health.on_probe(true, 0, 12 * second);
  CHECK(!health.wants_probe(13 * second));
  health.on_probe(false, EIO, 14 * second);
  health.on_probe(true, 0, 16 * second);
  CHECK(health.state() == DiskState::degraded);
  health.on_stuck("a read did not end", 17 * second);
  CHECK(health.state() == DiskState::down);
  health.on_probe(true, 0, 19 * second);
  health.on_probe(true, 0, 21 * second);
  CHECK(health.state() == DiskState::down);
  health.on_moving();
  health.on_probe(true, 0, 23 * second);
  health.on_probe(true, 0, 25 * second);
  CHECK(health.state() == DiskState::ok);
  CHECK(health.why().empty());
}

TEST_CASE("a full disk is written to again after a second, unless it fails otherwise meanwhile") {
  DiskHealth health("disk");
  health.on_write_error(ENOSPC, 10 * second);
  CHECK(health.state() == DiskState::degraded);
  CHECK(!health.wants_probe(20 * second));
  health.tick(10 * second + second / 2);
  CHECK(health.state() == DiskState::degraded);
  health.tick(11 * second);
  CHECK(health.state() == DiskState::ok);
  health.on_write_error(EROFS, 12 * second);
  health.on_write_error(ENOSPC, 12 * second);
  health.tick(20 * second);
  CHECK(health.state() == DiskState::degraded);
}

TEST_CASE("reads are waited for, those that began before, on any core") {
  DiskReads reads(2);
  const auto all_ended = [&](unsigned disk) {
    DiskReads::Wait wait;
    return reads.wait(disk, 1, wait);
  };
  CHECK(all_ended(0));
  const unsigned phase = reads.enter(5, 1);
  CHECK(all_ended(0));
  CHECK(!all_ended(1));
  CHECK(reads.in_flight(1) == 1);
  const unsigned verifying = reads.enter(DiskReads::verifier_line, 1);
  reads.leave(5, 1, phase);
  CHECK(!all_ended(1));
  reads.leave(DiskReads::verifier_line, 1, verifying);
  CHECK(all_ended(1));
  CHECK(reads.in_flight(1) == 0);
  CHECK(reads.ended(1) == 2);
}

TEST_CASE("a wait ends on a disk that is never without a read") {
  DiskReads reads(1);
  DiskReads::Wait wait;
  unsigned last = reads.enter(0, 0);
  unsigned rounds = 0;
  // Each read ends only when the next one has begun.
  while (!reads.wait(0, 1, wait) && ++rounds < 10) {
    const unsigned next = reads.enter(0, 0);
    reads.leave(0, 0, last);
    last = next;
  }
  CHECK(rounds <= 2);
  reads.leave(0, 0, last);
}

TEST_CASE("unused files stay open up to a number, the longest unused is closed first") {
  DiskFiles files(2);
  DiskFile* made[4];
  for (uint64_t i = 0; i < 4; ++i) {
    made[i] = new DiskFile();
    made[i]->id = {{i + 1, i + 1}};
    made[i]->references.store(1);
    files.publish(*made[i]);
  }
  for (int i : {0, 1}) files.release(*made[i]);
  CHECK(files.find({{1, 1}}) == made[0]);  // used again: the second is the longest unused
  for (int i : {2, 3}) files.release(*made[i]);
  CHECK(files.find({{2, 2}}) == nullptr);
  DiskFile* closing = files.take_closing();
  CHECK(closing == made[1]);
  CHECK(files.take_closing() == nullptr);
  delete closing;
  // One that nobody finds any more lives as long as somebody refers to it.
  files.retire(*made[0]);
  CHECK(files.find({{1, 1}}) == nullptr);
  CHECK(files.take_closing() == nullptr);
  files.release(*made[0]);
  CHECK(files.take_closing() == made[0]);
  delete made[0];
}

}  // namespace blobcache
