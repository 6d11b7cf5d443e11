// The inside of SimWorld, for ring/sim*.cc only. The contract is ring/sim.h.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <random>
#include <string>
#include <vector>

#include "base/limits.h"
#include "ring/sim.h"
#include "ring/sqe.h"

namespace blobcache {

class SimRing;

struct SimSocket {
  std::deque<std::byte> incoming;
  SimSocket* peer = nullptr;  // null: closed, or a listener
  bool listener = false;
  std::deque<SimSocket*> backlog;
};

// What descriptors, registered files and operations under way refer to.
struct SimOpenFile {
  unsigned references = 0;
  int flags = 0;
  SimNode* node = nullptr;
  SimSocket* socket = nullptr;
  SimDevice* device = nullptr;
};

struct SimSqe {
  io_uring_sqe head;
  std::byte tail[64];
};
static_assert(sizeof(SimSqe) == 128);

struct SimOp {
  SimRing* ring = nullptr;
  uint64_t token = 0;
  SimSqe sqe{};
  std::string path;  // copied at submission, like how and iovecs
  open_how how{};
  std::vector<iovec> iovecs;
  SimOpenFile* file = nullptr;  // from its start
  uint64_t next_token = 0;      // the next member of its chain
  uint64_t bytes_done = 0;      // of a RECV or SEND with MSG_WAITALL
  bool parked = false;          // waits for something to change
  bool commanded = false;       // its device has it
};

struct SimState {
  explicit SimState(const SimOptions& options_of_world)
      : options(options_of_world), random(options_of_world.seed), files(options_of_world.faults) {}

  struct Due {
    uint64_t at_ns;
    uint64_t sequence;
    uint64_t token;
    bool commanded;
    int32_t result;
    bool operator>(const Due& other) const {
      return at_ns != other.at_ns ? at_ns > other.at_ns : sequence > other.sequence;
    }
  };

  const SimOptions options;
  std::mt19937_64 random;
  uint64_t now_ns = 1'000'000'000;
  uint64_t last_token = 0;
  uint64_t last_sequence = 0;
  int last_fd = 1'000'000;  // far from real descriptors, so that a mix-up is EBADF in both worlds
  bool changed = false;     // something a parked operation may wait for
  SimCounters counters;
  SimFiles files;
  std::map<int, SimOpenFile*> descriptors;
  std::vector<std::unique_ptr<SimOpenFile>> open_files;
  std::vector<std::unique_ptr<SimSocket>> sockets;
  std::map<int, SimRing*> rings;
  std::map<uint64_t, std::unique_ptr<SimOp>> ops;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due;

  // sim.cc: time and the life of an operation
  bool chance(uint32_t ppm);
  uint64_t between(uint64_t low, uint64_t high) { return low + random() % (high - low + 1); }
  void start(SimOp& op);
  void finish(SimOp& op, int32_t result);
  void drop(SimOp& op);
  void run_due(const Due& event);
  void retry_parked();
  bool run_next();
  SimOp* find_op(uint64_t token);

  // sim.cc: descriptors
  int add_descriptor(SimOpenFile* file);
  SimOpenFile* make_open_file();
  SimSocket* make_socket();
  void release(SimOpenFile* file);
  int close(int fd);
  SimOpenFile* find_descriptor(int fd);

  // sim_ops.cc: what the opcodes do. nothing: the operation cannot end yet.
  static constexpr int32_t nothing = -0x7fffffff;
  int32_t execute(SimOp& op);
  int32_t open(SimNode& from, const std::string& path, const open_how& how);
  int32_t transfer(SimOp& op, bool to_memory);
  int32_t read_file(SimNode& node, std::span<const iovec> to, uint64_t offset);
  int32_t write_file(SimNode& node, std::span<const iovec> from, uint64_t offset);
  int32_t statx(SimOp& op);
  int32_t cancel(SimOp& op);
  int32_t message(SimOp& op);
  int32_t poll(SimOp& op);
  int32_t accept(SimOp& op);
  int32_t receive(SimOp& op);
  int32_t send(SimOp& op);
  int32_t command(SimOp& op);
};

class SimRing final : public Ring {
 public:
  SimRing(SimState& state, int fd, unsigned sqes, unsigned cqes)
      : state_(state), fd_(fd), sqes_max_(sqes), cqes_max_(cqes), prepared_(sqes) {}
  ~SimRing() override;

  Sqe* get_sqe() override;
  unsigned sqes_free() const override { return sqes_max_ - prepared_count_; }
  void submit() override;
  void submit_and_wait(int64_t timeout_ns) override;
  unsigned reap(std::span<Cqe> cqes) override;
  uint64_t now_ns() override { return state_.now_ns; }
  int fd() const override { return fd_; }
  Result<void> register_file(unsigned index, int file_fd) override;
  Result<void> register_buffer(unsigned index, iovec buffer) override;

  void post(const Cqe& cqe);
  SimOpenFile* find_file(const io_uring_sqe& sqe);
  bool within_buffer(unsigned index, uint64_t address, uint64_t bytes) const;

 private:
  SimState& state_;
  const int fd_;
  const unsigned sqes_max_;
  const unsigned cqes_max_;
  std::vector<SimSqe> prepared_;
  unsigned prepared_count_ = 0;
  std::deque<Cqe> completed_;
  SimOpenFile* files_[limits::ring_files_max] = {};
  iovec buffers_[limits::ring_buffers_max] = {};
};

}  // namespace blobcache
