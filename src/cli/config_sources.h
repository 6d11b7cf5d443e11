// ConfigSources: where `run` and `config` take the configuration from, in this order: file, environment, options.
//   Thread    main
#pragma once

#include <string>
#include <vector>

#include "base/config.h"

namespace blobcache::cli {

struct ConfigSources {
  std::string path = "/etc/blobcache/blobcache.toml";
  std::vector<std::string> options;  // KEY=VALUE
};

// All of them into config. Problems: as base/config.h says.
Problems load_config(const ConfigSources& sources, Config* config);

}  // namespace blobcache::cli
