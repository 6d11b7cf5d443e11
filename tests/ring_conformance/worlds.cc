#include "ring_conformance/worlds.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <sstream>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include "ring/uring.h"

namespace blobcache_test {
namespace {

constexpr int64_t patience_ns = 5'000'000'000;

std::unique_ptr<Ring> create_kernel_ring(unsigned sqes, unsigned cqes) {
  blobcache::Result<std::unique_ptr<Ring>> ring = blobcache::create_uring({.sqes = sqes, .cqes = cqes});
  REQUIRE_MESSAGE(ring.has_value(), "this machine gives no io_uring, errno ", ring.error().os_errno);
  return std::move(*ring);
}

}  // namespace

KernelWorld::KernelWorld() {
  path_ = (std::filesystem::temp_directory_path() / "ring-conformance.XXXXXX").string();
  REQUIRE(mkdtemp(path_.data()) != nullptr);
  root_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  REQUIRE(root_ >= 0);
}

KernelWorld::~KernelWorld() {
  ::close(root_);
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::unique_ptr<Ring> KernelWorld::make_ring(unsigned sqes, unsigned cqes) { return create_kernel_ring(sqes, cqes); }

void KernelWorld::add_file(const std::string& name, const std::string& bytes) {
  std::ofstream(absolute(name), std::ios::binary) << bytes;
}
void KernelWorld::add_directory(const std::string& name) { std::filesystem::create_directory(absolute(name)); }
void KernelWorld::add_symlink(const std::string& name, const std::string& target) {
  std::filesystem::create_symlink(target, absolute(name));
}
std::string KernelWorld::content(const std::string& name) {
  std::ostringstream text;
  text << std::ifstream(absolute(name), std::ios::binary).rdbuf();
  return text.str();
}
int KernelWorld::open(const std::string& name, int flags) { return ::open(absolute(name).c_str(), flags | O_CLOEXEC); }
void KernelWorld::close(int fd) { REQUIRE(::close(fd) == 0); }
void KernelWorld::pair(int (&ends)[2]) { REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0); }

int KernelWorld::listen() {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_un any{.sun_family = AF_UNIX, .sun_path = {}};  // the kernel picks an abstract name
  REQUIRE(bind(fd, reinterpret_cast<const sockaddr*>(&any), sizeof any.sun_family) == 0);
  REQUIRE(::listen(fd, 16) == 0);
  return fd;
}

int KernelWorld::connect(int listener) {
  sockaddr_un address{};
  socklen_t length = sizeof address;
  REQUIRE(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(::connect(fd, reinterpret_cast<const sockaddr*>(&address), length) == 0);
  return fd;
}

void KernelWorld::send(int fd, const std::string& bytes) {
  REQUIRE(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size()));
}

SimulatedWorld::SimulatedWorld() : world_(blobcache::SimOptions{.seed = 7}) {
  world_.files().add_directory("/tree");
  root_ = world_.open("/tree", O_RDONLY | O_DIRECTORY);
}
void SimulatedWorld::add_file(const std::string& name, const std::string& bytes) {
  world_.files().add_file(absolute(name), std::as_bytes(std::span(bytes)));
}
void SimulatedWorld::add_symlink(const std::string& name, const std::string& target) {
  world_.files().add_symlink(absolute(name), target);
}
std::string SimulatedWorld::content(const std::string& name) {
  const blobcache::SimNode* node = world_.files().find(absolute(name));
  if (node == nullptr) return {};
  return {reinterpret_cast<const char*>(node->bytes.data()), node->bytes.size()};
}

struct OtherRing<KernelWorld>::Shared {
  std::promise<int> fd;
  std::promise<unsigned> wanted;
  std::vector<Cqe> cqes;
};

// The CQEs are waited for before anybody says how many there should be: the ring is asleep in the kernel when they come.
OtherRing<KernelWorld>::OtherRing(KernelWorld&) : shared_(std::make_shared<Shared>()) {
  thread_ = std::thread([shared = shared_] {
    const std::unique_ptr<Ring> ring = create_kernel_ring(64, 256);
    shared->fd.set_value(ring->fd());
    shared->cqes = collect(*ring, 1);
    const unsigned wanted = shared->wanted.get_future().get();
    const std::vector<Cqe> rest = collect(*ring, wanted - 1);
    shared->cqes.insert(shared->cqes.end(), rest.begin(), rest.end());
  });
  fd_ = shared_->fd.get_future().get();
}

std::vector<Cqe> OtherRing<KernelWorld>::wait(unsigned count) {
  shared_->wanted.set_value(count);
  thread_.join();
  return shared_->cqes;
}

std::vector<Cqe> collect(Ring& ring, unsigned count) {
  std::vector<Cqe> cqes;
  const uint64_t give_up_ns = ring.now_ns() + patience_ns;
  ring.submit();
  while (cqes.size() < count && ring.now_ns() < give_up_ns) {
    ring.submit_and_wait(static_cast<int64_t>(give_up_ns - ring.now_ns()));
    Cqe some[16];
    const unsigned room = std::min<unsigned>(16, count - static_cast<unsigned>(cqes.size()));
    const unsigned got = ring.reap(std::span(some, room));
    cqes.insert(cqes.end(), some, some + got);
  }
  return cqes;
}

Sqe& next_sqe(Ring& ring, uint64_t user_data) {
  Sqe* sqe = ring.get_sqe();
  REQUIRE(sqe != nullptr);
  sqe->user_data = user_data;
  return *sqe;
}

int32_t result_of(const std::vector<Cqe>& cqes, uint64_t user_data) {
  for (const Cqe& cqe : cqes) {
    if (cqe.user_data == user_data) return cqe.result;
  }
  return -1'000'000;
}

}  // namespace blobcache_test
