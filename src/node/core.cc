// A core's thread: pin, make the ring, register files and memory, wait for the word, serve, drain.
//
// On the uring transport core i owns the queues of the CPUs q with q % cores == i and runs on those CPUs, so a request is
// answered on the CPU that asked. FORGET and INTERRUPT still come by /dev/fuse: core 0 keeps a small dev transport for them.
#include "node/core.h"

#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "ring/uring.h"

namespace blobcache::node {
namespace {

constexpr uint32_t side_slots = 2;
constexpr uint32_t side_payload_bytes = 128 * limits::KiB;
constexpr uint64_t drain_ns = 2'000'000'000;
constexpr uint64_t writes_ns = 2'000'000'000;
constexpr uint64_t disk_watch_ns = 250'000'000;

}  // namespace

unsigned arena_buffer(size_t offset) { return static_cast<unsigned>(offset / limits::ring_buffer_bytes_max); }

unsigned entries_buffer(size_t arena_bytes, unsigned volume) {
  const size_t pieces = (arena_bytes + limits::ring_buffer_bytes_max - 1) / limits::ring_buffer_bytes_max;
  return static_cast<unsigned>(pieces) + volume;
}

unsigned staging_buffer(size_t arena_bytes, unsigned volumes) { return entries_buffer(arena_bytes, volumes); }

struct Core::StopMessage : Message {
  explicit StopMessage(Core& core_to_stop) : Message(&StopMessage::on_message), core(core_to_stop) {}
  static void on_message(Op& op, int32_t, uint32_t) { static_cast<StopMessage&>(op).core.reactor_->stop(); }
  Core& core;
};

// One volume on this core.
struct Core::OnVolume final : serve::InterruptRouter {
  // Made by the core that read the INTERRUPT, one for each core, freed by the one that handles it. Interrupts are rare.
  struct InterruptMessage : Message {
    InterruptMessage() : Message(&InterruptMessage::on_message) {}
    static void on_message(Op& op, int32_t, uint32_t) {
      auto* self = static_cast<InterruptMessage*>(&op);
      self->target->interrupt(self->unique);
      delete self;
    }
    OnVolume* target = nullptr;
    uint64_t unique = 0;
  };

  void broadcast_interrupt(uint64_t unique) override {
    for (const std::unique_ptr<Core>& other : *core->options_.cores) {
      OnVolume& target = *other->volumes_[number];
      if (other.get() == core) {
        target.interrupt(unique);
        continue;
      }
      auto* message = new InterruptMessage();
      message->target = &target;
      message->unique = unique;
      core->reactor_->post(*other->reactor_, *message);
    }
  }

  void interrupt(uint64_t unique) {
    for (const std::unique_ptr<fuse::Transport>& transport : transports) {
      if (server->interrupt(unique, *transport)) return;
    }
  }

  static void on_idle(serve::VolumeServer&, void* context) {
    OnVolume& self = *static_cast<OnVolume*>(context);
    self.server->volume().ended.store(true, std::memory_order_relaxed);
    self.core->options_.on_volume_idle();
  }

  Core* core = nullptr;
  unsigned number = 0;
  std::unique_ptr<serve::VolumeServer> server;
  std::vector<std::unique_ptr<fuse::Transport>> transports;
  Arena side_memory;  // of the side transport's slots
};

Core::Core(Options options) : options_(std::move(options)), disk_watch_(&Core::on_disk_watch) {
  disk_watch_.core = this;
}

Core::~Core() { BC_ASSERT(!thread_.joinable()); }

const serve::Counters& Core::counters(unsigned volume) const { return volumes_[volume]->server->counters(); }

void Core::start() { thread_ = std::thread(&Core::run, this); }

Result<void> Core::wait_ready() {
  ready_.acquire();
  return set_up_result_;
}

void Core::go() { go_.release(); }

void Core::run() {
  pthread_setname_np(pthread_self(), fmt::format("bc-core-{}", options_.number).c_str());
  set_up_result_ = set_up();
  ready_.release();
  if (!set_up_result_) return;
  go_.acquire();
  if (aborted_) return;
  for (const std::unique_ptr<OnVolume>& volume : volumes_) {
    for (const std::unique_ptr<fuse::Transport>& transport : volume->transports) transport->start();
  }
  // Disks hang, cores do not: one of them looks after all disks.
  if (options_.number == 0 && options_.shared->disk != nullptr) reactor_->arm(disk_watch_, disk_watch_ns);
  for (Guest* guest : options_.guests) guest->start(*reactor_);
  reactor_->run();
  for (Guest* guest : options_.guests) guest->stop();
  if (disk_watch_.armed()) reactor_->cancel(disk_watch_);
  const bool written = finish_writes();
  drained_ = reactor_->drain(drain_ns) && written;
}

void Core::on_disk_watch(Timer& timer) {
  Core& self = *static_cast<DiskWatch&>(timer).core;
  self.options_.shared->disk->watch(self.reactor_->now_ns());
  self.reactor_->arm(timer, disk_watch_ns);
}

// What was staged for the disks goes out; what a hung disk does not take is lost, and a later miss.
bool Core::finish_writes() {
  if (writer_ == nullptr) return true;
  Timer give_up([](Timer&) {});
  reactor_->arm(give_up, writes_ns);
  writer_->flush();
  while (!writer_->idle() && give_up.armed()) reactor_->turn(true);
  if (give_up.armed()) reactor_->cancel(give_up);
  return writer_->idle();
}

Result<void> Core::set_up() {
  pin_to_cpus();
  Result<std::unique_ptr<Ring>> ring = create_uring({.sqes = limits::ring_sqes, .cqes = limits::ring_cqes});
  if (!ring) return std::unexpected(ring.error());
  reactor_ = std::make_unique<Reactor>(
      std::move(*ring),
      ReactorOptions{.core = options_.number, .cqes = limits::ring_cqes, .epochs = &options_.shared->epochs});
  stop_message_ = std::make_unique<StopMessage>(*this);
  for (const std::unique_ptr<serve::Volume>& volume : options_.shared->volumes) {
    const Result<void> registered = reactor_->ring().register_file(device_file(volume->number), volume->session.fd());
    if (!registered) return registered;
  }
  if (const Result<void> registered = register_memory(); registered) {
    registered_buffers_ = true;
  } else if (options_.number == 0) {
    BC_LOG(warn,
           "memory cannot be registered with io_uring (errno {}): reads cost a page walk each; raise RLIMIT_MEMLOCK "
           "or grant CAP_IPC_LOCK",
           registered.error().os_errno);
  }
  make_writer();
  make_servers();
  return {};
}

Result<void> Core::register_memory() {
  SharedState& shared = *options_.shared;
  const std::span<std::byte> arena = shared.arena;
  for (size_t offset = 0; offset < arena.size(); offset += limits::ring_buffer_bytes_max) {
    const size_t bytes = std::min(arena.size() - offset, limits::ring_buffer_bytes_max);
    const Result<void> registered =
        reactor_->ring().register_buffer(arena_buffer(offset), iovec{arena.data() + offset, bytes});
    if (!registered) return registered;
  }
  for (const std::unique_ptr<serve::Volume>& volume : shared.volumes) {
    const Result<void> registered =
        reactor_->ring().register_buffer(entries_buffer(arena.size(), volume->number), volume->entries.memory());
    if (!registered) return registered;
  }
  if (shared.disk == nullptr) return {};
  return reactor_->ring().register_buffer(staging_buffer(arena.size(), static_cast<unsigned>(shared.volumes.size())),
                                          iovec{staging().data(), staging().size()});
}

std::span<std::byte> Core::staging() const {
  const size_t bytes = options_.plan->disk_staging_core_bytes;
  return options_.shared->staging.subspan(options_.number * bytes, bytes);
}

void Core::make_writer() {
  SharedState& shared = *options_.shared;
  if (shared.disk == nullptr) return;
  const unsigned buffer = staging_buffer(shared.arena.size(), static_cast<unsigned>(shared.volumes.size()));
  writer_ = std::make_unique<DiskWriter>(
      DiskWriter::Options{.tier = shared.disk.get(),
                          .memory = shared.memory.get(),
                          .reactor = reactor_.get(),
                          .registered_buffers = registered_buffers_,
                          .staging = staging(),
                          .staging_buffer_index = registered_buffers_ ? static_cast<int>(buffer) : -1,
                          .held_bytes_max = shared.arena.size() / 4 / options_.plan->cores});
}

void Core::make_servers() {
  const Plan& plan = *options_.plan;
  for (const std::unique_ptr<serve::Volume>& volume : options_.shared->volumes) {
    auto on_volume = std::make_unique<OnVolume>();
    on_volume->core = this;
    on_volume->number = volume->number;
    const auto buffer = static_cast<uint16_t>(entries_buffer(options_.shared->arena.size(), volume->number));
    std::vector<fuse::SlotMemory> memory;
    for (uint32_t queue = 0; queue < plan.entries.queues; ++queue) {
      if (!owns_queue(queue)) continue;
      for (uint32_t entry = 0; entry < plan.entries.entries_per_queue; ++entry) {
        memory.push_back(volume->entries.slot(queue, entry, buffer));
      }
    }
    const bool side = volume->session.facts().uring && options_.number == 0;
    const auto main_slots = static_cast<uint32_t>(memory.size());
    on_volume->server = std::make_unique<serve::VolumeServer>(
        serve::VolumeServer::Options{.volume = volume.get(),
                                     .reactor = reactor_.get(),
                                     .interrupts = on_volume.get(),
                                     .writer = volume->disk == nullptr ? nullptr : writer_.get(),
                                     .registered_buffers = registered_buffers_,
                                     .cores = plan.cores,
                                     .slots = main_slots + (side ? side_slots : 0),
                                     .transports = side ? 2u : 1u,
                                     .on_idle = &OnVolume::on_idle,
                                     .on_idle_context = on_volume.get()});
    fuse::TransportOptions transport{.reactor = reactor_.get(),
                                     .handler = on_volume->server.get(),
                                     .device_file = device_file(volume->number),
                                     .first_slot = 0};
    on_volume->transports.push_back(volume->session.facts().uring ? fuse::create_uring_transport(transport, memory)
                                                                  : fuse::create_dev_transport(transport, memory));
    if (side) {
      transport.first_slot = main_slots;
      BC_ASSERT(on_volume->side_memory.allocate(side_slots * (limits::page_bytes + side_payload_bytes)).has_value());
      std::vector<fuse::SlotMemory> slots;
      for (uint32_t i = 0; i < side_slots; ++i) {
        std::byte* base = on_volume->side_memory.bytes().data() + i * (limits::page_bytes + side_payload_bytes);
        slots.push_back({.header = reinterpret_cast<abi::UringHeader*>(base),
                         .payload = base + limits::page_bytes,
                         .payload_bytes = side_payload_bytes});
      }
      on_volume->transports.push_back(fuse::create_dev_transport(transport, slots));
    }
    volumes_.push_back(std::move(on_volume));
  }
}

void Core::pin_to_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  unsigned count = 0;
  for (const unsigned cpu : options_.machine->allowed_cpus) {
    if (!owns_queue(cpu)) continue;
    CPU_SET(cpu, &set);
    ++count;
  }
  if (count > 0) pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

void Core::stop(Poster* poster) {
  if (!thread_.joinable()) return;
  if (poster == nullptr) {
    aborted_ = true;
    go_.release();
    return;
  }
  poster->post(*reactor_, *stop_message_);
}

bool Core::join() {
  if (thread_.joinable()) thread_.join();
  return drained_;
}

}  // namespace blobcache::node
