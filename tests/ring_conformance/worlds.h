// KernelWorld and SimulatedWorld: the same small world twice, for the cases of this suite.
//   A world has a directory tree of its own with root() as its descriptor, sockets, and rings.
//   Lifetime  the rings made from it go first
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "ring/ring.h"
#include "ring/sim.h"
#include "ring/sqe.h"

namespace blobcache_test {

using blobcache::Cqe;
using blobcache::FileRef;
using blobcache::Ring;
using blobcache::Sqe;

class KernelWorld {
 public:
  KernelWorld();
  ~KernelWorld();
  KernelWorld(const KernelWorld&) = delete;
  KernelWorld& operator=(const KernelWorld&) = delete;

  std::unique_ptr<Ring> make_ring(unsigned sqes = 64, unsigned cqes = 256);
  int root() const { return root_; }
  std::string absolute(const std::string& name) const { return path_ + "/" + name; }
  void add_file(const std::string& name, const std::string& bytes);
  void add_directory(const std::string& name);
  void add_symlink(const std::string& name, const std::string& target);
  std::string content(const std::string& name);
  int open(const std::string& name, int flags);
  void close(int fd);
  void pair(int (&ends)[2]);
  int listen();
  int connect(int listener);
  void send(int fd, const std::string& bytes);

 private:
  std::string path_;
  int root_ = -1;
};

class SimulatedWorld {
 public:
  SimulatedWorld();

  std::unique_ptr<Ring> make_ring(unsigned sqes = 64, unsigned cqes = 256) { return world_.create_ring(sqes, cqes); }
  int root() const { return root_; }
  std::string absolute(const std::string& name) const { return "/tree/" + name; }
  void add_file(const std::string& name, const std::string& bytes);
  void add_directory(const std::string& name) { world_.files().add_directory(absolute(name)); }
  void add_symlink(const std::string& name, const std::string& target);
  std::string content(const std::string& name);
  int open(const std::string& name, int flags) { return world_.open(absolute(name), flags); }
  void close(int fd) { world_.close(fd); }
  void pair(int (&ends)[2]) { world_.socket_pair(ends); }
  int listen() { return world_.listen(); }
  int connect(int listener) { return world_.connect(listener); }
  void send(int fd, const std::string& bytes) { world_.send(fd, std::as_bytes(std::span(bytes))); }

 private:
  blobcache::SimWorld world_;
  int root_ = -1;
};

// A second ring that somebody else waits on: in the kernel on a thread of its own.
template <class World>
class OtherRing;

template <>
class OtherRing<KernelWorld> {
 public:
  explicit OtherRing(KernelWorld& world);
  int fd() const { return fd_; }
  // The first `count` CQEs that came to it.
  std::vector<Cqe> wait(unsigned count);

 private:
  struct Shared;
  int fd_ = -1;
  unsigned wanted_ = 0;
  std::shared_ptr<Shared> shared_;
  std::thread thread_;
};

// Prepares nothing, waits until count CQEs have come (or five seconds), in the order they came.
std::vector<Cqe> collect(Ring& ring, unsigned count);

template <>
class OtherRing<SimulatedWorld> {
 public:
  explicit OtherRing(SimulatedWorld& world) : ring_(world.make_ring()) {}
  int fd() const { return ring_->fd(); }
  std::vector<Cqe> wait(unsigned count) { return collect(*ring_, count); }

 private:
  std::unique_ptr<Ring> ring_;
};

// The next SQE with its user_data set.
Sqe& next_sqe(Ring& ring, uint64_t user_data);

// Prepares one SQE, submits it, and returns its result; -1000000 when no CQE came.
template <class Prepare>
int32_t run_one(Ring& ring, Prepare prepare) {
  prepare(next_sqe(ring, 4711));
  const std::vector<Cqe> cqes = collect(ring, 1);
  return cqes.size() == 1 && cqes[0].user_data == 4711 ? cqes[0].result : -1'000'000;
}

// The result that came for user_data; -1000000 when none did.
int32_t result_of(const std::vector<Cqe>& cqes, uint64_t user_data);

}  // namespace blobcache_test
