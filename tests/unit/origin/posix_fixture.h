// A tree of real files, an origin over it, and one core with the kernel's ring.
//   Thread    one
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "origin/posix.h"
#include "ring/uring.h"

namespace blobcache_test {

using namespace blobcache;

inline void require(bool condition, std::string_view what) {
  if (!condition) throw std::runtime_error(std::string(what) + ": errno " + std::to_string(errno));
}

class Tree {
 public:
  Tree() {
    char name[] = "/tmp/unit_origin.XXXXXX";
    require(::mkdtemp(name) != nullptr, "mkdtemp");
    path_ = name;
  }
  ~Tree() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;

  std::string at(std::string_view key) const { return path_ + "/" + std::string(key); }
  const std::string& path() const { return path_; }
  void write(std::string_view key, std::string_view bytes, int flags = O_TRUNC) const {
    const int fd = ::open(at(key).c_str(), O_WRONLY | O_CREAT | flags, 0644);
    require(fd >= 0 && ::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()), "write");
    ::close(fd);
  }
  void make_directory(std::string_view key) const { require(::mkdir(at(key).c_str(), 0755) == 0, "mkdir"); }
  struct stat stat(std::string_view key) const {
    struct stat found;
    require(::lstat(at(key).c_str(), &found) == 0, "lstat");
    return found;
  }

 private:
  std::string path_;
};

// A call that knows when it has ended, and how often.
template <class Call>
struct Waited : Call {
  Waited() {
    this->on_done = [](OriginCall& call) { ++static_cast<Waited&>(static_cast<Call&>(call)).times_done; };
  }
  int times_done = 0;
};

class Machine {
 public:
  static constexpr unsigned cqes = 4096;

  explicit Machine(const std::string& root, uint64_t young_ns = 1, unsigned blocking_threads = 2,
                   uint64_t bandwidth_bytes = 0) {
    auto ring = create_uring({.sqes = 256, .cqes = cqes});
    require(ring.has_value(), "create_uring");
    reactor = std::make_unique<Reactor>(std::move(*ring), ReactorOptions{.cqes = cqes});
    auto created = create_posix_origin(
        {.root = root, .blocking_threads = blocking_threads, .young_ns = young_ns, .bandwidth_bytes = bandwidth_bytes});
    require(created.has_value(), "create_posix_origin");
    origin = std::move(*created);
  }
  ~Machine() {
    origin->stop();
    settle();
    if (!origin->join(60'000)) std::abort();
  }

  template <class Call>
  void wait(Waited<Call>& call) {
    while (call.times_done == 0) reactor->turn(true);
  }
  // Until every close has happened.
  void settle() {
    while (reactor->cqes_owed() > 0) reactor->turn(true);
  }

  std::unique_ptr<Waited<LookupCall>> lookup(std::string_view key) {
    auto call = std::make_unique<Waited<LookupCall>>();
    call->key = key;
    origin->begin_lookup(*reactor, *call);
    wait(*call);
    return call;
  }
  std::unique_ptr<Waited<OpenCall>> open(std::string_view key) {
    auto call = std::make_unique<Waited<OpenCall>>();
    call->key = key;
    origin->begin_open(*reactor, *call);
    wait(*call);
    return call;
  }
  struct ReadOptions {
    uint64_t offset = 0;
    uint32_t bytes = 0;
  };
  struct Bytes {
    Waited<ReadCall> call;
    std::string bytes;
  };
  std::unique_ptr<Bytes> read(const OpenCall& opened, ReadOptions options) {
    std::unique_ptr<Bytes> read = begin_read(opened, options);
    wait(read->call);
    return read;
  }
  std::unique_ptr<Bytes> begin_read(const OpenCall& opened, ReadOptions options) {
    auto read = std::make_unique<Bytes>();
    read->bytes.assign(options.bytes, '\xee');
    read->call.version = opened.info.version;
    read->call.fd = opened.fd;
    read->call.offset = options.offset;
    read->call.bytes = options.bytes;
    read->call.to = reinterpret_cast<std::byte*>(read->bytes.data());
    origin->begin_read(*reactor, read->call);
    return read;
  }
  void close(OpenCall& opened) {
    origin->close(*reactor, opened.fd);
    opened.fd = -1;
  }

  std::unique_ptr<Reactor> reactor;
  std::unique_ptr<Origin> origin;
};

inline size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

// Runs body as another user in a child process; what it returns, or -1. body must not use doctest.
template <class Body>
int run_as_stranger(Body body) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(100);
    ::_exit(body());
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

}  // namespace blobcache_test
