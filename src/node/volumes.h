// Volumes: from a configuration to mounted trees and back. Each is a step of Node's way up or down.
//   Thread    the main thread; no core runs yet, or the cores go on serving meanwhile (detach, abort)
#pragma once

#include "base/config.h"
#include "node/core.h"
#include "node/outcome.h"
#include "node/plan.h"

namespace blobcache::node {

// Opens the origins.
Outcome make_volumes(const Config& config, SharedState& shared);
// Mounts, and agrees with the kernel on how to talk. why_no_passthrough: empty asks for it; then what it is off for.
Outcome mount_volumes(const Config& config, const Plan& plan, SharedState& shared, std::string* why_no_passthrough);
// Out of the name space: who has files open is still served.
void detach_volumes(SharedState& shared);
// Every request of them fails, now and later.
void abort_volumes(SharedState& shared);
// False: an origin still hangs, and what it was given may not be freed.
bool stop_origins(SharedState& shared);

}  // namespace blobcache::node
