// doctor: what this machine offers, what is missing, and what to do about it.
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <climits>
#include <ctime>
#include <iterator>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "base/config.h"
#include "base/secrets.h"
#include "cli/bounded.h"
#include "cli/checks.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/facts.h"
#include "cli/mount_plan.h"
#include "cli/mountpoint.h"
#include "cli/origin_probe.h"
#include "cli/source.h"

namespace blobcache::cli {
namespace {

constexpr const char* config_path = "/etc/blobcache/blobcache.toml";
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

Check look_at_source(const std::string& source) {
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

// Those of the configuration file and of the command line; the default place where it is in use already.
std::vector<std::string> cache_directories(const std::vector<std::string>& given) {
  if (!given.empty()) return given;
  Config config;
  std::vector<std::string> paths;
  if (access(config_path, R_OK) == 0 && load_config_file(config, config_path).empty()) {
    for (const DiskConfig& disk : config.cache.disks) paths.push_back(disk.path);
  }
  const std::string standard = DiskConfig().path;
  if (paths.empty() && access(standard.c_str(), F_OK) == 0) paths.push_back(standard);
  return paths;
}

std::string absolute(const std::string& path) {
  char working_directory[PATH_MAX] = "/";
  if (getcwd(working_directory, sizeof working_directory) == nullptr) return path;
  return lexical_path(path, working_directory);
}

}  // namespace

int doctor_command(int argc, char** argv) {
  CLI::App app("Check this machine: a line each, ok, slow, missing or off, with the remedy.", "blobcache doctor");
  std::string source;
  std::vector<std::string> cache_dirs;
  std::vector<std::string> options;
  bool json = false;
  app.add_option("SOURCE", source, "what would be mounted: a directory, s3://BUCKET/PREFIX or http(s)://HOST/PATH/");
  app.add_option("--cache-dir", cache_dirs, "a cache directory, or a place for one, to try out; may be repeated")
      ->type_name("DIR")
      ->allow_extra_args(false);
  app.add_option("-o", options, "as for `blobcache mount`, such as volume.s3.endpoint=URL; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  app.add_flag("--json", json, "for programs");
  app.footer(
      "Ends with 3 when something is missing.\n\nExamples:\n  blobcache doctor /data/models "
      "--cache-dir=/nvme/blobcache\n  blobcache doctor s3://bucket/models -o volume.s3.region=eu-central-1");
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;

  Config config;
  const node::Outcome applied = apply_mount_arguments({.options = options}, environ, &config);
  if (applied.exit_code != 0) return refuse(applied.exit_code, applied.message);
  if (config.volumes.empty()) config.volumes.emplace_back();
  config.volumes[0].source = source;

  std::vector<Check> checks = check_facts(read_facts());
  for (const std::string& path : cache_directories(cache_dirs))
    checks.push_back(check_disk(probe_disk(absolute(path))));
  if (is_remote_source(source)) {
    std::ranges::move(probe_origin(config.volumes[0], config.origin), std::back_inserter(checks));
  } else if (!source.empty()) {
    checks.push_back(look_at_source(source));
  }
  fmt::print("{}", redacted(json ? render_checks_json(checks) : render_checks(checks)));
  const bool missing =
      std::any_of(checks.begin(), checks.end(), [](const Check& c) { return c.state == State::missing; });
  return missing ? exit_lacking : exit_done;
}

}  // namespace blobcache::cli
