#include "node/disks.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include <fmt/format.h>
#include <linux/capability.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/features.h"
#include "base/log.h"
#include "base/object_id.h"
#include "base/units.h"

namespace blobcache::node {
namespace {

// FUSE_DEV_IOC_BACKING_OPEN asks for it (fs/fuse/backing.c): the kernel reads the file on behalf of users who may not.
bool has_admin_capability() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capget, &header, data) != 0) return false;
  return (data[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective & CAP_TO_MASK(CAP_SYS_ADMIN)) != 0;
}

}  // namespace

disk_format::Uuid node_uuid(std::string_view machine, std::string_view node_name) {
  const ObjectId hash = object_id("blobcache node", machine, node_name);
  disk_format::Uuid uuid;
  uuid.words[0] = hash.words[0];
  uuid.words[1] = hash.words[1];
  return uuid;
}

std::string machine_identity() {
  std::ifstream file("/etc/machine-id");
  std::string id;
  // systemd writes "uninitialized" into images that are to make their own at first boot.
  if ((file >> id) && id != "uninitialized") return id;
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 ? std::string(name) : std::string();
}

Amount volumes_quota(const Config& config) {
  return config.volumes.size() == 1 ? config.volumes.front().quota : Amount();
}

Outcome open_disks(const Config& config, const Plan& plan, std::unique_ptr<DiskTier>* tier_out) {
  if (config.cache.disks.empty()) return {};
  auto tier = std::make_unique<DiskTier>();
  std::string message;
  const Result<void> opened = tier->open({.cache = config.cache,
                                          .node = node_uuid(machine_identity(), config.node.name),
                                          .memory_bytes = plan.disk_index_bytes,
                                          .quota = volumes_quota(config)},
                                         &message);
  if (!opened) return failed(message);
  *tier_out = std::move(tier);
  return {};
}

Outcome open_content(const Config& config, const Plan& plan, serve::Content& content) {
  const Amount& reserved = config.cache.blobs_reserved;
  const auto& disks = config.cache.disks;
  if (reserved == Amount()) {
    for (const VolumeConfig& volume : config.volumes) {
      if (!volume.source.starts_with(blobs_scheme)) continue;
      return failed(
          fmt::format("volume '{}' shows the content store, which has no room: set cache.blobs_reserved", volume.name));
    }
    for (const DiskConfig& disk : disks) {
      if (access((disk.path + "/blobs").c_str(), F_OK) != 0) continue;
      BC_LOG(warn, "{}/blobs is not looked at: cache.blobs_reserved is 0, so this node has no content store",
             disk.path);
    }
    return {};
  }
  if (disks.empty())
    return failed("cache.blobs_reserved is a share of the disks, and there is no [[cache.disk]]: add one");
  std::vector<BlobStore::Disk> shares;
  for (const DiskConfig& disk : disks) {
    struct statvfs status{};
    if (statvfs(disk.path.c_str(), &status) != 0) {
      return failed(fmt::format("cannot look at cache.disk {}: {}", disk.path, std::strerror(errno)));
    }
    const uint64_t total = uint64_t{status.f_blocks - status.f_bfree + status.f_bavail} * status.f_frsize;
    shares.push_back({.path = disk.path,
                      .limit_bytes = reserved.is_share ? reserved.resolve(total) : reserved.bytes / disks.size()});
  }
  std::string message;
  if (!content.open(std::move(shares), plan.blobs_max, &message)) return failed(message);
  const BlobStore::Facts facts = content.store().facts();
  BC_LOG(info, "content store: {} blobs, {} of {} taken", facts.blobs, format_bytes_short(facts.used_bytes),
         format_bytes_short(facts.limit_bytes));
  return {};
}

std::string why_no_passthrough(const Config& config, const DiskTier* tier) {
  if (config.fuse.passthrough == Switch::off) return "fuse.passthrough is off";
  if (tier == nullptr) return "there is no disk tier (--cache-dir)";
  if (config.cache.verify == Verify::always) return "cache.verify = always compares every read";
  if (pretended_absent(Feature::passthrough)) return "BLOBCACHE_PRETEND_ABSENT hides it";
  bool stacked = true;
  for (unsigned disk = 0; disk < tier->disk_count(); ++disk) stacked &= tier->stacked(disk);
  if (stacked) {
    return "the cache directory lies on a stacked filesystem (overlayfs); choose one on ext4, xfs or btrfs";
  }
  if (!has_admin_capability()) return "this process has no CAP_SYS_ADMIN; run it as root";
  return "";
}

}  // namespace blobcache::node
