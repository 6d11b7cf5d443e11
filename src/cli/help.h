// What the commands say of themselves, as data, and the texts that are made of it: manual pages and completions of shells.
//   Thread    main; pure functions of their arguments
//   Why       `--help`, manual pages and completions come from the same CLI::App, so none can differ from the others
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace blobcache::cli {

struct HelpOption {
  std::vector<std::string> names;  // "-o", "--cache-dir"; empty: a positional
  std::string value;               // "DIR"; empty: a flag
  std::string description;
  bool required = false;
};

struct HelpCommand {
  std::string name;  // "mount", "config show"
  std::string summary;
  std::string description;
  std::vector<HelpOption> options;
  std::vector<HelpOption> positionals;
  std::string footer;  // what is said below the options, examples too
};

struct TextFile {
  std::string name;
  std::string text;
};

// blobcache.1, blobcache-COMMAND.1, blobcache.toml.5, mount.blobcache.8
std::vector<TextFile> manual_pages(const std::vector<HelpCommand>& commands);
// blobcache.bash, blobcache.zsh, blobcache.fish
std::vector<TextFile> completions(const std::vector<HelpCommand>& commands);

}  // namespace blobcache::cli
