// Completions of bash, zsh and fish. Each gets lists, made here, and as little code of its own as it needs to choose one.
#include <algorithm>

#include <fmt/format.h>

#include "base/config_keys.h"
#include "cli/help.h"

namespace blobcache::cli {
namespace {

// In single quotes of a shell.
std::string quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

bool is_top(const HelpCommand& command) { return command.name.find(' ') == std::string::npos; }

std::string_view last_word(const HelpCommand& command) {
  return std::string_view(command.name).substr(command.name.rfind(' ') + 1);
}

std::vector<const HelpCommand*> below(const std::vector<HelpCommand>& commands, const HelpCommand& top) {
  std::vector<const HelpCommand*> found;
  for (const HelpCommand& command : commands) {
    if (command.name.starts_with(top.name + " ")) found.push_back(&command);
  }
  return found;
}

// "--cache-dir= --foreground -o": what takes a value behind '=' ends with it.
std::string option_words(const HelpCommand& command) {
  std::string out;
  for (const HelpOption& option : command.options) {
    for (const std::string& name : option.names) {
      const bool joined = name.starts_with("--") && !option.value.empty();
      out += fmt::format("{}{}{}", out.empty() ? "" : " ", name, joined ? "=" : "");
    }
  }
  return out;
}

TextFile bash_completion(const std::vector<HelpCommand>& commands) {
  std::string tops;
  std::string cases;
  for (const HelpCommand& command : commands) {
    std::string words = option_words(command);
    for (const HelpCommand* sub : below(commands, command)) words = fmt::format("{} {}", last_word(*sub), words);
    if (is_top(command)) tops += fmt::format("{}{}", tops.empty() ? "" : " ", command.name);
    // The longer name first, or its command's would hide it.
    const std::string line =
        fmt::format("    {}) words={} ;;\n", quoted(command.name) + (is_top(command) ? "' '*" : ""), quoted(words));
    cases = is_top(command) ? cases + line : line + cases;
  }
  std::string keys;
  for (const Key& key : config_keys()) keys += fmt::format("{}{}=", keys.empty() ? "" : " ", key.name);
  return {"blobcache.bash", fmt::format(R"(# Completion of blobcache for bash. Made by `blobcache generate`.
_blobcache() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} words=''
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W {tops} -- "$current")
    return
  fi
  if [[ $previous == -o ]]; then
    mapfile -t COMPREPLY < <(compgen -W {keys} -- "$current")
    compopt -o nospace 2>/dev/null
    return
  fi
  case "${{COMP_WORDS[1]}} ${{COMP_WORDS[2]-}}" in
{cases}  esac
  if [[ $current == -* || $words == [a-z]* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    [[ ${{COMPREPLY[0]-}} != *= ]] || compopt -o nospace 2>/dev/null
  fi
}}
complete -o bashdefault -o default -F _blobcache blobcache
)",
                                        fmt::arg("tops", quoted(tops + " --help --version")),
                                        fmt::arg("keys", quoted(keys)), fmt::arg("cases", cases))};
}

// In a specification of _arguments.
std::string zsh_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string zsh_options(const HelpCommand& command) {
  std::string out;
  for (const HelpOption& option : command.options) {
    for (const std::string& name : option.names) {
      const bool joined = name.starts_with("--") && !option.value.empty();
      const std::string action = option.value.empty() ? "" : fmt::format(":{}:_files", zsh_text(option.value));
      out += " " + quoted(fmt::format("*{}{}[{}]{}", name, joined ? "=" : "", zsh_text(option.description), action));
    }
  }
  return out;
}

TextFile zsh_completion(const std::vector<HelpCommand>& commands) {
  std::string tops;
  std::string cases;
  for (const HelpCommand& command : commands) {
    if (!is_top(command)) continue;
    tops += " " + quoted(fmt::format("{}:{}", command.name, zsh_text(command.summary)));
    std::string options = zsh_options(command);
    std::string subs;
    for (const HelpCommand* sub : below(commands, command)) {
      options += zsh_options(*sub);
      subs += fmt::format("{}{}", subs.empty() ? "" : " ", last_word(*sub));
    }
    if (!subs.empty()) options += " " + quoted(fmt::format("1:command:({})", subs));
    cases += fmt::format("    {}) options=({}) ;;\n", command.name, options.substr(options.empty() ? 0 : 1));
  }
  return {"blobcache.zsh", fmt::format(R"(#compdef blobcache
# Completion of blobcache for zsh. Made by `blobcache generate`.
_blobcache() {{
  local -a commands options
  commands=({})
  if ((CURRENT == 2)); then
    _describe command commands
    return
  fi
  case $words[2] in
{}  esac
  shift words
  ((CURRENT--))
  _arguments $options '*:file:_files'
}}
_blobcache "$@"
)",
                                       tops.substr(tops.empty() ? 0 : 1), cases)};
}

TextFile fish_completion(const std::vector<HelpCommand>& commands) {
  std::string out = "# Completion of blobcache for fish. Made by `blobcache generate`.\n";
  for (const HelpCommand& command : commands) {
    const std::string top = command.name.substr(0, command.name.find(' '));
    if (is_top(command)) {
      out +=
          fmt::format("complete -c blobcache -f -n __fish_use_subcommand -a {} -d {}\n", top, quoted(command.summary));
    } else {
      out += fmt::format("complete -c blobcache -f -n '__fish_seen_subcommand_from {}' -a {} -d {}\n", top,
                         last_word(command), quoted(command.summary));
    }
    for (const HelpOption& option : command.options) {
      std::string names;
      for (const std::string& name : option.names) {
        names += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      }
      out += fmt::format("complete -c blobcache -n '__fish_seen_subcommand_from {}'{}{} -d {}\n", last_word(command),
                         names, option.value.empty() ? "" : " -r", quoted(option.description));
    }
  }
  return {"blobcache.fish", out};
}

}  // namespace

std::vector<TextFile> completions(const std::vector<HelpCommand>& commands) {
  return {bash_completion(commands), zsh_completion(commands), fish_completion(commands)};
}

}  // namespace blobcache::cli
