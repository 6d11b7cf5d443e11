// What `warm` tells a daemon of files: to drop them, to forget them, to keep them (pins).
//   Thread    main; each call waits for the daemon's answer
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/warm_files.h"

namespace blobcache::cli {

struct Told {
  bool done = false;
  std::string text;  // what the daemon answered, or the cause
};
// command: "evict", "forget", "pin" or "unpin".
Told tell_daemon(std::string_view command, const WarmFile& file);

// Pins each file that may be pinned, so that nothing pushes its beginning out while its end is read.
class WarmPins {
 public:
  // Empty files have no object, and are nothing to pin.
  void pin(std::span<const WarmFile> files);
  // Those that are pinned now, to be read.
  const std::vector<WarmFile>& files() const { return files_; }
  // After they were read: what has not come to the disk whole is unpinned again, unless it was pinned before.
  void settle(std::vector<WarmFailure>* failures);

 private:
  std::vector<WarmFile> files_;
  std::vector<bool> fresh_;  // by us
  std::vector<WarmFailure> failures_;
};

// Takes every pin of the daemons that these paths are mounted by, also of versions that their origins have replaced.
uint64_t unpin_all(const std::vector<std::string>& paths, std::vector<WarmFailure>* failures);

}  // namespace blobcache::cli
