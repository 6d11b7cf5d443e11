// run: the appliance. Every volume of the configuration file, in the foreground, for a service manager or a container.
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/log.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/config_sources.h"
#include "cli/mount_plan.h"
#include "node/node.h"

namespace blobcache::cli {

int run_command(int argc, char** argv) {
  CLI::App app("Serve every volume of a configuration file; stays in the foreground.", "blobcache run");
  ConfigSources sources;
  app.add_option("--config", sources.path, fmt::format("the file ({})", sources.path))->type_name("FILE");
  app.footer(
      "Examples:\n"
      "  blobcache run --config=blobcache.toml\n"
      "  BLOBCACHE_LOG_LEVEL=debug blobcache run\n"
      "\nSIGTERM drains and ends it; SIGHUP reads the file again and says what needs a restart.");
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;

  Config written;
  const Problems problems = load_config(sources, &written);
  for (const std::string& problem : problems) refuse(exit_failed, problem);
  if (!problems.empty()) return exit_failed;
  if (written.volumes.empty()) {
    return refuse(exit_failed,
                  fmt::format("{} names no [[volume]]; add one with its source and mountpoint", sources.path));
  }

  Config config = written;
  std::vector<std::string> notes;
  node::Outcome outcome = check_machine();
  if (outcome.exit_code == 0) outcome = place_volumes(&config, &notes);
  for (const std::string& note : notes) fmt::print(stderr, "blobcache: {}\n", note);
  if (outcome.exit_code != 0) return refuse(outcome.exit_code, outcome.message);

  log::configure({.level = config.log.level, .format = config.log.format});
  outcome = node::run(config, {.load = [&](Config& fresh) { return load_config(sources, &fresh); },
                               .written = &written,
                               .name = config.node.name,
                               .notify = true});
  return outcome.exit_code == 0 ? exit_done : refuse(outcome.exit_code, outcome.message);
}

}  // namespace blobcache::cli
