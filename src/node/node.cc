// From Config to a running node: plan, memory, origins, mounts, cores; then the main thread waits for signals, for callers
// of the control socket, and for the end of the last mount.
//
// The way down: detach the mounts (nobody new comes in; who has files open is served until he closes them or the drain time
// is over), abort the connections that are left, stop the cores, join them, stop the origins. If an origin hangs in the
// kernel, what it owes us may still be written: the process then ends without freeing anything.
#include "node/node.h"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <semaphore>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/state_paths.h"
#include "base/units.h"
#include "fuse/address_space.h"
#include "fuse/mountinfo.h"
#include "node/control.h"
#include "node/core.h"
#include "node/plan.h"
#include "node/status.h"
#include "origin/posix.h"
#include "ring/uring.h"

namespace blobcache::node {
namespace {

constexpr int drain_ms = 10'000;
constexpr int abort_ms = 2'000;
constexpr int ping_ms = 1'000;
constexpr unsigned origin_patience_ms = 1'000;
constexpr uint64_t read_ahead_bytes_auto = 512 * limits::KiB;

struct PingMessage : Message {
  PingMessage() : Message(+[](Op& op, int32_t, uint32_t) { static_cast<PingMessage&>(op).answered.release(); }) {}
  std::binary_semaphore answered{0};
  bool in_flight = false;
};

class Node {
 public:
  explicit Node(const Config& config) : config_(config) {}
  ~Node();

  Outcome start();
  void serve(const std::function<void(const std::string&)>& on_ready);
  // False: something still hangs; end the process without destroying this.
  bool stop();

 private:
  Outcome check_kernel();
  Outcome make_origins();
  Outcome take_memory();
  Outcome mount_volumes();
  Outcome start_cores();
  Outcome open_control();
  void set_read_ahead(const serve::Volume& volume);
  std::string answer_ping();
  void count_idle();
  void detach_all();
  void abort_all();
  std::string summary() const;
  // Waits for a signal, a caller or the end of all mounts. timeout_ms -1: no limit.
  enum class Wake { signal, idle, timeout };
  Wake wait(int timeout_ms);

  const Config& config_;
  Machine machine_;
  Plan plan_;
  Arena arena_;
  SharedState shared_;
  std::vector<std::unique_ptr<Core>> cores_;
  std::vector<std::unique_ptr<PingMessage>> pings_;  // one a core
  Control control_;
  std::unique_ptr<Poster> poster_;
  int signal_fd_ = -1;
  int idle_fd_ = -1;
  int last_signal_ = 0;
  std::atomic<unsigned> servers_busy_{0};
  bool cores_going_ = false;
};

Outcome failed(std::string message) { return Outcome{.exit_code = 1, .message = std::move(message)}; }
Outcome lacking(std::string message) { return Outcome{.exit_code = 3, .message = std::move(message)}; }

void log_lines(std::string_view text) {
  while (!text.empty()) {
    const size_t end = text.find('\n');
    if (end > 0) BC_LOG(info, "{}", text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
}

Node::~Node() {
  if (signal_fd_ >= 0) close(signal_fd_);
  if (idle_fd_ >= 0) close(idle_fd_);
}

Outcome Node::check_kernel() {
  const UringProbe probe = probe_uring();
  if (!probe.available) {
    if (probe.os_errno == EPERM) {
      return lacking(
          "io_uring is switched off on this machine: set the sysctl kernel.io_uring_disabled=0, and in a container use "
          "a "
          "seccomp profile that allows io_uring");
    }
    return lacking(fmt::format("this kernel has no usable io_uring ({}): blobcache needs Linux 6.1 or newer",
                               std::strerror(probe.os_errno)));
  }
  if (!probe.all_opcodes) return lacking("this kernel's io_uring is too old: blobcache needs Linux 6.1 or newer");
  if (access("/dev/fuse", F_OK) != 0) {
    return lacking(
        "there is no /dev/fuse: load the module with `modprobe fuse`, or give the container --device /dev/fuse");
  }
  if (access("/dev/fuse", R_OK | W_OK) != 0) {
    return lacking("/dev/fuse may not be opened by this user: its mode should be 0666 (udev sets it)");
  }
  return {};
}

Outcome Node::make_origins() {
  if (!config_.cache.disks.empty()) {
    return failed("this version keeps nothing on disk yet: leave out --cache-dir, --cache-size and cache.disk");
  }
  if (config_.volumes.size() > fuse::address_space::volumes_max) {
    return failed(fmt::format("{} volumes are configured, {} are possible", config_.volumes.size(),
                              fuse::address_space::volumes_max));
  }
  for (const VolumeConfig& volume_config : config_.volumes) {
    auto volume = std::make_unique<serve::Volume>();
    volume->number = static_cast<unsigned>(shared_.volumes.size());
    volume->config = volume_config;
    volume->fuse_config = config_.fuse;
    volume->origin_config = config_.origin;
    std::string root = volume_config.source;
    if (root.starts_with("file://")) root = root.substr(7);
    if (root.find("://") != std::string::npos) {
      return failed(fmt::format("the source {} has a scheme that this version cannot read; use a directory or file://",
                                volume_config.source));
    }
    Result<std::unique_ptr<Origin>> origin = create_posix_origin({.root = root});
    if (!origin) {
      return failed(fmt::format("cannot open the source {}: {}", root, std::strerror(origin.error().os_errno)));
    }
    volume->origin = std::move(*origin);
    volume->identity = volume_config.id.empty() ? std::string(volume->origin->canonical_source()) : volume_config.id;
    shared_.volumes.push_back(std::move(volume));
  }
  return {};
}

Outcome Node::take_memory() {
  machine_ = look_at_machine();
  std::string message;
  const Result<Plan> plan = make_plan(config_, machine_, &message);
  if (!plan) return failed(message);
  plan_ = *plan;
  if (config_.fuse.transport == Transport::uring && !plan_.uring) {
    return lacking(fmt::format("fuse.transport = uring cannot be had: {}", plan_.why_not_uring));
  }
  if (const Result<void> allocated = arena_.allocate(plan_.arena_bytes); !allocated) {
    return failed(fmt::format("the machine did not give {} for the memory tier: lower memory.limit",
                              format_bytes_short(plan_.arena_bytes)));
  }
  shared_.arena = arena_.bytes();
  shared_.memory = std::make_unique<MemoryTier>(
      MemoryTier::Options{.arena = shared_.arena, .buffer_index_first = 0, .epochs = &shared_.epochs});
  for (const std::unique_ptr<serve::Volume>& volume : shared_.volumes) volume->memory = shared_.memory.get();
  return {};
}

Outcome Node::mount_volumes() {
  Result<std::unique_ptr<Ring>> ring = create_uring({.sqes = 16, .cqes = 64});
  if (!ring) return lacking("io_uring refused a ring of 16 entries; raise RLIMIT_MEMLOCK");
  Reactor reactor(std::move(*ring), {.cqes = 64});
  const bool allow_other =
      config_.fuse.allow_other == Switch::on || (config_.fuse.allow_other == Switch::automatic && geteuid() == 0);
  for (const std::unique_ptr<serve::Volume>& volume : shared_.volumes) {
    struct Done : LookupCall {
      bool ended = false;
    } call;
    call.on_done = [](OriginCall& ended) { static_cast<Done&>(ended).ended = true; };
    volume->origin->begin_lookup(reactor, call);
    while (!call.ended) reactor.turn(true);
    if (call.failed) {
      return failed(
          fmt::format("cannot look at the source {}: {}", volume->config.source, std::strerror(call.error.os_errno)));
    }
    const Result<void> inodes =
        volume->inodes.create({.volume = volume->number, .nodes_max = plan_.inodes_max}, call.info, reactor.now_ns());
    if (!inodes) return failed("no memory for the inode table; lower memory.limit");

    std::string message;
    const fuse::SessionOptions options{.mountpoint = volume->config.mountpoint,
                                       .source = volume->config.source,
                                       .allow_other = allow_other,
                                       .max_request = plan_.entries.payload_bytes,
                                       .max_background = config_.fuse.max_background,
                                       .want_uring = plan_.uring,
                                       .want_passthrough = false};
    if (!volume->session.mount(options, &message)) return failed(message);
    if (!volume->session.negotiate(&message)) {
      volume->session.detach();
      return lacking(message);
    }
    if (plan_.uring && !volume->session.facts().uring) {
      return lacking("the kernel offered no FUSE over io_uring although enable_uring is on; use -o fuse.transport=dev");
    }
    if (const Result<void> entries = volume->entries.create(volume->number, plan_.entries); !entries) {
      return failed(
          fmt::format("no memory for the FUSE requests of {}; lower fuse.queue_memory", volume->config.mountpoint));
    }
    set_read_ahead(*volume);
  }
  return {};
}

void Node::set_read_ahead(const serve::Volume& volume) {
  const uint64_t bytes =
      config_.fuse.read_ahead_bytes == config_automatic ? read_ahead_bytes_auto : config_.fuse.read_ahead_bytes;
  const std::string path = fmt::format("/sys/class/bdi/0:{}/read_ahead_kb", volume.session.facts().device_minor);
  std::ofstream file(path);
  file << bytes / limits::KiB << std::flush;
  if (!file) {
    BC_LOG(info, "read-ahead of {} stays at the kernel's 128 KiB: {} cannot be written by this user",
           volume.config.mountpoint, path);
  }
}

Outcome Node::start_cores() {
  idle_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  servers_busy_ = plan_.cores * static_cast<unsigned>(shared_.volumes.size());
  for (unsigned i = 0; i < plan_.cores; ++i) {
    cores_.push_back(std::make_unique<Core>(Core::Options{.number = i,
                                                          .plan = &plan_,
                                                          .machine = &machine_,
                                                          .shared = &shared_,
                                                          .on_volume_idle = [this] { count_idle(); },
                                                          .cores = &cores_}));
  }
  for (const std::unique_ptr<Core>& core : cores_) {
    pings_.push_back(std::make_unique<PingMessage>());
    core->start();
  }
  for (const std::unique_ptr<Core>& core : cores_) {
    if (const Result<void> ready = core->wait_ready(); !ready) {
      return lacking(fmt::format("a core could not set up its ring: {} (RLIMIT_MEMLOCK, kernel.io_uring_disabled)",
                                 std::strerror(ready.error().os_errno)));
    }
  }
  for (const std::unique_ptr<Core>& core : cores_) core->go();
  cores_going_ = true;
  return {};
}

Outcome Node::open_control() {
  poster_ = std::make_unique<Poster>();
  const std::string name =
      config_.volumes.size() == 1 ? escape_mount_path(config_.volumes[0].mountpoint) : config_.node.name;
  control_.add("ping", [this] { return answer_ping(); });
  control_.add("status", [this] { return status_json(config_, plan_, shared_, cores_); });
  control_.add("stop", [] {
    kill(getpid(), SIGTERM);
    return std::string("ok\n");
  });
  if (const int os_errno = make_state_directory(); os_errno != 0) {
    return failed(fmt::format("cannot create {}: {}", state_directory(), std::strerror(os_errno)));
  }
  const std::string path = control_socket_path(state_directory(), name);
  if (const Result<void> opened = control_.open(path); !opened) {
    return failed(
        fmt::format("cannot listen on the control socket {}: {}", path, std::strerror(opened.error().os_errno)));
  }
  return {};
}

// Each core answers a message, so that "pong" means that requests are being served, not that a process exists. A core that
// does not answer keeps its message, and is not asked again until it has.
std::string Node::answer_ping() {
  for (unsigned i = 0; i < cores_.size(); ++i) {
    PingMessage& ping = *pings_[i];
    if (!ping.in_flight) {
      ping.in_flight = true;
      poster_->post(cores_[i]->reactor(), ping);
    }
    if (!ping.answered.try_acquire_for(std::chrono::milliseconds(ping_ms))) {
      return fmt::format("error: core {} does not answer\n", i);
    }
    ping.in_flight = false;
  }
  return fmt::format("pong {}\n", getpid());
}

Outcome Node::start() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  using Step = Outcome (Node::*)();
  for (const Step step : {&Node::check_kernel, &Node::make_origins, &Node::take_memory, &Node::open_control,
                          &Node::mount_volumes, &Node::start_cores}) {
    const Outcome outcome = (this->*step)();
    if (outcome.exit_code != 0) return outcome;
  }
  return {};
}

std::string Node::summary() const {
  std::string text;
  for (const std::unique_ptr<serve::Volume>& volume : shared_.volumes) {
    const fuse::SessionFacts& facts = volume->session.facts();
    text += fmt::format("{} on {} (transport {}, requests up to {}, {} cores)\n", volume->config.source,
                        volume->config.mountpoint, facts.uring ? "uring" : "dev", format_bytes_short(facts.max_request),
                        plan_.cores);
  }
  return text + describe(plan_);
}

void Node::serve(const std::function<void(const std::string&)>& on_ready) {
  if (!plan_.why_not_uring.empty()) BC_LOG(info, "transport dev, not uring: {}", plan_.why_not_uring);
  if (!arena_.on_huge_pages())
    BC_LOG(info, "no huge pages: registered memory costs 6 MiB a GiB and core in the kernel");
  // The first answer through each mount: after it the mount is known to work.
  for (const std::unique_ptr<serve::Volume>& volume : shared_.volumes) {
    struct stat root{};
    if (stat(volume->config.mountpoint.c_str(), &root) != 0) {
      BC_LOG(error, "the mount {} does not answer: {}", volume->config.mountpoint, std::strerror(errno));
    }
  }
  on_ready(summary());
  log_lines(summary());
  while (true) {
    const Wake wake = wait(-1);
    if (wake == Wake::idle) return;
    if (wake == Wake::signal && last_signal_ != SIGHUP) break;
    if (wake == Wake::signal) BC_LOG(info, "SIGHUP: nothing of a mount without a configuration file can be reloaded");
  }
  BC_LOG(info, "signal {}: draining for at most {} s; a second signal ends it now", last_signal_, drain_ms / 1000);
  detach_all();
  if (wait(drain_ms) != Wake::idle) abort_all();
}

void Node::count_idle() {
  if (servers_busy_.fetch_sub(1) != 1) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(idle_fd_, &one, sizeof one);
}

Node::Wake Node::wait(int timeout_ms) {
  while (true) {
    pollfd fds[] = {{signal_fd_, POLLIN, 0}, {idle_fd_, POLLIN, 0}, {control_.fd(), POLLIN, 0}};
    const int ready = poll(fds, std::size(fds), timeout_ms);
    if (ready == 0) return Wake::timeout;
    if (ready < 0) continue;
    if ((fds[1].revents & POLLIN) != 0) return Wake::idle;
    if ((fds[0].revents & POLLIN) != 0) {
      signalfd_siginfo info{};
      if (read(signal_fd_, &info, sizeof info) != sizeof info) continue;
      last_signal_ = static_cast<int>(info.ssi_signo);
      return Wake::signal;
    }
    if ((fds[2].revents & POLLIN) != 0) control_.on_readable();
  }
}

void Node::detach_all() {
  for (const std::unique_ptr<serve::Volume>& volume : shared_.volumes) volume->session.detach();
}

void Node::abort_all() {
  BC_LOG(warn, "files are still open after the drain: their readers get an error now");
  for (const std::unique_ptr<serve::Volume>& volume : shared_.volumes) {
    [[maybe_unused]] const Result<void> aborted = fuse::abort_connection(volume->session.facts().device_minor);
  }
  wait(abort_ms);
}

bool Node::stop() {
  control_.close();
  bool clean = servers_busy_ == 0 || !cores_going_;
  if (!cores_going_) {
    for (const std::unique_ptr<serve::Volume>& volume : shared_.volumes) {
      if (volume->session.fd() >= 0) volume->session.detach();
    }
  }
  for (const std::unique_ptr<Core>& core : cores_) core->stop(cores_going_ ? poster_.get() : nullptr);
  for (const std::unique_ptr<Core>& core : cores_) clean &= core->join();
  for (const std::unique_ptr<serve::Volume>& volume : shared_.volumes) {
    volume->origin->stop();
    clean &= volume->origin->join(origin_patience_ms);
  }
  return clean;
}

}  // namespace

Outcome run(const Config& config, const std::function<void(const std::string& summary)>& on_ready) {
  auto node = std::make_unique<Node>(config);
  Outcome outcome = node->start();
  if (outcome.exit_code == 0) node->serve(on_ready);
  if (!node->stop()) {
    BC_LOG(warn, "something still hangs in the origin; ending without waiting for it");
    if (outcome.exit_code != 0) std::fprintf(stderr, "blobcache: %s\n", outcome.message.c_str());
    _exit(outcome.exit_code);
  }
  return outcome;
}

}  // namespace blobcache::node
