// What the pattern says of readers: made-up ones at their limits, and recorded ones.
#include "cache/pattern.h"

#include <atomic>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "unit/cache/traces.h"

namespace blobcache {

namespace {

constexpr uint64_t KiB = limits::KiB;
constexpr uint64_t MiB = limits::MiB;
constexpr uint64_t GiB = limits::GiB;
constexpr uint64_t second_ns = 1'000'000'000;

struct Reader {
  AccessPattern pattern;
  PatternOptions options;
  uint64_t now_ns = second_ns;
  uint64_t state = 1;

  Pattern read(uint64_t offset, uint64_t bytes) { return pattern.on_read(offset, bytes, now_ns, options); }
  uint64_t random(uint64_t limit) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 20) % limit;
  }
};

struct Seen {
  unsigned unknown = 0;
  unsigned random = 0;
  unsigned forward = 0;
  unsigned backward = 0;
  unsigned strided = 0;
  unsigned changed = 0;
  unsigned streams() const { return forward + backward + strided; }
};

Seen follow(const std::string& name) {
  Reader reader;
  Seen seen;
  for (const ByteRange& read : load_trace(name).reads) {
    const Pattern pattern = reader.read(read.offset, read.bytes);
    seen.unknown += pattern.kind == PatternKind::unknown;
    seen.random += pattern.kind == PatternKind::random;
    seen.forward += pattern.kind == PatternKind::forward;
    seen.backward += pattern.kind == PatternKind::backward;
    seen.strided += pattern.kind == PatternKind::strided;
    seen.changed += pattern.changed;
  }
  return seen;
}

}  // namespace

TEST_CASE("two adjacent reads make a forward stream, which is said once to be new") {
  Reader reader;
  CHECK(reader.read(10 * MiB, 128 * KiB).kind == PatternKind::unknown);
  const Pattern second = reader.read(10 * MiB + 128 * KiB, 128 * KiB);
  CHECK(second.kind == PatternKind::forward);
  CHECK(second.changed);
  CHECK(second.stream < Pattern::streams_max);
  CHECK(second.position == 10 * MiB + 256 * KiB);
  const Pattern third = reader.read(10 * MiB + 256 * KiB, 128 * KiB);
  CHECK(third.kind == PatternKind::forward);
  CHECK(!third.changed);
  CHECK(third.stream == second.stream);
  CHECK(third.confidence > second.confidence);
}

TEST_CASE("trigger_reads decides how many reads must agree") {
  for (const uint32_t trigger : {1u, 2u, 5u, 20u}) {
    Reader reader;
    reader.options.trigger_reads = trigger;
    for (uint32_t i = 1; i <= trigger + 2; ++i) {
      CAPTURE(i);
      const Pattern pattern = reader.read((i - 1) * MiB, MiB);
      CHECK((pattern.kind == PatternKind::forward) == (i >= trigger));
    }
  }
}

TEST_CASE("a gap of up to max_gap is adjacent, a wider one is not") {
  for (const uint64_t gap : {64 * KiB, MiB, 2 * MiB, 2 * MiB + 4 * KiB, 8 * MiB}) {
    CAPTURE(gap);
    Reader reader;
    reader.read(0, 256 * KiB);
    const bool forward = reader.read(256 * KiB + gap, 256 * KiB).kind == PatternKind::forward;
    CHECK(forward == (gap <= reader.options.max_gap_bytes));
  }
  SUBCASE("nor one that is many times what is read") {
    Reader reader;
    reader.read(0, 4 * KiB);
    CHECK(reader.read(MiB, 4 * KiB).kind == PatternKind::unknown);
  }
}

TEST_CASE("a reader from the end to the start is backward, and may turn round at any time") {
  Reader reader;
  uint64_t at = 100 * MiB;
  for (int i = 0; i < 10; ++i) {
    at -= 128 * KiB;
    const Pattern pattern = reader.read(at, 128 * KiB);
    CHECK(pattern.kind == (i == 0 ? PatternKind::unknown : PatternKind::backward));
    if (i > 0) CHECK(pattern.position == at);
  }
  unsigned reads = 0;
  for (at = 100 * MiB; ++reads < 10; at += 128 * KiB) {
    const Pattern pattern = reader.read(at, 128 * KiB);
    if (pattern.kind == PatternKind::forward && pattern.position == at + 128 * KiB) break;
  }
  CHECK(reads <= 8);
}

TEST_CASE("a stride is known at the third record, however wide, in either direction, with records in pieces") {
  for (const int64_t stride : {int64_t(MiB), int64_t(64 * MiB), int64_t(3 * GiB), -int64_t(64 * MiB)}) {
    CAPTURE(stride);
    Reader reader;
    uint64_t at = 100 * GiB;
    for (int record = 0; record < 6; ++record, at += stride) {
      const Pattern pattern = reader.read(at, 32 * KiB);
      if (record < 2) continue;
      CHECK(pattern.kind == PatternKind::strided);
      CHECK(pattern.stride_bytes == stride);
      CHECK(pattern.position == at);
      CHECK(pattern.record_bytes == 32 * KiB);
      CHECK(pattern.changed == (record == 2));
    }
  }
  SUBCASE("pieces") {
    Reader reader;
    for (uint64_t record = 0; record < 6; ++record) {
      for (uint64_t piece = 0; piece < 8; ++piece) {
        const Pattern pattern = reader.read(record * 64 * MiB + piece * 128 * KiB, 128 * KiB);
        if (record < 2) continue;
        CHECK(pattern.kind == PatternKind::strided);
        CHECK(pattern.stride_bytes == 64 * MiB);
        CHECK(pattern.position == record * 64 * MiB);
        CHECK(pattern.record_bytes == MiB);
      }
    }
  }
  SUBCASE("and a strided reader that reads on is forward") {
    Reader reader;
    for (uint64_t record = 0; record < 5; ++record) reader.read(record * 64 * MiB, 128 * KiB);
    Pattern pattern;
    unsigned reads = 0;
    for (; pattern.kind != PatternKind::forward && reads < 10; ++reads) {
      pattern = reader.read(256 * MiB + (reads + 1) * 128 * KiB, 128 * KiB);
    }
    CHECK(reads <= 4);
    CHECK(pattern.changed);
  }
}

TEST_CASE("requests that overtake each other are one stream") {
  Reader reader;
  // Eight in flight, which arrive in an order that changes from one eight to the next.
  const unsigned orders[3][8] = {{0, 2, 1, 3, 5, 4, 7, 6}, {1, 0, 3, 2, 4, 6, 5, 7}, {3, 0, 1, 2, 7, 4, 6, 5}};
  unsigned new_streams = 0;
  for (unsigned round = 0; round < 30; ++round) {
    for (const unsigned i : orders[round % 3]) {
      const Pattern pattern = reader.read((round * 8 + i) * 128 * KiB, 128 * KiB);
      new_streams += pattern.changed;
      CHECK(pattern.ended == 0);
      if (round > 0) CHECK(pattern.kind == PatternKind::forward);
    }
  }
  CHECK(new_streams == 1);
}

TEST_CASE("sixteen interleaved readers are all known, and four of them are followed") {
  Reader reader;
  uint64_t at[16];
  unsigned reads[16] = {};
  for (unsigned i = 0; i < 16; ++i) at[i] = reader.random(1000) * GiB;
  unsigned followed = 0;
  for (unsigned turn = 0; turn < 16 * 40; ++turn) {
    const unsigned thread = static_cast<unsigned>(reader.random(16));
    const Pattern pattern = reader.read(at[thread], 128 * KiB);
    at[thread] += 128 * KiB;
    if (++reads[thread] < 8) continue;
    CHECK(pattern.kind == PatternKind::forward);
    CHECK(pattern.position == at[thread]);
    if (pattern.stream != Pattern::no_stream) followed |= 1u << thread;
  }
  CHECK(__builtin_popcount(followed) >= 4);
  CHECK(__builtin_popcount(followed) <= 6);  // a thread that is quiet for long gives its place away
}

TEST_CASE("random reads are no stream") {
  for (const uint64_t bytes : {4 * KiB, 128 * KiB}) {
    CAPTURE(bytes);
    Reader reader;
    unsigned named = 0;
    unsigned random = 0;
    for (unsigned i = 0; i < 100'000; ++i) {
      const Pattern pattern = reader.read(reader.random(GiB / (4 * KiB)) * 4 * KiB, bytes);
      named += pattern.stream != Pattern::no_stream;
      random += pattern.kind == PatternKind::random;
    }
    CHECK(named == 0);
    CHECK(random > 90'000);
  }
}

TEST_CASE("a change is followed within a few reads, both ways") {
  Reader reader;
  for (uint64_t i = 0; i < 100; ++i) reader.read(i * 128 * KiB, 128 * KiB);
  unsigned ended_after = 0;
  for (unsigned i = 1; i <= 200; ++i) {
    const Pattern pattern = reader.read(GiB + reader.random(100 * GiB / (4 * KiB)) * 4 * KiB, 4 * KiB);
    CHECK(pattern.stream == Pattern::no_stream);
    if (pattern.ended != 0 && ended_after == 0) ended_after = i;
    if (i > 16) CHECK(pattern.kind == PatternKind::random);
  }
  CHECK(ended_after > 0);
  CHECK(ended_after <= 70);
  unsigned reads = 0;
  while (reader.read(50 * GiB + reads * 128 * KiB, 128 * KiB).kind != PatternKind::forward) REQUIRE(++reads < 10);
}

TEST_CASE("a stream lives among random reads of others") {
  Reader reader;
  for (uint64_t i = 0; i < 8; ++i) reader.read(i * MiB, MiB);
  for (uint64_t i = 8; i < 300; ++i) {
    for (unsigned k = 0; k < 20; ++k) reader.read(GiB + reader.random(100 * GiB / (4 * KiB)) * 4 * KiB, 4 * KiB);
    const Pattern pattern = reader.read(i * MiB, MiB);
    CHECK(pattern.kind == PatternKind::forward);
    CHECK(!pattern.changed);
  }
}

TEST_CASE("what idled for 30 seconds is forgotten, and what it was fetched for is said to have ended") {
  Reader reader;
  reader.read(0, MiB);
  const Pattern before = reader.read(MiB, MiB);
  REQUIRE(before.kind == PatternKind::forward);
  SUBCASE("not yet") {
    reader.now_ns += 30 * second_ns;
    const Pattern pattern = reader.read(2 * MiB, MiB);
    CHECK(pattern.kind == PatternKind::forward);
    CHECK(pattern.ended == 0);
  }
  SUBCASE("now") {
    reader.now_ns += 30 * second_ns + 1;
    const Pattern pattern = reader.read(2 * MiB, MiB);
    CHECK(pattern.kind == PatternKind::unknown);
    CHECK(pattern.ended == 1u << before.stream);
    CHECK(reader.read(3 * MiB, MiB).changed);
  }
}

TEST_CASE("cores that meet decline, and the stream is found all the same") {
  AccessPattern pattern;
  const PatternOptions options;
  std::atomic<uint64_t> next{0};
  std::atomic<unsigned> known{0};
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 5000; ++k) {
        const uint64_t offset = next.fetch_add(128 * KiB);
        known += pattern.on_read(offset, 128 * KiB, second_ns, options).kind == PatternKind::forward;
      }
    });
  }
  threads.clear();
  CHECK(known > 1000);
  // Whatever happened between them, a single reader is followed now.
  Pattern last;
  for (int i = 0; i < 12; ++i) last = pattern.on_read(next.fetch_add(128 * KiB), 128 * KiB, second_ns, options);
  CHECK(last.kind == PatternKind::forward);
}

TEST_CASE("absurd offsets are declined") {
  Reader reader;
  for (int i = 0; i < 3; ++i) CHECK(reader.read(UINT64_MAX - 10, 5).kind == PatternKind::unknown);
  CHECK(reader.read(0, UINT64_MAX).kind == PatternKind::unknown);
}

TEST_CASE("recorded: readers from start to end are one forward stream from their second read on") {
  for (const char* name : {"cp", "dd_1m", "dd_4k_head", "fio_seq", "tar_x", "safetensors_mmap_order"}) {
    CAPTURE(name);
    const Seen seen = follow(name);
    CHECK(seen.unknown == 1);
    CHECK(seen.streams() == seen.forward);
    CHECK(seen.random == 0);
    CHECK(seen.changed == 1);
  }
}

TEST_CASE("what was touched ahead of a stream is passed over by it, and equal distances of it are no stride") {
  Reader reader;
  uint64_t at = 0;
  for (unsigned tensor = 0; tensor < 20; ++tensor) {
    const uint64_t tail = (tensor + 1) * 6 * MiB - 256 * KiB;
    Pattern pattern;
    for (unsigned i = 0; at < tail; ++i, at += 512 * KiB) {
      if (i == 1) reader.read(tail, 512 * KiB);
      pattern = reader.read(at, std::min(512 * KiB, tail - at));
      if (tensor == 0 && i == 0) continue;
      CAPTURE(at);
      CHECK(pattern.kind == PatternKind::forward);
      CHECK(pattern.stream == 0);
      CHECK(pattern.changed == (tensor == 0 && i == 1));
    }
    at = tail + 512 * KiB;
  }
}

TEST_CASE("who reads one place after the other has a stream in each, however many they are") {
  Reader reader;
  for (unsigned place = 0; place < 50; ++place) {
    const uint64_t start = place * 37 % 50 * GiB;
    unsigned streams = 0;
    for (uint64_t at = 0; at < 16 * MiB; at += MiB)
      streams += reader.read(start + at, MiB).stream != Pattern::no_stream;
    CAPTURE(place);
    CHECK(streams >= 12);
  }
}

TEST_CASE("recorded: tac is backward, a strided fio job strided") {
  const Seen tac = follow("tac");
  CHECK(tac.unknown == 1);
  CHECK(tac.streams() == tac.backward);
  CHECK(tac.changed == 1);
  const Seen strided = follow("fio_stride");
  CHECK(strided.unknown == 2);
  CHECK(strided.streams() == strided.strided);
  CHECK(strided.changed == 1);
}

TEST_CASE("recorded: random readers have no stream") {
  for (const char* name : {"fio_rand", "mmap_random"}) {
    CAPTURE(name);
    CHECK(follow(name).streams() == 0);
  }
  const Seen points = follow("sqlite_point");
  CHECK(points.streams() * 20 < points.random + points.unknown);
}

TEST_CASE("recorded: readers of parts are in a stream most of the time") {
  for (const char* name : {"loader_16", "torch_zip", "sqlite_scan", "safetensors_mmap_shuffled", "parquet_columns"}) {
    CAPTURE(name);
    const Seen seen = follow(name);
    CHECK((seen.random + seen.unknown) * 10 < seen.streams());
  }
  CHECK(follow("parquet_columns").strided > 100);
}

}  // namespace blobcache
