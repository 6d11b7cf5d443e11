// What is fetched ahead of made-up and recorded readers, what of it is used, and what it costs when they stop.
#include "cache/window.h"

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "unit/cache/traces.h"

namespace blobcache {

namespace {

constexpr uint64_t KiB = limits::KiB;
constexpr uint64_t MiB = limits::MiB;
constexpr uint64_t GiB = limits::GiB;
constexpr uint64_t second_ns = 1'000'000'000;

uint64_t scan(Follower& follower, uint64_t from, uint64_t bytes, uint64_t request = MiB) {
  for (uint64_t at = from; at < from + bytes; at += request) follower.read({at, request});
  return from + bytes;
}

uint64_t ahead_bytes(const Follower& follower, uint64_t position) {
  return follower.fetched.common_bytes({position, follower.file_bytes - position});
}

// The header of tensors one after the other, as Python writes it.
std::string safetensors_header(std::span<const uint64_t> tensor_bytes) {
  std::string json;
  uint64_t at = 0;
  for (size_t i = 0; i < tensor_bytes.size(); ++i) {
    json += (i == 0 ? "{" : ", ") + std::string("\"layer.") + std::to_string(i) +
            "\": {\"dtype\": \"F32\", \"shape\": [" + std::to_string(tensor_bytes[i] / 4) + "], \"data_offsets\": [" +
            std::to_string(at) + ", " + std::to_string(at + tensor_bytes[i]) + "]}";
    at += tensor_bytes[i];
  }
  json += "}";
  json.resize((json.size() + 7) / 8 * 8, ' ');
  std::string length(8, '\0');
  for (unsigned i = 0; i < 8; ++i) length[i] = static_cast<char>(json.size() >> 8 * i & 255);
  return length + json;
}

std::string safetensors_header(unsigned count, uint64_t tensor_bytes) {
  return safetensors_header(std::vector<uint64_t>(count, tensor_bytes));
}

std::unique_ptr<Layout> layout_of(const std::string& header, uint64_t file_bytes) {
  const std::span<const uint8_t> head(reinterpret_cast<const uint8_t*>(header.data()), header.size());
  std::unique_ptr<Layout> layout = recognise_layout({.file_bytes = file_bytes, .head = head, .tail = {}});
  REQUIRE(layout != nullptr);
  REQUIRE(!layout->malformed());
  REQUIRE(layout->needs().empty());
  return layout;
}

// Row groups of columns of one size, from byte 4 on.
class Table : public Layout {
 public:
  Table(uint64_t file_bytes, unsigned groups, uint64_t group_bytes, unsigned columns, uint64_t column_bytes)
      : Layout(LayoutKind::parquet, file_bytes) {
    for (unsigned i = 0; i < groups * columns; ++i) {
      add_extent({4 + i / columns * group_bytes + i % columns * column_bytes, column_bytes});
    }
    settle_extents();
    lanes_ = columns;
  }

 private:
  void on_needed(std::span<const uint8_t>) override {}
};

}  // namespace

TEST_CASE("the window of a scan grows from 16 chunks to 64 while all of it is read, and no byte is wasted") {
  Follower follower(4 * GiB);
  scan(follower, 0, 16 * MiB);
  CHECK(follower.windows.window_bytes(0) == 64 * MiB);
  CHECK(ahead_bytes(follower, 16 * MiB) <= 64 * MiB);
  CHECK(ahead_bytes(follower, 16 * MiB) >= 32 * MiB);
  scan(follower, 16 * MiB, GiB);
  CHECK(follower.windows.window_bytes(0) == 256 * MiB);
  CHECK(ahead_bytes(follower, GiB + 16 * MiB) <= 256 * MiB);
  CHECK(ahead_bytes(follower, GiB + 16 * MiB) >= 128 * MiB);
  scan(follower, GiB + 16 * MiB, 3 * GiB - 16 * MiB);
  CHECK(follower.ready_bytes + 8 * MiB >= follower.read_bytes);
  CHECK(follower.wasted_bytes() == 0);
  CHECK(follower.windows.totals().unused_bytes == 0);
  follower.stop();
}

TEST_CASE("a window goes out in whole chunks, in file order, in few pieces") {
  Follower follower(4 * GiB);
  scan(follower, 0, 4 * GiB);
  uint64_t at = 0;
  for (size_t i = 0; i < follower.fetches.size(); ++i) {
    const ByteRange& range = follower.fetches[i].range;
    CHECK(range.offset >= at);
    at = range.end();
    if (i >= 4) CHECK(at % (4 * MiB) == 0);
  }
  // The largest window is 64 chunks, topped up by half: 128 MiB at a time.
  CHECK(follower.fetches.size() <= 4 * GiB / (128 * MiB) + 12);
}

TEST_CASE("a reader that stops in the middle of a 100 GiB file has cost one window at most") {
  for (const uint64_t read : {256 * KiB, 3 * MiB, 70 * MiB, 2 * GiB}) {
    CAPTURE(read);
    Follower follower(100 * GiB);
    scan(follower, 40 * GiB, read, 128 * KiB);
    const uint64_t window = follower.windows.window_bytes(0);
    CHECK(window <= 256 * MiB);
    CHECK(follower.wasted_bytes() <= window);
    CHECK(follower.wasted_bytes() <= 8 * read + 128 * KiB);  // the ramp: short readers cost little
    const uint64_t wasted = follower.wasted_bytes();
    follower.stop();
    CHECK(follower.windows.totals().unused_bytes == wasted);
    CHECK(follower.cancels.size() == 1);
    CHECK(follower.cancels[0].range.end() >= 40 * GiB + read + wasted);
  }
}

TEST_CASE("random reads of 4 KiB cause nothing") {
  Follower follower(GiB);
  uint64_t state = 1;
  for (int i = 0; i < 50'000; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    follower.read({(state >> 20) % (GiB / (4 * KiB)) * 4 * KiB, 4 * KiB});
  }
  CHECK(follower.fetches.empty());
}

TEST_CASE("the window of a small file is small in bytes") {
  Follower small(20 * MiB);
  small.read({0, 128 * KiB});
  small.read({128 * KiB, 128 * KiB});
  CHECK(small.windows.window_bytes(0) == 5 * MiB);
  scan(small, 256 * KiB, 20 * MiB - 256 * KiB, 128 * KiB);
  CHECK(small.wasted_bytes() == 0);
  CHECK(small.fetched.bytes() == 20 * MiB - 256 * KiB);
  Follower tiny(200 * KiB);
  tiny.read({0, 64 * KiB});
  tiny.read({64 * KiB, 64 * KiB});
  CHECK(tiny.fetched.bytes() == 200 * KiB - 128 * KiB);
}

TEST_CASE("a reader that leaves much of its window out has it halved, and halved again") {
  Follower follower(100 * GiB);
  uint64_t at = scan(follower, 0, 64 * MiB);
  const uint64_t before = follower.windows.window_bytes(0);
  // Short runs far apart: each stops well inside what was fetched for it.
  std::vector<uint64_t> waste;
  for (int run = 0; run < 40; ++run) {
    at += GiB + static_cast<uint64_t>(run % 7) * 331 * MiB;
    const uint64_t unused = follower.wasted_bytes();
    scan(follower, at, 8 * MiB);
    waste.push_back(follower.wasted_bytes() - unused);
  }
  CHECK(before == 64 * MiB);
  // What one run of 8 MiB costs in the end, against 56 MiB at first.
  CHECK(waste.front() >= 48 * MiB);
  CHECK(waste.back() <= 8 * MiB);
  // And a reader who reads on gets his window back.
  scan(follower, 99 * GiB, GiB);
  CHECK(ahead_bytes(follower, 100 * GiB - 4 * KiB) == 4 * KiB);
  const uint64_t read = follower.read_bytes;
  const uint64_t ready = follower.ready_bytes;
  scan(follower, 90 * GiB, GiB);
  CHECK(follower.ready_bytes - ready >= (follower.read_bytes - read) * 98 / 100);
}

TEST_CASE("skipped bytes are unused, given up, and canceled") {
  Follower follower(10 * GiB);
  uint64_t at = scan(follower, 0, 64 * MiB);
  for (const uint64_t gap : {2 * MiB, MiB, 2 * MiB, MiB + 512 * KiB, 2 * MiB, 512 * KiB, MiB}) {
    at = scan(follower, at + gap, MiB);
  }
  scan(follower, at, 16 * MiB);
  REQUIRE(!follower.cancels.empty());
  for (const WindowRange& cancel : follower.cancels) {
    CHECK(cancel.range.offset >= 64 * MiB);
    CHECK(cancel.range.end() <= at);
  }
  CHECK(follower.windows.window_bytes(0) < 64 * MiB);
  // Not before the file is closed: somebody may come for it.
  CHECK(follower.windows.totals().unused_bytes == 0);
  const uint64_t ahead = ahead_bytes(follower, at + 16 * MiB);
  follower.stop();
  CHECK(follower.windows.totals().unused_bytes == 10 * MiB + ahead);
}

TEST_CASE(
    "what a stream left behind is used by whoever reads it later, and unused when it is missing or fetched again") {
  Follower follower(10 * GiB);
  const uint64_t at = scan(follower, 0, 64 * MiB);
  scan(follower, at + 2 * MiB, 16 * MiB);
  const PrefetchWindows::Totals before = follower.windows.totals();
  CHECK(before.unused_bytes == 0);
  follower.windows.on_read({}, {at, 256 * KiB}, follower.budget, 0, &follower.plan);
  CHECK(follower.windows.totals().used_bytes == before.used_bytes + 256 * KiB);
  follower.windows.on_absent({at + 256 * KiB, 256 * KiB}, follower.budget);
  CHECK(follower.windows.totals().unused_bytes == 256 * KiB);
  follower.windows.on_fetched_again({at + 512 * KiB, 512 * KiB});
  CHECK(follower.windows.totals().unused_bytes == 768 * KiB);
  // Each of them once.
  follower.windows.on_read({}, {at, MiB}, follower.budget, 0, &follower.plan);
  CHECK(follower.windows.totals().used_bytes == before.used_bytes + 256 * KiB);
  follower.stop();
}

TEST_CASE("what is evicted unread counts as unused and shrinks the window") {
  Follower follower(10 * GiB);
  scan(follower, 0, 16 * MiB);
  REQUIRE(follower.windows.window_bytes(0) == 64 * MiB);
  const WindowRange last = follower.fetches.back();
  follower.windows.on_evicted(last, follower.budget);
  CHECK(follower.windows.totals().unused_bytes == last.range.bytes);
  CHECK(follower.windows.window_bytes(0) == 32 * MiB);
  follower.stop();
}

TEST_CASE("what was dropped is neither used nor unused, and leaves the budget once") {
  Follower follower(10 * GiB);
  scan(follower, 0, 16 * MiB);
  const uint64_t memory = follower.budget.memory_bytes();
  const WindowRange last = follower.fetches.back();
  follower.windows.on_dropped(last, follower.budget);
  CHECK(follower.budget.memory_bytes() == memory - last.granted_bytes);
  follower.windows.on_dropped(last, follower.budget);
  CHECK(follower.budget.memory_bytes() == memory - last.granted_bytes);
  // Of another reader than the one that asked: nothing.
  WindowRange stale = follower.fetches.front();
  stale.generation += 100;
  follower.windows.on_dropped(stale, follower.budget);
  CHECK(follower.budget.memory_bytes() == memory - last.granted_bytes);
  scan(follower, 16 * MiB, 128 * MiB);
  CHECK(follower.windows.totals().unused_bytes == 0);
  follower.windows.stop(follower.budget, &follower.plan);
  CHECK(follower.budget.memory_bytes() == 0);
}

TEST_CASE("backward and strided readers are fetched for where they go, and only there") {
  Follower backward(GiB);
  for (uint64_t at = 512 * MiB; at > 0; at -= MiB) backward.read({at - MiB, MiB});
  CHECK(backward.ready_bytes + 8 * MiB >= backward.read_bytes);
  CHECK(backward.wasted_bytes() == 0);
  CHECK(backward.fetched.common_bytes({512 * MiB, 512 * MiB}) == 0);
  backward.stop();

  Follower strided(100 * GiB);
  for (uint64_t record = 0; record < 500; ++record) strided.read({record * 100 * MiB + 12 * KiB, 100 * KiB});
  CHECK(strided.ready_bytes >= strided.read_bytes * 97 / 100);
  for (const WindowRange& fetch : strided.fetches) {
    CHECK(fetch.range.bytes == 128 * KiB);
    CHECK(fetch.range.offset % (100 * MiB) == 0);
  }
  strided.stop();
}

TEST_CASE("two streams have a window each, and the end of one cancels only its own") {
  Follower follower(100 * GiB);
  for (uint64_t i = 0; i < 32; ++i) {
    follower.read({i * MiB, MiB});
    follower.read({50 * GiB + i * MiB, MiB});
  }
  CHECK(follower.windows.window_bytes(0) == 64 * MiB);
  CHECK(follower.windows.window_bytes(1) == 64 * MiB);
  for (uint64_t i = 32; i < 140; ++i) {
    follower.read({50 * GiB + i * MiB, MiB});
    follower.read({90 * GiB - i * i * 7 * MiB, 4 * KiB});
  }
  REQUIRE(follower.cancels.size() == 1);
  CHECK(follower.cancels[0].range.offset >= 32 * MiB);
  CHECK(follower.cancels[0].range.end() <= 96 * MiB);
  CHECK(follower.windows.window_bytes(0) == 0);
  CHECK(follower.windows.window_bytes(1) > 0);
}

TEST_CASE("the budget: demand first, then what memory and bandwidth allow, in whole units") {
  PrefetchBudget budget({.in_flight_bytes_max = 64 * MiB, .memory_bytes_max = 96 * MiB, .bandwidth_bytes = 160 * MiB});
  CHECK(budget.try_acquire({.bytes = 6 * MiB, .unit_bytes = 4 * MiB}, second_ns) == 4 * MiB);
  budget.begin_demand(56 * MiB);
  CHECK(budget.try_acquire({.bytes = 8 * MiB, .unit_bytes = 4 * MiB}, second_ns) == 4 * MiB);
  CHECK(budget.try_acquire({.bytes = 8 * MiB, .unit_bytes = 4 * MiB}, second_ns) == 0);
  budget.begin_demand(100 * MiB);  // more than there is: still nothing
  CHECK(budget.try_acquire({.bytes = 8 * MiB, .unit_bytes = 4 * MiB}, second_ns) == 0);
  budget.end_demand(156 * MiB);
  // 16 MiB at once, then 160 MiB a second.
  CHECK(budget.try_acquire({.bytes = 64 * MiB, .unit_bytes = 4 * MiB}, second_ns) == 8 * MiB);
  CHECK(budget.try_acquire({.bytes = 64 * MiB, .unit_bytes = MiB}, second_ns + second_ns / 20) == 8 * MiB);
  CHECK(budget.in_flight_bytes() == 24 * MiB);
  budget.on_landed(24 * MiB);
  CHECK(budget.memory_bytes() == 24 * MiB);
  uint64_t held = 24 * MiB;
  for (uint64_t now = 2; now < 10; ++now) {
    const uint64_t granted = budget.try_acquire({.bytes = 16 * MiB, .unit_bytes = MiB}, now * second_ns);
    budget.on_landed(granted);
    held += granted;
  }
  CHECK(held == 96 * MiB);
  budget.leave(held);
  CHECK(budget.memory_bytes() == 0);
}

TEST_CASE("the budget: the bandwidth may change while it is used") {
  PrefetchBudget budget({.in_flight_bytes_max = 1024 * MiB, .memory_bytes_max = 1024 * MiB});
  const auto take = [&](uint64_t now_ns) { return budget.try_acquire({.bytes = 64 * MiB, .unit_bytes = MiB}, now_ns); };
  CHECK(take(second_ns) == 64 * MiB);
  budget.set_bandwidth(100 * MiB);
  uint64_t granted = 0;
  for (uint64_t now = 1; now <= 11; ++now) granted += take(now * second_ns / 10 + second_ns);
  // What may come at once, and a second of it.
  CHECK(granted >= 100 * MiB);
  CHECK(granted <= 100 * MiB + 2 * limits::chunk_bytes_max);
  budget.set_bandwidth(0);
  CHECK(take(3 * second_ns) == 64 * MiB);
  CHECK(take(3 * second_ns) == 64 * MiB);
}

TEST_CASE("without budget nothing is fetched, and the stream goes on when there is some") {
  Follower follower(10 * GiB);
  follower.budget.begin_demand(GiB);
  scan(follower, 0, 16 * MiB);
  CHECK(follower.fetches.empty());
  follower.budget.end_demand(GiB);
  scan(follower, 16 * MiB, MiB);
  CHECK(follower.fetched.bytes() >= 60 * MiB);
  follower.stop();
}

TEST_CASE("whatever readers do, and whatever becomes of the fetches, nothing is lost from the budget") {
  uint64_t state = 7;
  const auto random = [&state](uint64_t limit) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 20) % limit;
  };
  for (const uint64_t size : {300 * KiB, 40 * MiB, 3 * GiB, 200 * GiB + 12345}) {
    CAPTURE(size);
    Follower follower(size);
    uint64_t at[6] = {};
    int64_t direction[6] = {};
    for (int i = 0; i < 20'000; ++i) {
      const uint64_t reader = random(6);
      if (random(200) == 0 || at[reader] >= size) {  // it goes elsewhere, and another way
        at[reader] = random(size);
        direction[reader] = static_cast<int64_t>(random(5)) - 1;
      }
      const uint64_t bytes = std::min<uint64_t>(1 + random(256 * KiB), size - at[reader]);
      follower.read({at[reader], bytes});
      at[reader] +=
          static_cast<uint64_t>(direction[reader] * static_cast<int64_t>(direction[reader] > 1 ? 3 * MiB : bytes));
      if (!follower.fetches.empty() && random(10) == 0) {
        const WindowRange& fetch =
            follower.fetches[follower.fetches.size() - 1 - random(std::min<uint64_t>(follower.fetches.size(), 5))];
        if (random(2) == 0) {
          follower.windows.on_dropped(fetch, follower.budget);
        } else {
          follower.windows.on_evicted(fetch, follower.budget);
        }
      }
      const PrefetchWindows::Totals& totals = follower.windows.totals();
      CHECK(totals.asked_bytes >= totals.used_bytes + totals.unused_bytes + follower.budget.memory_bytes());
      // Four windows, and what lies a little behind four readers.
      CHECK(follower.budget.memory_bytes() <= 4 * (256 + 64) * MiB);
    }
    CHECK(!follower.fetches.empty());
    follower.windows.stop(follower.budget, &follower.plan);
    CHECK(follower.budget.memory_bytes() == 0);
    CHECK(follower.budget.in_flight_bytes() == 0);
  }
}

TEST_CASE("who reads one tensor has no other fetched for him, and who reads one after the other has them all") {
  constexpr uint64_t tensor = 32 * MiB;
  const std::string header = safetensors_header(40, tensor);
  const uint64_t file_bytes = header.size() + 40 * tensor;
  const std::unique_ptr<Layout> layout = layout_of(header, file_bytes);
  const auto start_of = [&](uint64_t index) { return header.size() + index * tensor; };
  Follower follower(file_bytes);
  follower.set_layout(*layout);
  // All of one, and what the kernel reads beyond.
  scan(follower, start_of(7), tensor + MiB);
  CHECK(ahead_bytes(follower, start_of(8)) <= 64 * KiB);
  CHECK(follower.ready_bytes >= tensor - 4 * MiB);
  // On into the next one: that, and nothing behind it.
  scan(follower, start_of(8) + MiB, 8 * MiB);
  CHECK(ahead_bytes(follower, start_of(8)) >= 16 * MiB);
  CHECK(ahead_bytes(follower, start_of(9)) <= 64 * KiB);
  scan(follower, start_of(8) + 9 * MiB, 2 * tensor);
  CHECK(ahead_bytes(follower, start_of(11)) >= 32 * MiB);
  follower.stop();
}

// Touches as a copy of the C library does, out of a mapping of which the kernel reads 512 KiB around a fault.
struct Mapping {
  static constexpr uint64_t tensor = 6 * MiB;
  static constexpr uint64_t around = 256 * KiB;

  std::string header = safetensors_header(40, tensor);
  std::unique_ptr<Layout> layout = layout_of(header, header.size() + 40 * tensor);
  PiecesRead pieces{*layout};

  uint64_t start_of(uint64_t index) const { return header.size() + index * tensor; }
  bool touch(uint64_t offset) {
    const uint64_t page = offset / (4 * KiB) * (4 * KiB);
    return pieces.on_read({page - around, 2 * around});
  }
  bool touch_start(uint64_t index) { return touch(start_of(index)); }
  bool touch_end(uint64_t index) { return touch(start_of(index + 1) - 1); }
  void read(uint64_t index) {
    touch_start(index);
    touch_end(index);
    for (uint64_t at = start_of(index) + 3 * around; at + around < start_of(index + 1); at += 2 * around) touch(at);
  }
};

TEST_CASE("pieces: a touch of the first page says where the reader goes, one of the last page does not") {
  Mapping mapping;
  CHECK(mapping.touch_start(7));
  CHECK(mapping.pieces.unread_end(7) == UINT64_MAX);
  CHECK(mapping.pieces.unread_end(6) >= mapping.start_of(7) - Mapping::around - 4 * KiB);
  CHECK(mapping.pieces.unread_end(6) <= mapping.start_of(7) - Mapping::around + 4 * KiB);
  CHECK_FALSE(mapping.touch_end(7));
  CHECK(mapping.pieces.unread_end(7) < mapping.start_of(8));
  CHECK(mapping.touch_start(20));
  // Again, so its pages were lost.
  mapping.touch_start(7);
  CHECK(mapping.pieces.unread_end(7) == UINT64_MAX);
}

TEST_CASE("pieces: who had the first page from its neighbour is known by his second touch") {
  Mapping eighth;
  Mapping ninth;
  for (Mapping* mapping : {&eighth, &ninth}) {
    mapping->read(7);
    mapping->read(20);
    // The end of the eighth, whose start came with the end of the seventh, or the start of the ninth?
    CHECK_FALSE(mapping->touch_end(8));
  }
  CHECK(eighth.touch(eighth.start_of(8) + 3 * Mapping::around));
  CHECK_FALSE(eighth.touch(eighth.start_of(8) + 5 * Mapping::around));
  CHECK_FALSE(ninth.touch_end(9));
  CHECK_FALSE(ninth.touch(ninth.start_of(9) + 3 * Mapping::around));
}

TEST_CASE("pieces: read(2) begins with the first page, so nothing before it has come") {
  Mapping mapping;
  const ByteRange read{mapping.start_of(7) / (4 * KiB) * (4 * KiB), 512 * KiB};
  CHECK(mapping.pieces.on_read(read));
  CHECK(mapping.pieces.unread_end(6) == UINT64_MAX);
}

TEST_CASE("who faults at the start of a tensor has the end of it fetched first") {
  constexpr uint64_t tensor = 4 * MiB;
  const std::string header = safetensors_header(40, tensor);
  const uint64_t file_bytes = header.size() + 40 * tensor;
  const std::unique_ptr<Layout> layout = layout_of(header, file_bytes);
  Follower follower(file_bytes);
  follower.set_layout(*layout);
  const uint64_t start = header.size() + 20 * tensor;
  follower.read({start / (4 * KiB) * (4 * KiB) - 256 * KiB, 512 * KiB});
  REQUIRE(follower.fetches.size() == 2);
  CHECK(follower.fetches[0].range.offset <= start + tensor - 256 * KiB);
  CHECK(follower.fetches[0].range.end() >= start + tensor + 128 * KiB);
  CHECK(follower.fetches[1].range.end() == follower.fetches[0].range.offset);
  CHECK(follower.fetches[1].range.offset <= start + 256 * KiB);
  follower.stop();
}

TEST_CASE("a layout that is learned late bounds what is fetched from then on") {
  const std::string header = safetensors_header(40, 32 * MiB);
  const uint64_t file_bytes = header.size() + 40 * 32 * MiB;
  const std::unique_ptr<Layout> layout = layout_of(header, file_bytes);
  Follower follower(file_bytes);
  scan(follower, 64 * MiB + 512 * KiB, MiB);
  follower.set_layout(*layout);
  scan(follower, 65 * MiB + 512 * KiB, 30 * MiB);
  CHECK(ahead_bytes(follower, header.size() + 96 * MiB) <= 64 * KiB);
  follower.stop();
}

TEST_CASE("recorded: a mapped model whose header is known is fetched tensor by tensor") {
  constexpr uint64_t tensor = 6 * MiB + 12288;
  const std::string header = safetensors_header((511 * MiB) / tensor, tensor);
  for (const char* name : {"mapped_copy_order", "mapped_copy_shuffled"}) {
    CAPTURE(name);
    const Trace trace = load_trace(name);
    const std::unique_ptr<Layout> layout = layout_of(header, header.size() + (511 * MiB) / tensor * tensor);
    Follower follower(trace.size);
    follower.set_layout(*layout);
    follower.follow(trace);
    CHECK(follower.ready_bytes * 100 >= follower.read_bytes * 70);
    CHECK(follower.wasted_bytes() * 100 <= follower.read_bytes);
    follower.stop();
    CHECK(follower.windows.totals().unused_bytes * 100 <= follower.read_bytes);
  }
}

// Processors differ: one copies large pieces with one instruction, from their start to their end, another touches the last page
// first. Small tensors lie between the large ones: the kernel reads the starts of these with them.
TEST_CASE("recorded: a mapped model of small and large tensors") {
  struct Expected {
    const char* name;
    unsigned ready_percent_min;
    unsigned unused_percent_max;
  };
  std::vector<uint64_t> tensors;
  for (unsigned i = 0; i < 10; ++i) tensors.insert(tensors.end(), {6 * MiB + 12288, 8192, 9 * MiB, 8192});
  for (const Expected& expected : {Expected{"mapped_forward_shuffled", 70, 2}, Expected{"mapped_tails_shuffled", 70, 2},
                                   Expected{"mapped_tails_order", 95, 1}}) {
    CAPTURE(expected.name);
    const Trace trace = load_trace(expected.name);
    const std::unique_ptr<Layout> layout = layout_of(safetensors_header(tensors), trace.size);
    Follower follower(trace.size);
    follower.set_layout(*layout);
    follower.follow(trace);
    CHECK(follower.ready_bytes * 100 >= follower.read_bytes * expected.ready_percent_min);
    CHECK(follower.wasted_bytes() * 100 <= follower.read_bytes);
    follower.stop();
    CHECK(follower.windows.totals().unused_bytes * 100 <= follower.read_bytes * expected.unused_percent_max);
  }
}

TEST_CASE("recorded readers: what is ready when they ask, and what is wasted") {
  struct Expected {
    const char* name;
    unsigned ready_percent_min;
    unsigned wasted_percent_max;  // of what was read
  };
  const Expected table[] = {
      {"cp", 99, 0},
      {"dd_1m", 96, 0},
      {"fio_seq", 99, 0},
      {"tac", 99, 0},
      {"tar_x", 99, 0},
      {"fio_stride", 80, 0},
      {"torch_zip", 98, 0},
      {"torch_load", 90, 0},
      {"webdataset", 99, 0},
      {"safetensors_numpy", 95, 1},
      {"safetensors_numpy_shuffled", 65, 1},
      {"safetensors_torch", 98, 1},
      {"safetensors_mmap_order", 99, 3},  // the header says that the last 1.75 MiB are no tensor
      {"safetensors_mmap_shuffled", 85, 4},
      {"mapped_copy_order", 96, 2},
      {"mapped_copy_shuffled", 80, 3},
      {"loader_16", 35, 3},  // 4 of 16 streams at a time
      {"sqlite_scan", 97, 4},
      {"sqlite_point", 0, 1},
      {"fio_rand", 0, 0},
      {"mmap_random", 0, 0},
      {"parquet_duckdb", 25, 171},  // as below, and each column chunk is 1 MiB only
      {"parquet_columns", 88,
       36},  // three columns are taken for scans before the stride shows; the footer knows better
  };
  for (const Expected& expected : table) {
    CAPTURE(expected.name);
    const Trace trace = load_trace(expected.name);
    Follower follower(trace.size);
    follower.follow(trace);
    CHECK(follower.ready_bytes * 100 >= follower.read_bytes * expected.ready_percent_min);
    CHECK(follower.wasted_bytes() * 100 <= follower.read_bytes * expected.wasted_percent_max + 99);
    follower.stop();
  }
}

TEST_CASE("lanes: two columns of a table, foretold by its footer, and little else") {
  const Trace trace = load_trace("parquet_columns");
  const uint64_t column = 32 * MiB / 12 / (4 * KiB) * (4 * KiB);
  const Table table(trace.size, 23, 32 * MiB, 12, column);
  Follower follower(trace.size);
  follower.set_layout(table);
  follower.follow(trace);
  CHECK(follower.ready_bytes * 100 >= follower.read_bytes * 93);
  CHECK(follower.wasted_bytes() * 100 <= follower.read_bytes);
  follower.stop();
}

TEST_CASE("lanes: reads are whole pages, columns are not") {
  const uint64_t column = 1'300'000;
  const uint64_t bytes = 4 + 120 * column + 1000;
  const Table table(bytes, 12, 10 * column, 10, column);
  Follower follower(bytes);
  follower.set_layout(table);
  for (unsigned group = 0; group < 12; ++group) {
    for (const unsigned wanted : {2u, 7u}) {
      const uint64_t begin = 4 + (group * 10 + wanted) * column;
      for (uint64_t at = begin; at < begin + column; at += 256 * KiB) {
        const uint64_t low = at / (4 * KiB) * (4 * KiB);
        const uint64_t high = (std::min(at + 256 * KiB, begin + column) + 4 * KiB - 1) / (4 * KiB) * (4 * KiB);
        follower.read({low, high - low});
      }
    }
  }
  CHECK(follower.ready_bytes * 100 >= follower.read_bytes * 85);
  CHECK(follower.wasted_bytes() * 100 <= follower.read_bytes * 3);
  follower.stop();
  CHECK(follower.windows.totals().unused_bytes * 100 <= follower.read_bytes * 3);
}

TEST_CASE("lanes: who stops has cost five chunks a column, and who reads row groups here and there nothing") {
  const uint64_t column = 64 * MiB;
  const Table table(23 * 8 * column + 100, 23, 8 * column, 8, column);
  Follower follower(23 * 8 * column + 100);
  follower.set_layout(table);
  for (unsigned group = 0; group < 3; ++group) scan(follower, 4 + group * 8 * column, group < 2 ? column : MiB);
  CHECK(follower.wasted_bytes() <= 5 * 4 * MiB + 2 * 64 * KiB);
  follower.stop();

  Follower sparse(23 * 8 * column + 100);
  sparse.set_layout(table);
  for (const unsigned group : {1u, 9u, 4u, 20u, 13u}) scan(sparse, 4 + group * 8 * column, column, 256 * KiB);
  CHECK(sparse.wasted_bytes() <= 2 * MiB);
  sparse.stop();
}

TEST_CASE("lanes: a table that is read as a whole is a scan") {
  const uint64_t column = 2 * MiB;
  const uint64_t bytes = 4 + 10 * 6 * column + 100;
  const Table table(bytes, 10, 6 * column, 6, column);
  Follower follower(bytes);
  follower.set_layout(table);
  scan(follower, 0, 10 * 6 * column, 128 * KiB);
  CHECK(follower.ready_bytes * 100 >= follower.read_bytes * 90);
  CHECK(follower.wasted_bytes() < 64 * KiB);
  CHECK(std::none_of(follower.fetches.begin(), follower.fetches.end(),
                     [](const WindowRange& fetch) { return fetch.stream == WindowRange::lane_stream; }));
  follower.stop();
}

TEST_CASE("foretold: the beginning of a file that nobody has opened, used as it is read, unused when it is not") {
  Follower follower(200 * MiB);
  follower.windows.foretell(24 * MiB + 1, follower.budget, 0, &follower.plan);
  REQUIRE(follower.plan.fetch_count == 1);
  const WindowRange told = follower.plan.fetches[0];
  CHECK(told.range == ByteRange{0, 24 * MiB + 64 * KiB});
  CHECK(follower.budget.memory_bytes() == told.granted_bytes);
  follower.fetched.add(told.range);
  follower.budget.on_landed(told.granted_bytes);
  scan(follower, 0, 8 * MiB);
  CHECK(follower.windows.totals().used_bytes >= 8 * MiB);
  CHECK(follower.ready_bytes == 8 * MiB);
  follower.stop();
  CHECK(follower.windows.totals().unused_bytes >= 16 * MiB);

  Follower unread(MiB);
  unread.windows.foretell(MiB, unread.budget, 0, &unread.plan);
  unread.budget.on_landed(unread.plan.fetches[0].granted_bytes);
  unread.stop();
  CHECK(unread.windows.totals().unused_bytes == MiB);
}

TEST_CASE("foretold: no more than the budget has") {
  Follower follower(GiB);
  PrefetchBudget small({.in_flight_bytes_max = 4 * MiB, .memory_bytes_max = 4 * MiB});
  follower.windows.foretell(64 * MiB, small, 0, &follower.plan);
  REQUIRE(follower.plan.fetch_count == 1);
  CHECK(follower.plan.fetches[0].range == ByteRange{0, 4 * MiB});
  WindowPlan more;
  Follower next(GiB);
  next.windows.foretell(64 * MiB, small, 0, &more);
  CHECK(more.fetch_count == 0);
}

TEST_CASE("the end of a file is in sight of who reads it in order, not of others") {
  Follower follower(512 * MiB);
  scan(follower, 0, 256 * MiB);
  CHECK(follower.windows.window_at_end() == 0);
  scan(follower, 256 * MiB, 224 * MiB);
  CHECK(follower.windows.window_at_end() == 256 * MiB);

  Follower tail(512 * MiB);
  scan(tail, 480 * MiB, 32 * MiB);
  CHECK(tail.windows.window_at_end() == 0);

  Follower backward(64 * MiB);
  for (uint64_t at = 64 * MiB; at > 0; at -= MiB) backward.read({at - MiB, MiB});
  CHECK(backward.windows.window_at_end() == 0);

  Follower random(64 * MiB);
  uint64_t number = 1;
  for (unsigned i = 0; i < 100'000; ++i) {
    number = number * 6364136223846793005 + 1442695040888963407;
    random.read({(number >> 33) % (64 * MiB / (4 * KiB)) * 4 * KiB, 4 * KiB});
    REQUIRE(random.windows.window_at_end() == 0);
  }
}

}  // namespace blobcache
