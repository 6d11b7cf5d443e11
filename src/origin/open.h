// From a volume's source to its origin: a directory, file://, s3:// or http(s)://.
//   Thread    main; after the last fork. May block: a remote source is asked once
#pragma once

#include <memory>
#include <string>

#include "base/config.h"
#include "origin/origin.h"

namespace blobcache {

// *why is one sentence for the operator: cause and remedy. names_directory: where indexes of names are kept; empty: nowhere.
Result<std::unique_ptr<Origin>> open_origin(const VolumeConfig& volume, const OriginConfig& origin, std::string* why,
                                            const std::string& names_directory = {});

// What such an origin may take beside the memory of its callers, for the memory plan.
uint64_t origin_memory_bytes(const VolumeConfig& volume, const OriginConfig& origin, unsigned cores);

}  // namespace blobcache
