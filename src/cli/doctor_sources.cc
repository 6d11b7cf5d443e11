// What is configured is asked as the daemon would ask it: the file's keys, the environment's and the options' together, by the
// origin's own code (origin_probe.h). A directory is looked at, entry by entry, since there is nothing to log in to.
//
// A volume's index is left out: it is names on the disk, and the question here is whether the server answers.
#include "cli/doctor_sources.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <ctime>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/bounded.h"
#include "cli/command.h"
#include "cli/config_sources.h"
#include "cli/mount_plan.h"
#include "cli/origin_probe.h"
#include "cli/source.h"

namespace blobcache::cli {
namespace {

constexpr int source_ms = 10'000;
constexpr size_t looks_max = 64;

uint64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// Looks at entries of the directory one by one, as a mount would; the first look at each is what counts. AT_STATX_FORCE_SYNC
// asks a file server and not its cache on this machine.
int time_looks(const std::string& path, int output_fd) {
  DIR* directory = opendir(path.c_str());
  if (directory == nullptr) return errno;
  std::vector<uint64_t> times_ns;
  while (const dirent* entry = readdir(directory)) {
    struct statx status{};
    const uint64_t start_ns = now_ns();
    statx(dirfd(directory), entry->d_name, AT_SYMLINK_NOFOLLOW | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &status);
    times_ns.push_back(now_ns() - start_ns);
    if (times_ns.size() == looks_max) break;
  }
  closedir(directory);
  std::sort(times_ns.begin(), times_ns.end());
  if (!times_ns.empty()) write_all(output_fd, fmt::format("{} {}", times_ns[times_ns.size() / 2], times_ns.back()));
  return 0;
}

Check look_at_directory(const std::string& source) {
  std::string path;
  const node::Outcome outcome = source_path(source, &path);
  if (outcome.exit_code != 0) return {"source", State::missing, source, outcome.message};
  const auto result = run_bounded(source_ms, [&](int output_fd) { return time_looks(path, output_fd); });
  if (!result) return check_source(path, ETIMEDOUT, 0, 0);
  uint64_t median_ns = 0;
  uint64_t worst_ns = 0;
  const char* end = result->output.data() + result->output.size();
  const auto first = std::from_chars(result->output.data(), end, median_ns);
  if (first.ptr != end) std::from_chars(first.ptr + 1, end, worst_ns);
  return check_source(path, result->exit_code, median_ns, worst_ns);
}

std::vector<Check> ask(VolumeConfig volume, const OriginConfig& origin) {
  volume.index = Indexing::off;
  if (is_remote_source(volume.source)) return probe_origin(volume, origin);
  if (volume.source == "blobs:") return {{"source", State::ok, "blobs: lie in this node's content store", ""}};
  return {look_at_directory(volume.source)};
}

bool may_be_name(const std::string& source) { return !source.empty() && source.find('/') == std::string::npos; }

// The file's part of `found`. False: `source` is no name in it.
bool take_configured(const Config& config, const std::string& source, SourcesFound* found) {
  found->origin = config.origin;
  found->volumes = config.volumes;
  if (source.empty()) return true;
  std::erase_if(found->volumes, [&](const VolumeConfig& volume) { return volume.name != source; });
  return !found->volumes.empty();
}

bool is_directory(const std::string& path) {
  struct stat status{};
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

bool has_volume(const Config& config, const std::string& name) {
  return std::ranges::any_of(config.volumes, [&](const VolumeConfig& volume) { return volume.name == name; });
}

// What the file says of the source that is wanted. settled: that is all there is to ask.
node::Outcome take_from_file(const SourcesWanted& wanted, ConfigSources sources, SourcesFound* found, bool* settled) {
  const bool is_named = !wanted.config_path.empty();
  Config file;
  found->problems = load_config(sources, &file);
  if (found->problems.empty()) found->disks = file.cache.disks;
  if (!wanted.source.empty() && !may_be_name(wanted.source)) {
    if (!is_named) found->problems.clear();
    return {};
  }
  if (!found->problems.empty()) {
    // Nobody knows whether it would have the name.
    *settled = wanted.source.empty() || is_named || !is_directory(wanted.source);
    return {};
  }
  // The file is right: what is wrong now are the options.
  sources.options = wanted.options;
  Config whole;
  if (const Problems problems = load_config(sources, &whole); !problems.empty()) {
    if (wanted.source.empty() || is_named || has_volume(file, wanted.source)) return {exit_wrong_use, problems.front()};
    return {};
  }
  *settled = take_configured(whole, wanted.source, found);
  if (*settled || !is_named) return {};
  std::vector<std::string> names;
  for (const VolumeConfig& volume : whole.volumes) names.push_back(volume.name);
  return {exit_wrong_use, fmt::format("{} has no volume {}; it has: {}", sources.path, wanted.source,
                                      names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")))};
}

}  // namespace

node::Outcome find_sources(const SourcesWanted& wanted, SourcesFound* found) {
  Config config;
  const node::Outcome applied = apply_mount_arguments({.options = wanted.options}, environ, &config);
  if (applied.exit_code != 0) return applied;

  ConfigSources sources;
  if (!wanted.config_path.empty()) sources.path = wanted.config_path;
  if (!wanted.config_path.empty() || access(sources.path.c_str(), R_OK) == 0) {
    bool settled = false;
    const node::Outcome outcome = take_from_file(wanted, sources, found, &settled);
    if (outcome.exit_code != 0 || settled) return outcome;
  }
  found->volumes.clear();
  if (wanted.source.empty()) return {};
  found->volumes.push_back(config.volumes.empty() ? VolumeConfig() : config.volumes[0]);
  found->volumes[0].source = wanted.source;
  found->volumes[0].name.clear();
  found->origin = config.origin;
  return {};
}

std::vector<Check> check_volume(const VolumeConfig& volume, const OriginConfig& origin) {
  std::vector<Check> checks = ask(volume, origin);
  if (volume.name.empty()) return checks;
  for (Check& check : checks) check.detail = fmt::format("{}: {}", volume.name, check.detail);
  return checks;
}

}  // namespace blobcache::cli
