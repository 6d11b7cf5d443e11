// Extended attributes that tell what we know: user.blobcache.{id,tiers,source,version}, and path: the file on disk that has
// all of the object's bytes, verified, for those who want to read it without us. What lies on disk is looked up chunk by
// chunk, which is long for a large object and still shorter than asking for it.
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <sys/stat.h>

#include "serve/volume_server.h"

namespace blobcache::serve {
namespace {

constexpr std::array<std::string_view, 5> names = {"user.blobcache.id", "user.blobcache.tiers", "user.blobcache.source",
                                                   "user.blobcache.version", "user.blobcache.path"};
constexpr std::string_view path_name = names[4];

std::string readable_version(const FileVersion& version) {
  bool printable = true;
  for (const char c : version.view()) printable &= std::isprint(static_cast<unsigned char>(c)) != 0;
  if (printable) return std::string(version.view());
  std::string hex;
  for (const char c : version.view()) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return hex;
}

// Bytes of the object that lie in each tier of this node; of a pinned one, all of it is pinned.
std::string tiers_json(Volume& volume, const ObjectId& id, uint64_t size) {
  DiskObjectFacts facts;
  if (volume.disk != nullptr) facts = volume.disk->facts(id, size);
  return fmt::format(R"({{"memory":{},"disk":{},"disk_verified":{},"peer":0,"pinned":{}}})",
                     volume.memory->cached_bytes(id, size), facts.valid_bytes, facts.verified_bytes,
                     facts.pinned ? size : 0);
}

// Empty: it has none, or not all of it is known to be right.
std::string path_of(Volume& volume, const fuse::Node& node) {
  if (volume.disk == nullptr) return {};
  const DiskObjectFacts facts = volume.disk->facts(volume.object_id_of(node.key, node.info), node.info.attributes.size);
  return facts.whole_verified ? facts.path : std::string();
}

std::string value_of(Volume& volume, const fuse::Node& node, std::string_view name) {
  const ObjectId id = volume.object_id_of(node.key, node.info);
  if (name == names[0]) return to_hex(id);
  if (name == names[1]) return tiers_json(volume, id, node.info.attributes.size);
  if (name == names[2]) return fmt::format("{}/{}", volume.origin->canonical_source(), node.key);
  return readable_version(node.info.version);
}

bool is_ours(std::string_view name) {
  for (const std::string_view known : names) {
    if (name == known) return true;
  }
  return false;
}

// size 0 asks for the size alone.
void reply_bytes(fuse::Slot& slot, std::string_view value, uint32_t size) {
  if (size == 0) {
    slot.reply_as<fuse_getxattr_out>().size = static_cast<uint32_t>(value.size());
    return send_reply(slot, sizeof(fuse_getxattr_out));
  }
  if (value.size() > size || value.size() > slot.payload_bytes) return send_error(slot, ERANGE);
  std::memcpy(slot.payload, value.data(), value.size());
  send_reply(slot, static_cast<uint32_t>(value.size()));
}

}  // namespace

void VolumeServer::get_xattr(Request& request) {
  fuse::Slot& slot = *request.slot;
  const std::string name(slot.name());
  fuse::Node node;
  // ls and cp ask for ACLs and labels of every file until they are told that this file system has none.
  if (!name.starts_with("user.")) return reply_error(request, EOPNOTSUPP);
  if (!is_ours(name)) return reply_error(request, ENODATA);
  if (!volume().inodes.get(slot.in().nodeid, node)) return reply_error(request, ESTALE);
  if (!S_ISREG(node.info.attributes.mode)) return reply_error(request, ENODATA);
  const std::string value = name == path_name ? path_of(volume(), node) : value_of(volume(), node, name);
  if (value.empty()) return reply_error(request, ENODATA);
  reply_bytes(slot, value, slot.argument<fuse_getxattr_in>().size);
}

void VolumeServer::list_xattr(Request& request) {
  fuse::Slot& slot = *request.slot;
  fuse::Node node;
  if (!volume().inodes.get(slot.in().nodeid, node)) return reply_error(request, ESTALE);
  std::string list;
  if (S_ISREG(node.info.attributes.mode)) {
    const bool has_path = !path_of(volume(), node).empty();
    for (const std::string_view name : names) {
      if (name != path_name || has_path) list.append(name).push_back('\0');
    }
  }
  reply_bytes(slot, list, slot.argument<fuse_getxattr_in>().size);
}

}  // namespace blobcache::serve
