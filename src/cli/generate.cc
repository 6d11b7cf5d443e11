// generate: manual pages and completions, for those who build packages. Each command is called with nobody to serve: it makes
// its CLI::App, which is read instead of being used (command.h).
#include <cerrno>
#include <cstring>
#include <fstream>

#include <fmt/format.h>
#include <sys/stat.h>
#include <CLI/CLI.hpp>

#include "cli/command.h"
#include "cli/commands.h"
#include "cli/help.h"

namespace blobcache::cli {
namespace {

HelpOption read_option(const CLI::Option& option) {
  HelpOption read{.description = option.get_description(), .required = option.get_required()};
  for (const std::string& name : option.get_snames()) read.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) read.names.push_back("--" + name);
  if (option.get_positional()) {
    read.value = option.get_name(true);
  } else if (option.get_items_expected_max() > 0) {
    read.value = option.get_type_name().empty() ? "VALUE" : option.get_type_name();
    if (read.value == "TEXT" || read.value == "UINT" || read.value == "INT") read.value = "VALUE";
  }
  return read;
}

void read_app(const CLI::App& app, std::string name, std::string_view summary, std::vector<HelpCommand>& commands) {
  HelpCommand command{
      .name = name, .summary = std::string(summary), .description = app.get_description(), .footer = app.get_footer()};
  for (const CLI::Option* option : app.get_options()) {
    (option->get_positional() ? command.positionals : command.options).push_back(read_option(*option));
  }
  commands.push_back(std::move(command));
  const std::function<bool(const CLI::App*)> all;
  for (const CLI::App* below : app.get_subcommands(all)) {
    read_app(*below, name + " " + below->get_name(), below->get_description(), commands);
  }
}

std::vector<HelpCommand> read_commands() {
  std::vector<HelpCommand> commands;
  for (const Command& command : known_commands()) {
    if (command.summary.empty()) continue;
    read_options_with(
        [&](const CLI::App& app) { read_app(app, std::string(command.name), command.summary, commands); });
    std::string name(command.name);
    char* arguments[] = {name.data(), nullptr};
    command.run(1, arguments);
  }
  read_options_with({});
  return commands;
}

}  // namespace

int generate_command(int argc, char** argv) {
  CLI::App app("Write manual pages and completions into a directory, as packages need them.", "blobcache generate");
  std::string directory;
  app.add_option("DIRECTORY", directory, "made when it is not there")->required();
  app.footer("Example:\n  blobcache generate /tmp/texts");
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;

  if (mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) {
    return refuse(exit_failed,
                  fmt::format("{} cannot be made: {}; give another place", directory, std::strerror(errno)));
  }
  const std::vector<HelpCommand> commands = read_commands();
  std::vector<TextFile> files = manual_pages(commands);
  for (TextFile& file : completions(commands)) files.push_back(std::move(file));
  for (const TextFile& file : files) {
    std::ofstream out(directory + "/" + file.name, std::ios::trunc);
    out << file.text;
    if (!out.flush()) {
      return refuse(exit_failed, fmt::format("{}/{} cannot be written; give a place with room", directory, file.name));
    }
  }
  return exit_done;
}

}  // namespace blobcache::cli
