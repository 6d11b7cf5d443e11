// From Config to a running node: origins, plan, memory, disks, mounts, cores; then the main thread waits for signals, for
// callers of the control socket, and for the end of the last mount.
//
// The way down: detach the mounts (nobody new comes in; who has files open is served until he closes them or the drain time
// is over), abort the connections that are left, stop the pruner, stop the cores (each writes out what it has staged for the
// disks), join them, stop the disk tier (its keepers write the index out), stop the origins. If an origin or a disk hangs in
// the kernel, what it owes us may still be written: the process then ends without freeing anything.
#include "node/node.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>

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
#include "node/content_calls.h"
#include "node/control.h"
#include "node/core.h"
#include "node/disks.h"
#include "node/endpoint.h"
#include "node/evictions.h"
#include "node/notify.h"
#include "node/pings.h"
#include "node/pins.h"
#include "node/plan.h"
#include "node/pruner.h"
#include "node/reload.h"
#include "node/status.h"
#include "node/volumes.h"
#include "node/watchdog.h"
#include "ring/uring.h"

namespace blobcache::node {
namespace {

constexpr int drain_ms = 10'000;
constexpr int abort_ms = 2'000;
constexpr unsigned pruner_patience_ms = 1'000;
constexpr unsigned reports_patience_ms = 1'000;
constexpr unsigned disk_patience_ms = 5'000;

class Node {
 public:
  Node(const Config& config, const RunOptions& options) : config_(config), options_(options) {
    if (options.written != nullptr) written_ = *options.written;
  }
  ~Node();

  Outcome start();
  void serve();
  // False: something still hangs; end the process without destroying this.
  bool stop();

 private:
  Outcome check_kernel();
  Outcome open_origins() { return make_volumes(config_, shared_); }
  Outcome take_memory();
  Outcome open_disk_tier();
  Outcome mount_all() { return mount_volumes(config_, plan_, shared_, &why_no_passthrough_); }
  Outcome start_cores();
  Outcome open_control();
  Outcome make_endpoint();
  Outcome open_endpoint() { return endpoint_ == nullptr ? Outcome() : endpoint_->open(); }
  void add_commands();
  std::string answer_ping();
  void reload();
  void drain();
  void count_idle();
  std::string summary() const;
  std::string status_line() const;
  // Waits for a signal, a caller or the end of all mounts. timeout_ms -1: no limit.
  enum class Wake { signal, idle, timeout };
  Wake wait(int timeout_ms);

  Config config_;   // in force
  Config written_;  // that a reload is compared with: as it was read, less what a restart would bring
  const RunOptions& options_;
  Machine machine_;
  Plan plan_;
  Arena arena_;
  SharedState shared_;
  std::vector<std::unique_ptr<Core>> cores_;
  std::unique_ptr<Pings> pings_;
  Control control_;
  ContentCalls content_calls_{shared_.content};
  Notify notify_;
  std::unique_ptr<Watchdog> watchdog_;  // null: nobody asked for one
  std::unique_ptr<Endpoint> endpoint_;  // null: no HTTP
  std::unique_ptr<Poster> poster_;
  Pruner pruner_;
  std::unique_ptr<Evictions> evictions_;
  std::unique_ptr<Pins> pins_;
  std::string why_no_passthrough_;  // empty: it is in force
  int signal_fd_ = -1;
  int idle_fd_ = -1;
  int last_signal_ = 0;
  std::atomic<unsigned> servers_busy_{0};
  bool cores_going_ = false;
  bool disks_going_ = false;
};

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

Outcome Node::take_memory() {
  machine_ = look_at_machine(config_);
  std::string message;
  const Result<Plan> plan = make_plan(config_, machine_, &message);
  if (!plan) return failed(message);
  plan_ = *plan;
  if (config_.fuse.transport == Transport::uring && !plan_.uring) {
    return lacking(fmt::format("fuse.transport = uring cannot be had: {}", plan_.why_not_uring));
  }
  // Staging first, so that frames begin on a huge page whatever its size.
  if (const Result<void> allocated = arena_.allocate(plan_.disk_staging_bytes + plan_.arena_bytes); !allocated) {
    return failed(fmt::format("the machine did not give {} for the memory tier: lower memory.limit",
                              format_bytes_short(plan_.disk_staging_bytes + plan_.arena_bytes)));
  }
  shared_.staging = arena_.bytes().first(plan_.disk_staging_bytes);
  shared_.arena = arena_.bytes().subspan(plan_.disk_staging_bytes, plan_.arena_bytes);
  shared_.memory = std::make_unique<MemoryTier>(
      MemoryTier::Options{.arena = shared_.arena, .buffer_index_first = 0, .epochs = &shared_.epochs});
  shared_.prefetch = std::make_unique<serve::PrefetchNode>(serve::PrefetchNode::Options{
      .config = config_.prefetch, .chunk_bytes = config_.cache.chunk_bytes, .arena_bytes = plan_.arena_bytes});
  for (const std::unique_ptr<serve::Volume>& volume : shared_.volumes) {
    volume->memory = shared_.memory.get();
    volume->prefetch = shared_.prefetch.get();
    if (shared_.prefetch != nullptr) volume->foreteller = std::make_unique<serve::Foreteller>(*shared_.prefetch);
  }
  return {};
}

Outcome Node::open_disk_tier() {
  const Outcome outcome = open_disks(config_, plan_, &shared_.disk);
  if (outcome.exit_code != 0) return outcome;
  for (const std::unique_ptr<serve::Volume>& volume : shared_.volumes) {
    // What lies on the disks already is not kept there twice.
    if (!volume->config.source.starts_with(blobs_scheme)) volume->disk = shared_.disk.get();
  }
  why_no_passthrough_ = why_no_passthrough(config_, shared_.disk.get());
  return open_content(config_, plan_, shared_.content);
}

Outcome Node::start_cores() {
  idle_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  servers_busy_ = plan_.cores * static_cast<unsigned>(shared_.volumes.size());
  std::vector<Guest*> guests;
  if (notify_.watchdog_ns() != 0) {
    watchdog_ = std::make_unique<Watchdog>(notify_.fd(), notify_.watchdog_ns());
    guests.push_back(watchdog_.get());
  }
  if (endpoint_ != nullptr) guests.push_back(&endpoint_->guest());
  for (unsigned i = 0; i < plan_.cores; ++i) {
    cores_.push_back(std::make_unique<Core>(Core::Options{.number = i,
                                                          .plan = &plan_,
                                                          .machine = &machine_,
                                                          .shared = &shared_,
                                                          .on_volume_idle = [this] { count_idle(); },
                                                          .cores = &cores_,
                                                          .guests = i == 0 ? guests : std::vector<Guest*>()}));
  }
  pings_ = std::make_unique<Pings>(cores_);
  for (const std::unique_ptr<Core>& core : cores_) core->start();
  for (const std::unique_ptr<Core>& core : cores_) {
    if (const Result<void> ready = core->wait_ready(); !ready) {
      return lacking(fmt::format("a core could not set up its ring: {} (RLIMIT_MEMLOCK, kernel.io_uring_disabled)",
                                 std::strerror(ready.error().os_errno)));
    }
  }
  for (const std::unique_ptr<Core>& core : cores_) {
    if (watchdog_ != nullptr) watchdog_->watch(core->reactor());
  }
  if (endpoint_ != nullptr) endpoint_->start(cores_[0]->reactor());
  if (shared_.disk != nullptr) {
    shared_.disk->start();
    disks_going_ = true;
  }
  shared_.content.start();
  if (!pruner_.start(shared_.volumes)) return failed("no descriptor is left for the pruner; raise RLIMIT_NOFILE");
  for (const std::unique_ptr<Core>& core : cores_) core->go();
  cores_going_ = true;
  return {};
}

void Node::add_commands() {
  control_.add("ping", [this](std::string_view) { return answer_ping(); });
  control_.add("mounts", [this](std::string_view) {
    return fmt::format("{}\n", (servers_busy_ + plan_.cores - 1) / plan_.cores);
  });
  control_.add("status", [this](std::string_view) { return status_json(config_, plan_, shared_, cores_); });
  control_.add("evict", [this](std::string_view arguments) {
    return evictions_->evict(arguments, *poster_, cores_[0]->reactor());
  });
  control_.add("forget", [this](std::string_view arguments) {
    return evictions_->forget(arguments, *poster_, cores_[0]->reactor());
  });
  control_.add("pin", [this](std::string_view arguments) { return pins_->pin(arguments); });
  control_.add("unpin", [this](std::string_view arguments) { return pins_->unpin(arguments); });
  control_.add("unpin-all", [this](std::string_view arguments) { return pins_->unpin_all(arguments); });
  content_calls_.add_to(control_);
  control_.add("stop", [](std::string_view) {
    kill(getpid(), SIGTERM);
    return std::string("ok\n");
  });
}

Outcome Node::open_control() {
  poster_ = std::make_unique<Poster>();
  evictions_ = std::make_unique<Evictions>(shared_);
  pins_ = std::make_unique<Pins>(shared_);
  add_commands();
  if (const int os_errno = make_state_directory(); os_errno != 0) {
    return failed(fmt::format("cannot create {}: {}", state_directory(), std::strerror(os_errno)));
  }
  std::vector<std::string> names;
  if (!options_.name.empty()) names.push_back(escape_mount_path(options_.name));
  for (const VolumeConfig& volume : config_.volumes) names.push_back(escape_mount_path(volume.mountpoint));
  for (const std::string& name : names) {
    const std::string path = control_socket_path(state_directory(), name);
    if (const Result<void> opened = control_.open(path); !opened) {
      return failed(
          fmt::format("cannot listen on the control socket {}: {}", path, std::strerror(opened.error().os_errno)));
    }
  }
  return {};
}

// Before memory is taken, which takes seconds: a token that is too short is found at once.
Outcome Node::make_endpoint() {
  if (config_.http.listen.empty()) return {};
  endpoint_ =
      std::make_unique<Endpoint>(NodeView{.config = &config_, .plan = &plan_, .shared = &shared_, .cores = &cores_});
  return endpoint_->prepare();
}

// So "pong" means that requests are being served, not that a process exists.
std::string Node::answer_ping() {
  if (const std::optional<unsigned> core = pings_->silent_core(*poster_)) {
    return fmt::format("error: core {} does not answer\n", *core);
  }
  return fmt::format("pong {}\n", getpid());
}

Outcome Node::start() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  if (options_.notify && !notify_.open()) {
    BC_LOG(warn, "NOTIFY_SOCKET names no socket of ours to write to: the service manager is told nothing");
  }
  signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  using Step = Outcome (Node::*)();
  for (const Step step :
       {&Node::check_kernel, &Node::make_endpoint, &Node::open_origins, &Node::take_memory, &Node::open_disk_tier,
        &Node::open_control, &Node::open_endpoint, &Node::mount_all, &Node::start_cores}) {
    const Outcome outcome = (this->*step)();
    if (outcome.exit_code != 0) return outcome;
  }
  return {};
}

std::string Node::summary() const {
  std::string text;
  for (const std::unique_ptr<serve::Volume>& volume : shared_.volumes) {
    const fuse::SessionFacts& facts = volume->session.facts();
    text += fmt::format("{} on {} (transport {}, requests up to {}, {} cores, passthrough {})\n", volume->config.source,
                        volume->config.mountpoint, facts.uring ? "uring" : "dev", format_bytes_short(facts.max_request),
                        plan_.cores, facts.passthrough ? "on" : "off");
  }
  return text + describe(plan_);
}

std::string Node::status_line() const {
  return fmt::format("serving {} volume{} on {} core{}", shared_.volumes.size(), shared_.volumes.size() == 1 ? "" : "s",
                     plan_.cores, plan_.cores == 1 ? "" : "s");
}

void Node::serve() {
  if (!plan_.why_not_uring.empty()) BC_LOG(info, "transport dev, not uring: {}", plan_.why_not_uring);
  if (!arena_.on_huge_pages())
    BC_LOG(info, "no huge pages: registered memory costs 6 MiB a GiB and core in the kernel");
  // Without disks nobody expects it.
  if (shared_.disk != nullptr && !why_no_passthrough_.empty()) {
    BC_LOG(info, "no passthrough, whole files are read through this process: {}", why_no_passthrough_);
  }
  // The first answer through each mount: after it the mount is known to work.
  for (const std::unique_ptr<serve::Volume>& volume : shared_.volumes) {
    struct stat root{};
    if (stat(volume->config.mountpoint.c_str(), &root) != 0) {
      BC_LOG(error, "the mount {} does not answer: {}", volume->config.mountpoint, std::strerror(errno));
    }
  }
  if (options_.on_ready) options_.on_ready(summary());
  log_lines(summary());
  notify_.ready(status_line());
  while (true) {
    const Wake wake = wait(-1);
    if (wake == Wake::idle) return notify_.stopping();
    if (wake == Wake::signal && last_signal_ != SIGHUP) break;
    if (wake == Wake::signal) reload();
  }
  drain();
}

void Node::reload() {
  if (!options_.load) {
    BC_LOG(info, "SIGHUP: nothing of a mount without a configuration file can be reloaded");
    return;
  }
  notify_.reloading();
  Config fresh;
  const Problems problems = node::reload(options_.load(fresh), fresh, config_, written_);
  if (problems.empty()) apply_live(config_, shared_);
  notify_.ready(problems.empty() ? status_line() : "the configuration was not reloaded: " + problems.front());
}

void Node::drain() {
  BC_LOG(info, "signal {}: draining for at most {} s; a second signal ends it now", last_signal_, drain_ms / 1000);
  notify_.stopping();
  if (endpoint_ != nullptr) endpoint_->drain();
  detach_volumes(shared_);
  if (wait(drain_ms) == Wake::idle) return;
  BC_LOG(warn, "files are still open after the drain: their readers get an error now");
  abort_volumes(shared_);
  wait(abort_ms);
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

bool Node::stop() {
  control_.close();
  bool clean = servers_busy_ == 0 || !cores_going_;
  if (!cores_going_) detach_volumes(shared_);
  clean &= evictions_ == nullptr || evictions_->join();
  clean &= pins_ == nullptr || pins_->join();
  clean &= pruner_.stop(pruner_patience_ms);
  // While the cores still take what its helpers bring.
  content_calls_.stop();
  shared_.content.stop();
  clean &= content_calls_.join(disk_patience_ms);
  clean &= shared_.content.join(disk_patience_ms);
  // What is in flight to a server ends now, on the cores that began it: they could wait for a minute otherwise.
  for (const std::unique_ptr<serve::Volume>& volume : shared_.volumes) volume->origin->stop();
  for (const std::unique_ptr<Core>& core : cores_) core->stop(cores_going_ ? poster_.get() : nullptr);
  for (const std::unique_ptr<Core>& core : cores_) clean &= core->join();
  clean &= endpoint_ == nullptr || endpoint_->stop(reports_patience_ms);
  if (disks_going_ && !shared_.disk->stop(disk_patience_ms)) {
    BC_LOG(warn, "a disk does not answer: what it was not told yet is read from the origin next time");
    clean = false;
  }
  return stop_origins(shared_) && clean;
}

}  // namespace

Outcome run(const Config& config, const RunOptions& options) {
  auto node = std::make_unique<Node>(config, options);
  Outcome outcome = node->start();
  if (outcome.exit_code == 0) node->serve();
  if (!node->stop()) {
    BC_LOG(warn, "something still hangs in an origin or a disk; ending without waiting for it");
    if (outcome.exit_code != 0) std::fprintf(stderr, "blobcache: %s\n", outcome.message.c_str());
    _exit(outcome.exit_code);
  }
  return outcome;
}

}  // namespace blobcache::node
