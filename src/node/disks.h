// Disks: opens the disk tier that a configuration asks for, and says whether the kernel may read its files itself.
//   Thread    the main thread, before any other exists
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/config.h"
#include "cache/disk_tier.h"
#include "node/outcome.h"
#include "node/plan.h"
#include "serve/content.h"

namespace blobcache::node {

// Whose a cache directory is: the same for every start of this node, another one for every other node. Made of what the
// machine calls itself and of node.name, so that two nodes on one machine do not share a directory by accident.
disk_format::Uuid node_uuid(std::string_view machine, std::string_view node_name);
// /etc/machine-id; the host's name where there is none (containers).
std::string machine_identity();

// What the volumes together may take of the disks; none: no limit.
Amount volumes_quota(const Config& config);

// tier_out stays null without disks. A directory that is not ours to use is a failure with the tier's own sentence.
Outcome open_disks(const Config& config, const Plan& plan, std::unique_ptr<DiskTier>* tier_out);

// The content store on its share of the disks; without one it stays closed.
Outcome open_content(const Config& config, const Plan& plan, serve::Content& content);

// What stands against passthrough before the kernel was asked; empty: nothing does.
std::string why_no_passthrough(const Config& config, const DiskTier* tier);

}  // namespace blobcache::node
