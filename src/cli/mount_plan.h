// MountPlan: the command line of `mount`, or the file of `run`, as a checked Config.
//   Thread    main
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "node/node.h"

namespace blobcache::cli {

struct MountArguments {
  std::string source;
  std::string mountpoint;
  std::optional<std::string> cache_dir;
  std::optional<std::string> cache_size;
  std::optional<std::string> memory;
  std::vector<std::string> options;  // KEY=VALUE
  bool foreground = false;
};

// Environment, options and short forms into `config`; what makes no sense together is wrong use.
node::Outcome apply_mount_arguments(const MountArguments& arguments, const char* const* environment, Config* config);

// Source and mount point: resolved, looked at, put into the one volume. notes_out: what a person should know.
node::Outcome place_volume(const MountArguments& arguments, Config* config, std::vector<std::string>* notes_out);

// The same for every volume that a file configures. notes_out: as above.
node::Outcome place_volumes(Config* config, std::vector<std::string>* notes_out);

// What every mount needs of the machine: /dev/fuse, io_uring, and fusermount3 where the user is not root.
node::Outcome check_machine();

}  // namespace blobcache::cli
