// Command: one word of the command line. main.cc holds the list; each file here is one of them.
//   Thread    main
//   Exit      0 done, 1 failed (one sentence on stderr: what, why, what to do), 2 wrong use, 3 the machine lacks something
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace CLI {
class App;
}

namespace blobcache::cli {

inline constexpr int exit_done = 0;
inline constexpr int exit_failed = 1;
inline constexpr int exit_wrong_use = 2;
inline constexpr int exit_lacking = 3;

struct Command {
  std::string_view name;
  std::string_view summary;           // empty: for those who build packages, not listed
  int (*run)(int argc, char** argv);  // argv[0] is the command's name
};

// Finds the command that argv[1] names and runs it.
int run_command(std::span<const Command> commands, int argc, char** argv);

// Those that are listed; once run_command has been called.
std::span<const Command> known_commands();
// From now on parse_arguments gives the commands' options to `reader` and ends the command.
void read_options_with(std::function<void(const CLI::App&)> reader);

// Parses with CLI11. A value: the command is over (help was printed, or the use was wrong).
std::optional<int> parse_arguments(CLI::App& app, int argc, char** argv);

// Prints "blobcache: SENTENCE" on stderr and returns the code.
int refuse(int exit_code, std::string_view sentence);

}  // namespace blobcache::cli
