// OriginProbe: asks a remote source what a mount would ask it (its root, a listing, a byte of a file), with the origin's own
// code, so that what doctor finds is what a mount would find.
//   Thread    main, before any other thread exists (bounded.h). Answers within a minute
#pragma once

#include <vector>

#include "base/config.h"
#include "cli/checks.h"

namespace blobcache::cli {

// A line for each question that was answered, up to the first that was not.
std::vector<Check> probe_origin(const VolumeConfig& volume, const OriginConfig& origin);

}  // namespace blobcache::cli
