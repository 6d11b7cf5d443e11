// What a configuration that was read again changes, and which of it takes effect without a restart.
//   Thread    the main thread
//   Matching  disks by path, volumes by mount point, both as they were written
#pragma once

#include <string>
#include <vector>

#include "base/config.h"

namespace blobcache {

struct ConfigChange {
  std::string place;  // "cache.disk[0].high_watermark"; of what came or went "volume[1]"
  std::string before;
  std::string after;        // both as a person may see them
  bool reloadable = false;  // takes effect now; otherwise after a restart
};

// Sorted as the table of keys is; disks and volumes that came or went last.
std::vector<ConfigChange> config_changes(const Config& before, const Config& after);
// Takes the values of reloadable keys over into config, whose disks and volumes are those of `like`, in the same order.
void take_reloadable(Config& config, const Config& like, const Config& fresh);

}  // namespace blobcache
