// DoctorSources: which sources `doctor` asks, and what they answer.
//   Thread    main, before any other thread exists (bounded.h)
#pragma once

#include <string>
#include <vector>

#include "base/config.h"
#include "cli/checks.h"
#include "node/node.h"

namespace blobcache::cli {

struct SourcesWanted {
  std::string source;                // "": every volume of the file
  std::string config_path;           // "": the usual place, where there may be none
  std::vector<std::string> options;  // KEY=VALUE
};

struct SourcesFound {
  // With all that belongs to it: endpoint, credentials, region, certificates. Of the command line alone: without a name.
  std::vector<VolumeConfig> volumes;
  OriginConfig origin;
  std::vector<DiskConfig> disks;      // of the file
  std::vector<std::string> problems;  // of the file: it is as good as none
};

// A source without '/' is a volume's name where the file has that name, else a directory; where the file has a mistake, the
// mistake is told, and a directory of that name is asked all the same. Wrong use: options that are none or do not fit the file,
// a name that a file given by its path does not have.
node::Outcome find_sources(const SourcesWanted& wanted, SourcesFound* found);

// A line for each question that was answered; those of a volume begin with its name.
std::vector<Check> check_volume(const VolumeConfig& volume, const OriginConfig& origin);

}  // namespace blobcache::cli
