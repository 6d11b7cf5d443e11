// The simulator's own promises: the same seed gives the same run, operations end out of order, each fault does what
// ring/sim.h says. That its opcodes behave like the kernel's is tests/ring_conformance.
#include "ring/sim.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include <fcntl.h>

#include <doctest/doctest.h>

#include "ring/sqe.h"
#include "unit/base/death.h"

namespace blobcache {
namespace {

constexpr uint32_t always = 1'000'000;

std::vector<std::byte> bytes_of(size_t count) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(i % 251);
  return bytes;
}

std::vector<uint64_t> order_of_reads(uint64_t seed, uint64_t* ended_ns) {
  SimWorld world({.seed = seed});
  world.files().add_file("/file", bytes_of(100'000));
  const auto ring = world.create_ring(128, 128);
  const int fd = world.open("/file", O_RDONLY);
  std::vector<char> memory(100 * 1000);
  for (uint64_t i = 0; i < 100; ++i) {
    Sqe* sqe = ring->get_sqe();
    prep_read(*sqe, FileRef::fd(fd), memory.data() + i * 1000, {.offset = i * 1000, .bytes = 1000});
    sqe->user_data = i;
  }
  std::vector<uint64_t> order;
  while (order.size() < 100) {
    ring->submit_and_wait(Ring::wait_forever);
    Cqe cqe{};
    while (ring->reap(std::span(&cqe, 1)) == 1) order.push_back(cqe.user_data);
  }
  *ended_ns = world.now_ns();
  return order;
}

TEST_CASE("a seed reproduces the order and the time of every completion; another gives another") {
  uint64_t first_ns = 0;
  uint64_t second_ns = 0;
  uint64_t other_ns = 0;
  const auto first = order_of_reads(42, &first_ns);
  CHECK(first == order_of_reads(42, &second_ns));
  CHECK(first_ns == second_ns);
  CHECK(first != order_of_reads(43, &other_ns));
  CHECK(!std::is_sorted(first.begin(), first.end()));
}

struct FaultyFile {
  explicit FaultyFile(const SimFaults& faults, uint64_t seed = 9) : world({.seed = seed, .slow_factor = 1000}) {
    SimNode& node = world.files().add_file("/file", bytes_of(64 * 1024));
    node.faults = faults;
    ring = world.create_ring(8, 8);
    fd = world.open("/file", O_RDWR);
  }
  int32_t run() {
    ring->submit_and_wait(Ring::wait_forever);
    Cqe cqe{};
    REQUIRE(ring->reap(std::span(&cqe, 1)) == 1);
    return cqe.result;
  }
  int32_t read(uint64_t offset, uint32_t count) {
    prep_read(*ring->get_sqe(), FileRef::fd(fd), memory, {.offset = offset, .bytes = count});
    return run();
  }
  int32_t write(uint64_t offset, uint32_t count) {
    std::memset(memory, 0xff, sizeof memory);
    prep_write(*ring->get_sqe(), FileRef::fd(fd), memory, {.offset = offset, .bytes = count});
    return run();
  }
  const std::vector<std::byte>& stored() { return world.files().find("/file")->bytes; }
  // Which bytes of the file are no longer what they were: the first and one past the last; {0, 0}: none.
  std::pair<size_t, size_t> changed() {
    const std::vector<std::byte> before = bytes_of(64 * 1024);
    std::pair<size_t, size_t> range{0, 0};
    for (size_t i = 0; i < before.size(); ++i) {
      if (stored()[i] == before[i]) continue;
      if (range.second == 0) range.first = i;
      range.second = i + 1;
    }
    return range;
  }
  SimWorld world;
  std::unique_ptr<Ring> ring;
  int fd = -1;
  std::byte memory[16 * 1024];
};

TEST_CASE("errors, and transfers that stop short") {
  CHECK(FaultyFile({.read_error_ppm = always}).read(0, 4096) == -EIO);
  FaultyFile failing({.write_error_ppm = always});
  CHECK(failing.write(0, 4096) == -EIO);
  CHECK(failing.changed().second == 0);
  FaultyFile shorter({.short_read_ppm = always});
  const int32_t got = shorter.read(0, 4096);
  CHECK(got > 0);
  CHECK(got < 4096);
  FaultyFile partial({.short_write_ppm = always});
  const int32_t put = partial.write(0, 4096);
  CHECK(put > 0);
  CHECK(put < 4096);
  CHECK(partial.changed().second == static_cast<size_t>(put));
  SimWorld world({.faults = {.open_error_ppm = always}});
  world.files().add_file("/file", {});
  CHECK(world.open("/file", O_RDONLY) == -EIO);
}

TEST_CASE("a slow operation takes a thousand times its time") {
  FaultyFile quick({});
  FaultyFile slow({.slow_ppm = always});
  const uint64_t start_ns = quick.world.now_ns();
  CHECK(quick.read(0, 4096) == 4096);
  CHECK(slow.read(0, 4096) == 4096);
  CHECK(quick.world.now_ns() - start_ns <= 120'000);
  CHECK(slow.world.now_ns() - start_ns >= 20'000'000);
}

TEST_CASE("a bit that flips stays flipped") {
  FaultyFile file({.bit_flip_ppm = always});
  CHECK(file.read(4096, 4096) == 4096);
  const auto [first, end] = file.changed();
  CHECK(end == first + 1);
  CHECK(first >= 4096);
  CHECK(end <= 8192);
  CHECK(std::memcmp(file.memory, file.stored().data() + 4096, 4096) == 0);
}

TEST_CASE("writes that lie: lost, torn, misdirected") {
  FaultyFile lost({.lost_write_ppm = always});
  CHECK(lost.write(0, 4096) == 4096);
  CHECK(lost.changed().second == 0);
  bool some_part = false;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    FaultyFile torn({.torn_write_ppm = always}, seed);
    CHECK(torn.write(0, 4096) == 4096);
    const size_t end = torn.changed().second;
    CHECK(end < 4096);
    CHECK((end + 1) % 512 <= 1);  // the last byte of a sector may have been 0xff before
    some_part |= end > 0;
    FaultyFile misdirected({.misdirected_write_ppm = always}, seed);
    CHECK(misdirected.write(8192, 4096) == 4096);
    const auto [first, last] = misdirected.changed();
    CHECK(first / 4096 != 2);
    CHECK(last - first <= 4096);
    CHECK(last > first);
  }
  CHECK(some_part);
}

struct EchoDevice : SimDevice {
  void on_command(const SimCommand& command) override {
    tokens.push_back(command.token);
    std::memcpy(&first_word, command.area.data(), sizeof first_word);
    last_op = command.cmd_op;
  }
  int32_t on_read(std::span<const iovec> to) override {
    if (waiting.empty()) return -EAGAIN;
    const size_t count = std::min(waiting.size(), to[0].iov_len);
    std::memcpy(to[0].iov_base, waiting.data(), count);
    waiting.clear();
    return static_cast<int32_t>(count);
  }
  int32_t on_write(std::span<const iovec> from) override {
    int32_t bytes = 0;
    for (const iovec& part : from) bytes += static_cast<int32_t>(part.iov_len);
    return bytes;
  }
  std::vector<uint64_t> tokens;
  uint64_t first_word = 0;
  uint32_t last_op = 0;
  std::string waiting;
};

TEST_CASE("a device gets commands with their 80 bytes and completes them when it likes") {
  SimWorld world({.seed = 1});
  EchoDevice device;
  const auto ring = world.create_ring(8, 8);
  const FileRef file = FileRef::fd(world.open_device(device, O_RDWR));
  for (uint64_t i = 1; i <= 2; ++i) {
    Sqe* sqe = ring->get_sqe();
    auto* area = static_cast<std::byte*>(prep_uring_cmd(*sqe, file, static_cast<uint32_t>(i)));
    const uint64_t word = 100 + i;
    std::memcpy(area, &word, sizeof word);
    sqe->user_data = i;
  }
  ring->submit_and_wait(1'000'000);
  Cqe cqe{};
  CHECK(ring->reap(std::span(&cqe, 1)) == 0);
  REQUIRE(device.tokens.size() == 2);
  CHECK(device.first_word == 100 + device.last_op);
  world.complete_command(device.tokens[1], 55);
  ring->submit_and_wait(Ring::wait_forever);
  REQUIRE(ring->reap(std::span(&cqe, 1)) == 1);
  CHECK(cqe.result == 55);
  char to[8];
  prep_read(*ring->get_sqe(), file, to, {.offset = 0, .bytes = 8});
  ring->submit_and_wait(1'000'000);
  CHECK(ring->reap(std::span(&cqe, 1)) == 0);
  device.waiting = "request";
  world.device_ready();
  ring->submit_and_wait(Ring::wait_forever);
  REQUIRE(ring->reap(std::span(&cqe, 1)) == 1);
  CHECK(cqe.result == 7);
}

TEST_CASE("waiting for ever for what nobody will do is an error of the test") {
  CHECK(blobcache_test::dies_of_assertion("timeout_ns >= 0", [] {
    SimWorld world({.seed = 1});
    world.create_ring(8, 8)->submit_and_wait(Ring::wait_forever);
  }));
}

}  // namespace
}  // namespace blobcache
