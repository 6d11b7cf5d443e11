// config: check a file with line numbers, show what is in force and why, or explain every key.
#include <fmt/format.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "base/config.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/config_sources.h"

namespace blobcache::cli {
namespace {

int print_problems(const Problems& problems) {
  for (const std::string& problem : problems) refuse(exit_failed, problem);
  return exit_failed;
}

// {"values":[{"key":"node.name","value":"hostname","from":"default"},...]}
void print_values(const Config& config) {
  std::string values;
  for (const ShownValue& shown : shown_values(config)) {
    values += fmt::format("{}{{\"key\":{},\"value\":{},\"from\":{}}}", values.empty() ? "" : ",",
                          json_string(shown.place), json_string(shown.value), json_string(shown.from));
  }
  fmt::print("{{\"values\":[{}]}}\n", values);
}

}  // namespace

// What does not fit together is told once each value is right by itself.
Problems load_config(const ConfigSources& sources, Config* config) {
  Problems problems = load_config_file(*config, sources.path);
  for (std::string& problem : load_config_environment(*config, environ)) problems.push_back(std::move(problem));
  for (const std::string& option : sources.options) {
    if (std::optional<std::string> problem = set_config_option(*config, option))
      problems.push_back(std::move(*problem));
  }
  return problems.empty() ? check_config(*config) : problems;
}

int config_command(int argc, char** argv) {
  CLI::App app("Check, show or explain the configuration.", "blobcache config");
  app.require_subcommand(1);
  ConfigSources sources;
  bool toml = false;
  bool json = false;
  CLI::App* check = app.add_subcommand("check", "validate a file: every problem with its line");
  CLI::App* show = app.add_subcommand("show", "the values in force, and where each came from");
  CLI::App* reference = app.add_subcommand("reference", "every key with default, unit and meaning");
  for (CLI::App* command : {check, show}) {
    command->add_option("--config", sources.path, fmt::format("the file ({})", sources.path))->type_name("FILE");
    command->add_option("-o", sources.options, "a key that overrides the file; may be repeated")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false);
  }
  show->add_flag("--json", json, "for programs");
  reference->add_flag("--toml", toml, "as a file to start from, every key commented out");
  for (CLI::App* command : {&app, check, show, reference}) {
    command->footer("Examples:\n  blobcache config check --config=blobcache.toml\n  blobcache config reference | less");
  }
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;

  if (reference->parsed()) {
    fmt::print("{}", toml ? config_example() : config_reference());
    return exit_done;
  }
  Config config;
  const Problems problems = load_config(sources, &config);
  if (!problems.empty()) return print_problems(problems);
  if (check->parsed()) {
    fmt::print("{}: ok, {} volumes, {} cache disks\n", sources.path, config.volumes.size(), config.cache.disks.size());
  } else if (json) {
    print_values(config);
  } else {
    fmt::print("{}", show_config(config));
  }
  return exit_done;
}

}  // namespace blobcache::cli
