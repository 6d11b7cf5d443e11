// Mounting. The root of each volume is asked of its origin by a reactor of the main thread, which ends with this step: a
// mount is made only when its source answers, and the kernel's INIT is read here, before any core serves the device.
#include "node/volumes.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include <fmt/format.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/log.h"
#include "fuse/address_space.h"
#include "fuse/mountinfo.h"
#include "origin/blobs.h"
#include "origin/open.h"
#include "ring/uring.h"

namespace blobcache::node {
namespace {

constexpr unsigned origin_patience_ms = 1'000;
constexpr uint64_t read_ahead_bytes_auto = 512 * limits::KiB;
constexpr uint64_t read_ahead_bytes_model = 1 * limits::MiB;

// Around a page of a mapped file that is touched the kernel reads this much. Of a model all is wanted; elsewhere a fault in
// a large file should not cost a request more than it has to.
void set_read_ahead(const FuseConfig& config, const serve::Volume& volume) {
  const uint64_t by_profile = volume.config.profile == Profile::model ? read_ahead_bytes_model : read_ahead_bytes_auto;
  const uint64_t bytes = config.read_ahead_bytes == config_automatic ? by_profile : config.read_ahead_bytes;
  const std::string path = fmt::format("/sys/class/bdi/0:{}/read_ahead_kb", volume.session.facts().device_minor);
  std::ofstream file(path);
  file << bytes / limits::KiB << std::flush;
  if (!file) {
    BC_LOG(info, "read-ahead of {} stays at the kernel's 128 KiB: {} cannot be written by this user",
           volume.config.mountpoint, path);
  }
}

// Looks at the root of the tree and makes the node that the kernel will ask for first.
Outcome make_root(Reactor& reactor, const Plan& plan, serve::Volume& volume) {
  struct Done : LookupCall {
    bool ended = false;
  } call;
  call.on_done = [](OriginCall& ended) { static_cast<Done&>(ended).ended = true; };
  volume.origin->begin_lookup(reactor, call);
  while (!call.ended) reactor.turn(true);
  if (call.failed) {
    return failed(
        fmt::format("cannot look at the source {}: {}", volume.config.source, std::strerror(call.error.os_errno)));
  }
  const Result<void> inodes =
      volume.inodes.create({.volume = volume.number, .nodes_max = plan.inodes_max}, call.info, reactor.now_ns());
  if (!inodes) return failed("no memory for the inode table; lower memory.limit");
  return {};
}

Outcome mount_volume(const Config& config, const Plan& plan, bool want_passthrough, serve::Volume& volume) {
  const bool allow_other =
      config.fuse.allow_other == Switch::on || (config.fuse.allow_other == Switch::automatic && geteuid() == 0);
  std::string message;
  const fuse::SessionOptions options{.mountpoint = volume.config.mountpoint,
                                     .source = volume.config.source,
                                     .allow_other = allow_other,
                                     .max_request = plan.entries.payload_bytes,
                                     .max_background = config.fuse.max_background,
                                     .want_uring = plan.uring,
                                     .want_passthrough = want_passthrough};
  if (!volume.session.mount(options, &message)) return failed(message);
  if (!volume.session.negotiate(&message)) {
    volume.session.detach();
    return lacking(message);
  }
  if (plan.uring && !volume.session.facts().uring) {
    return lacking("the kernel offered no FUSE over io_uring although enable_uring is on; use -o fuse.transport=dev");
  }
  if (const Result<void> entries = volume.entries.create(volume.number, plan.entries); !entries) {
    return failed(
        fmt::format("no memory for the FUSE requests of {}; lower fuse.queue_memory", volume.config.mountpoint));
  }
  set_read_ahead(config.fuse, volume);
  return {};
}

}  // namespace

Outcome make_volumes(const Config& config, SharedState& shared) {
  if (config.volumes.size() > fuse::address_space::volumes_max) {
    return failed(fmt::format("{} volumes are configured, {} are possible", config.volumes.size(),
                              fuse::address_space::volumes_max));
  }
  for (const VolumeConfig& volume_config : config.volumes) {
    auto volume = std::make_unique<serve::Volume>();
    volume->number = static_cast<unsigned>(shared.volumes.size());
    volume->config = volume_config;
    volume->origin_config = config.origin;
    volume->live.set(config.fuse, config.origin, config.log);
    if (volume_config.source.starts_with(blobs_scheme)) {
      volume->origin = create_blobs_origin(shared.content, volume_config);
      volume->identity = volume_config.id.empty() ? std::string(blobs_scheme) : volume_config.id;
      shared.volumes.push_back(std::move(volume));
      continue;
    }
    std::string why;
    const std::string names = config.cache.disks.empty() ? "" : config.cache.disks[0].path + "/names";
    Result<std::unique_ptr<Origin>> origin = open_origin(volume_config, config.origin, &why, names);
    if (!origin) return failed(why);
    volume->origin = std::move(*origin);
    volume->identity = volume_config.id.empty() ? std::string(volume->origin->canonical_source()) : volume_config.id;
    shared.volumes.push_back(std::move(volume));
  }
  return {};
}

Outcome mount_volumes(const Config& config, const Plan& plan, SharedState& shared, std::string* why_no_passthrough) {
  if (config.fuse.passthrough == Switch::on && !why_no_passthrough->empty()) {
    return lacking(fmt::format("fuse.passthrough = on cannot be had: {}", *why_no_passthrough));
  }
  Result<std::unique_ptr<Ring>> ring = create_uring({.sqes = 16, .cqes = 64});
  if (!ring) return lacking("io_uring refused a ring of 16 entries; raise RLIMIT_MEMLOCK");
  Reactor reactor(std::move(*ring), {.cqes = 64});
  const bool want_passthrough = why_no_passthrough->empty();
  for (const std::unique_ptr<serve::Volume>& volume : shared.volumes) {
    Outcome outcome = make_root(reactor, plan, *volume);
    if (outcome.exit_code == 0) outcome = mount_volume(config, plan, want_passthrough, *volume);
    if (outcome.exit_code != 0) return outcome;
    if (want_passthrough && !volume->session.facts().passthrough) {
      *why_no_passthrough = "the kernel does not offer it; use Linux 6.9 or newer with CONFIG_FUSE_PASSTHROUGH";
    }
  }
  if (config.fuse.passthrough == Switch::on && !why_no_passthrough->empty()) {
    return lacking(fmt::format("fuse.passthrough = on cannot be had: {}", *why_no_passthrough));
  }
  return {};
}

void detach_volumes(SharedState& shared) {
  for (const std::unique_ptr<serve::Volume>& volume : shared.volumes) {
    if (volume->session.fd() >= 0) volume->session.detach();
  }
}

void abort_volumes(SharedState& shared) {
  for (const std::unique_ptr<serve::Volume>& volume : shared.volumes) {
    [[maybe_unused]] const Result<void> aborted = fuse::abort_connection(volume->session.facts().device_minor);
  }
}

bool stop_origins(SharedState& shared) {
  bool ended = true;
  for (const std::unique_ptr<serve::Volume>& volume : shared.volumes) {
    volume->origin->stop();
    ended &= volume->origin->join(origin_patience_ms);
  }
  return ended;
}

}  // namespace blobcache::node
