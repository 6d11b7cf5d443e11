// mount: the quick way. One volume, no file; returns when the mount answers, and the daemon stays.
#include <cstdio>
#include <cstring>

#include <fmt/format.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "base/log.h"
#include "base/state_paths.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/daemon.h"
#include "cli/mount_plan.h"
#include "node/node.h"

namespace blobcache::cli {
namespace {

void print_summary(std::string summary) {
  while (summary.ends_with('\n')) summary.pop_back();
  fmt::print("{}\n", summary);
  std::fflush(stdout);
}

node::Outcome run_in_foreground(const Config& config) {
  return node::run(config, {.on_ready = print_summary, .notify = true});
}

node::Outcome run_in_background(const Config& config) {
  const std::string directory = state_directory();
  if (const int os_errno = make_state_directory(); os_errno != 0) {
    return {exit_failed, fmt::format("the folder {} for the control socket cannot be used ({}); check who owns it",
                                     directory, std::strerror(os_errno))};
  }
  const std::string& mountpoint = config.volumes[0].mountpoint;
  const DaemonOptions options{
      .log_path = config.log.file.empty() ? log_path(directory, escape_mount_path(mountpoint)) : config.log.file,
      .mountpoint = mountpoint,
  };
  node::Outcome outcome = start_daemon(options, [&](const OnReady& on_ready) {
    log::configure({.level = config.log.level, .format = config.log.format});
    return node::run(config, {.on_ready = on_ready});
  });
  if (outcome.exit_code == 0) print_summary(outcome.message);
  return outcome;
}

void describe(CLI::App& app, MountArguments& arguments) {
  app.add_option("SOURCE", arguments.source, "what to show: a directory, s3://BUCKET/PREFIX or http(s)://HOST/PATH/")
      ->required();
  app.add_option("MOUNTPOINT", arguments.mountpoint, "an empty directory to show it in")->required();
  app.add_option("--cache-dir", arguments.cache_dir, "disk cache, created 0700 (cache.disk.path)")->type_name("DIR");
  app.add_option("--cache-size", arguments.cache_size, "most it may take of the disk (cache.disk.size)")
      ->type_name("SIZE");
  app.add_option("--memory", arguments.memory, "most memory the process may use (memory.limit)")->type_name("SIZE");
  app.add_option("-o", arguments.options, "any key of `blobcache config reference`; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  app.add_flag("--foreground", arguments.foreground, "stay, and log to stderr");
  app.footer(
      "Examples:\n"
      "  blobcache mount /data/models /mnt/models\n"
      "  blobcache mount /data/models /mnt/models --memory=8GiB -o fuse.transport=dev\n"
      "  blobcache mount /nfs/models /mnt/models --cache-dir=/nvme/blobcache --cache-size=500GB\n"
      "\nEnd it with `blobcache umount MOUNTPOINT`.");
}

}  // namespace

int mount_command(int argc, char** argv) {
  CLI::App app("Show a directory through the cache; returns when the mount answers.", "blobcache mount");
  MountArguments arguments;
  describe(app, arguments);
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;

  Config config;
  std::vector<std::string> notes;
  node::Outcome outcome = apply_mount_arguments(arguments, environ, &config);
  if (outcome.exit_code == 0) outcome = check_machine();
  if (outcome.exit_code == 0) outcome = place_volume(arguments, &config, &notes);
  for (const std::string& note : notes) fmt::print(stderr, "blobcache: {}\n", note);
  if (outcome.exit_code != 0) return refuse(outcome.exit_code, outcome.message);

  log::configure({.level = config.log.level, .format = config.log.format});
  outcome = arguments.foreground ? run_in_foreground(config) : run_in_background(config);
  return outcome.exit_code == 0 ? exit_done : refuse(outcome.exit_code, outcome.message);
}

}  // namespace blobcache::cli
