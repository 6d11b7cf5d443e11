// doctor: what this machine offers, what is missing, and what to do about it.
#include <algorithm>
#include <climits>
#include <iterator>

#include <fmt/format.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "base/config.h"
#include "base/secrets.h"
#include "cli/checks.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/config_sources.h"
#include "cli/doctor_sources.h"
#include "cli/facts.h"
#include "cli/mountpoint.h"

namespace blobcache::cli {
namespace {

// Those of the command line; of the configuration file; the default place where it is in use already.
std::vector<std::string> cache_directories(const std::vector<std::string>& given,
                                           const std::vector<DiskConfig>& disks) {
  if (!given.empty()) return given;
  std::vector<std::string> paths;
  for (const DiskConfig& disk : disks) paths.push_back(disk.path);
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
  SourcesWanted wanted;
  std::vector<std::string> cache_dirs;
  bool json = false;
  app.add_option("SOURCE", wanted.source,
                 "a volume of the file by its name, or what would be mounted: a directory, s3://BUCKET/PREFIX or "
                 "http(s)://HOST/PATH/; without it: every volume of the file");
  app.add_option("--config", wanted.config_path,
                 fmt::format("the file whose volumes are asked ({}, where it is there)", ConfigSources().path))
      ->type_name("FILE");
  app.add_option("--cache-dir", cache_dirs, "a cache directory, or a place for one, to try out; may be repeated")
      ->type_name("DIR")
      ->allow_extra_args(false);
  app.add_option("-o", wanted.options, "as for `blobcache mount`, such as volume.s3.endpoint=URL; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  app.add_flag("--json", json, "for programs");
  app.footer(
      "Ends with 3 when something is missing.\n\nExamples:\n  blobcache doctor --config=blobcache.toml\n"
      "  blobcache doctor models\n  blobcache doctor /data/models --cache-dir=/nvme/blobcache\n"
      "  blobcache doctor s3://bucket/models -o volume.s3.region=eu-central-1");
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;

  SourcesFound found;
  const node::Outcome outcome = find_sources(wanted, &found);
  if (outcome.exit_code != 0) return refuse(outcome.exit_code, outcome.message);

  std::vector<Check> checks = check_facts(read_facts());
  for (const std::string& problem : found.problems)
    checks.push_back({"config", State::missing, problem, "correct it; `blobcache config check` says when it is right"});
  for (const std::string& path : cache_directories(cache_dirs, found.disks))
    checks.push_back(check_disk(probe_disk(absolute(path))));
  for (const VolumeConfig& volume : found.volumes)
    std::ranges::move(check_volume(volume, found.origin), std::back_inserter(checks));
  fmt::print("{}", redacted(json ? render_checks_json(checks) : render_checks(checks)));
  const bool missing =
      std::any_of(checks.begin(), checks.end(), [](const Check& c) { return c.state == State::missing; });
  return missing ? exit_lacking : exit_done;
}

}  // namespace blobcache::cli
