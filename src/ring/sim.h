// SimWorld and its rings: the kernel's side of ring/ring.h in virtual time, from a seed.
//   Owner     a test. Thread: one; several rings of one world are turned by turns
//   Lifetime  the world outlives its rings
//   Time      stands still while code runs and moves to the next completion while a ring waits; see run_next()
//   Same seed, same calls: same completions in the same order.
//   Opcodes   those of ring/sqe.h; tests/ring_conformance runs one suite over this and the kernel
//
// Completions. Every submission that is not behind a link starts at once and takes effect after a latency drawn from the
// seed, so independent ones end out of order. Its effect (bytes copied, file opened) happens at its end, as late as the
// kernel may. Members of a chain run one after the other; one that fails, or reads or writes less than asked, cancels the
// rest. What cannot go on (an empty socket, a poll) waits until something changes.
//
// Faults, each with a chance per operation on a regular file (sim_faults.h; the world's default or the file's own):
//   open error    OPENAT2 answers -EIO.
//   read error, write error   -EIO; nothing is transferred.
//   short read    fewer bytes than asked for and there, at least one; the caller may ask for the rest.
//   short write   a prefix is stored, and said so.
//   slow          the operation takes slow_factor times its latency: a disk in trouble, a hung server.
//   bit flip      one bit of the range rots in the file for good, then the read succeeds with it.
//   torn write    success is reported, only a prefix of whole 512-byte sectors is stored.
//   lost write    success is reported, nothing is stored.
//   misdirected write   success is reported, the bytes are stored at another 4 KiB-aligned place of the same file.
// Not simulated: memory that turns bad, a kernel that breaks its own rules, CQEs that get lost.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "ring/ring.h"
#include "ring/sim_faults.h"
#include "ring/sim_files.h"

namespace blobcache {

struct SimOptions {
  uint64_t seed = 1;
  uint64_t latency_ns_min = 20'000;  // of one operation on a file
  uint64_t latency_ns_max = 120'000;
  uint64_t slow_factor = 1000;
  SimFaults faults;                 // of files added later
  uint32_t message_full_ppm = 0;    // MSG_RING answers -EOVERFLOW: the other ring is full
  size_t socket_bytes = 64 * 1024;  // what a socket holds before its sender waits
};

// One URING_CMD as submitted. token names it until SimWorld::complete_command.
struct SimCommand {
  uint64_t token = 0;
  uint32_t cmd_op = 0;
  const void* address = nullptr;
  uint32_t length = 0;
  std::span<const std::byte> area;  // the 80 bytes; valid during on_command
};

// A driver behind a descriptor (/dev/fuse). Its completions come through the world, so they have latencies too.
class SimDevice {
 public:
  virtual ~SimDevice() = default;
  virtual void on_command(const SimCommand& command) = 0;
  // READ and WRITE, also vectored. A count or a negative errno; -EAGAIN: nothing there, wait for device_ready().
  virtual int32_t on_read(std::span<const iovec> to) = 0;
  virtual int32_t on_write(std::span<const iovec> from) = 0;
};

struct SimCounters {
  uint64_t ops = 0;
  uint64_t faults = 0;
  uint64_t cqes_overflowed = 0;  // kept, as the kernel does, but the CQ was full
};

struct SimState;

class SimWorld {
 public:
  explicit SimWorld(const SimOptions& options);
  ~SimWorld();

  std::unique_ptr<Ring> create_ring(unsigned sqes, unsigned cqes);
  SimFiles& files();

  // Descriptors of this world; negative errno when it cannot be.
  int open(std::string_view path, int flags);
  void socket_pair(int (&ends)[2]);
  int listen();
  int connect(int listener);
  // With O_NONBLOCK in flags a read answers -EAGAIN where it would wait.
  int open_device(SimDevice& device, int flags);
  void close(int fd);
  // The other side of a socket, without a ring.
  void send(int fd, std::span<const std::byte> bytes);

  void complete_command(uint64_t token, int32_t result);
  void device_ready();

  uint64_t now_ns() const;
  // Moves time to the next completion and lets it happen; false when nothing is under way.
  bool run_next();
  const SimCounters& counters() const;

 private:
  std::unique_ptr<SimState> state_;
};

}  // namespace blobcache
