#include "cli/command.h"

#include <cstdio>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/config_keys.h"
#include "base/secrets.h"

namespace blobcache::cli {
namespace {

std::span<const Command> all_commands;
std::function<void(const CLI::App&)> options_reader;

std::string overview(std::span<const Command> commands) {
  std::string out = "A read cache of memory and local disks in front of object storage, shown as a directory.\n\n";
  out += "Usage: blobcache COMMAND [ARGUMENT...]\n\nCommands:\n";
  for (const Command& command : commands) {
    if (!command.summary.empty()) out += fmt::format("  {:<10} {}\n", command.name, command.summary);
  }
  return out +
         "\nExample:\n  blobcache mount /data/models /mnt/models\n\n`blobcache COMMAND --help` says more about each.\n";
}

const Command& nearest(std::span<const Command> commands, std::string_view word) {
  const Command* best = &commands.front();
  for (const Command& command : commands) {
    if (command.summary.empty()) continue;
    if (edit_distance(word, command.name) < edit_distance(word, best->name)) best = &command;
  }
  return *best;
}

}  // namespace

int run_command(std::span<const Command> commands, int argc, char** argv) {
  all_commands = commands;
  remember_environment_secrets();
  std::string_view word = argc > 1 ? argv[1] : "";
  if (word == "--help" || word == "-h" || word == "help") {
    fmt::print("{}", overview(commands));
    return exit_done;
  }
  if (word == "--version") word = "version";
  for (const Command& command : commands) {
    if (command.name == word) return command.run(argc - 1, argv + 1);
  }
  if (word.empty()) return refuse(exit_wrong_use, "no command is given; `blobcache --help` lists them");
  return refuse(exit_wrong_use, fmt::format("{} is no command; the nearest is {} (`blobcache --help` lists all)",
                                            word.substr(0, 64), nearest(commands, word).name));
}

std::span<const Command> known_commands() { return all_commands; }

void read_options_with(std::function<void(const CLI::App&)> reader) { options_reader = std::move(reader); }

std::optional<int> parse_arguments(CLI::App& app, int argc, char** argv) {
  if (options_reader) {
    options_reader(app);
    return exit_done;
  }
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return exit_done;
  } catch (const CLI::ParseError& error) {
    std::string what = error.what();
    for (char& c : what) c = c == '\n' ? ' ' : c;
    return refuse(exit_wrong_use, fmt::format("{}; see `{} --help`", what, app.get_name()));
  }
}

int refuse(int exit_code, std::string_view sentence) {
  fmt::print(stderr, "blobcache: {}\n", redacted(sentence));
  return exit_code;
}

}  // namespace blobcache::cli
