// Volume: one read-only tree: where it comes from, what the kernel knows of it, what is open.
//   Owner     Node.   Thread  built on the main thread; then shared by the cores, each member by its own rules
#pragma once

#include <memory>
#include <string>

#include "base/config.h"
#include "cache/memory_tier.h"
#include "fuse/entries.h"
#include "fuse/inodes.h"
#include "fuse/session.h"
#include "origin/origin.h"
#include "serve/handle.h"

namespace blobcache::serve {

struct Volume {
  unsigned number = 0;
  VolumeConfig config;
  FuseConfig fuse_config;
  OriginConfig origin_config;
  // What makes its objects the same on every node: the explicit id, or the canonical source.
  std::string identity;
  std::unique_ptr<Origin> origin;
  MemoryTier* memory = nullptr;

  fuse::Session session;
  fuse::Entries entries;
  fuse::Inodes inodes;
  Handles handles;

  ObjectId object_id_of(std::string_view key, const FileInfo& info) const {
    return object_id(identity, info.key_in_identity ? key : std::string_view(), info.version.view());
  }
};

}  // namespace blobcache::serve
