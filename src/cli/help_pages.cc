// Manual pages in the man macros, the oldest that every reader of manuals knows. What roff would take for an order (a dot or
// a quote at the start of a line, a backslash, a minus that would become a hyphen) is written so that it stays text.
#include <algorithm>

#include <fmt/format.h>

#include "base/config_keys.h"
#include "cli/help.h"

namespace blobcache::cli {
namespace {

std::string roff(std::string_view text) {
  std::string out;
  bool line_starts = true;
  for (const char c : text) {
    if (line_starts && (c == '.' || c == '\'')) out += "\\&";
    line_starts = c == '\n';
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return out;
}

std::string heading(std::string_view title, int section) {
  return fmt::format(".TH {} {} \"\" \"blobcache {}\" \"blobcache\"\n", title, section, BLOBCACHE_VERSION);
}

// `mount` may have a page of its own name elsewhere: ours are blobcache-mount.
std::string page_name(std::string_view command) {
  std::string name = "blobcache-" + std::string(command);
  std::replace(name.begin(), name.end(), ' ', '-');
  return name;
}

std::string names_of(const HelpOption& option) {
  std::string out;
  for (const std::string& name : option.names) {
    const bool is_long = name.starts_with("--");
    out += fmt::format("{}\\fB{}\\fR", out.empty() ? "" : ", ", roff(name));
    if (!option.value.empty()) out += fmt::format("{}\\fI{}\\fR", is_long ? "=" : " ", roff(option.value));
  }
  return out;
}

std::string synopsis(const HelpCommand& command) {
  std::string out = fmt::format(".SH SYNOPSIS\n.B blobcache {}\n", roff(command.name));
  if (!command.options.empty()) out += "[\\fIOPTION\\fR]...\n";
  for (const HelpOption& positional : command.positionals) {
    const std::string name = fmt::format("\\fI{}\\fR", roff(positional.value));
    out += positional.required ? name + "\n" : "[" + name + "]\n";
  }
  return out;
}

// Examples keep their lines.
std::string footer(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(text.size(), end + 1));
    if (line.starts_with("Example")) {
      out += ".SH EXAMPLES\n";
    } else if (line.starts_with("  ")) {
      out += fmt::format(".nf\n{}\n.fi\n", roff(line));
    } else if (line.empty()) {
      out += ".PP\n";
    } else {
      out += (out.empty() ? ".SH NOTES\n" : "") + roff(line) + "\n";
    }
  }
  return out;
}

constexpr std::string_view exit_status =
    ".SH EXIT STATUS\n.TP\n.B 0\ndone\n.TP\n.B 1\nfailed: one sentence on standard error says what, why, and what to "
    "do\n"
    ".TP\n.B 2\nwrong use\n.TP\n.B 3\nthe machine lacks something, which is named\n";

TextFile command_page(const HelpCommand& command) {
  const std::string name = page_name(command.name);
  std::string text = heading(roff(name), 1);
  text += fmt::format(".SH NAME\n{} \\- {}\n", roff(name),
                      roff(command.summary.empty() ? command.description : command.summary));
  text += synopsis(command) + fmt::format(".SH DESCRIPTION\n{}\n", roff(command.description));
  for (const HelpOption& positional : command.positionals) {
    text += fmt::format(".TP\n\\fI{}\\fR\n{}\n", roff(positional.value), roff(positional.description));
  }
  text += ".SH OPTIONS\n";
  for (const HelpOption& option : command.options) {
    text += fmt::format(".TP\n{}\n{}\n", names_of(option), roff(option.description));
  }
  text += footer(command.footer);
  text += exit_status;
  return {name + ".1", text + ".SH SEE ALSO\n.BR blobcache (1),\n.BR blobcache.toml (5)\n"};
}

TextFile overview_page(const std::vector<HelpCommand>& commands) {
  std::string text = heading("blobcache", 1);
  text +=
      ".SH NAME\nblobcache \\- a read cache in front of object storage\n"
      ".SH SYNOPSIS\n.B blobcache\n\\fICOMMAND\\fR [\\fIARGUMENT\\fR]...\n.SH DESCRIPTION\n"
      "Shows a directory, a web server's tree or an S3 bucket as a read\\-only directory, and keeps what was read in\n"
      "memory and on local disks.\n.SH COMMANDS\n";
  std::string pages;
  for (const HelpCommand& command : commands) {
    text += fmt::format(".TP\n.B {}\n{}\n", roff(command.name), roff(command.summary));
    pages += fmt::format(".BR {} (1),\n", roff(page_name(command.name)));
  }
  text += exit_status;
  text +=
      ".SH FILES\n.TP\n.I /etc/blobcache/blobcache.toml\nthe configuration of\n.B blobcache run\n.TP\n"
      ".I /run/blobcache/\ncontrol sockets, and logs of mounts\n.TP\n.I /var/cache/blobcache/\n"
      "the cache, unless another place is configured\n";
  return {"blobcache.1", text + ".SH SEE ALSO\n" + pages + ".BR blobcache.toml (5)\n"};
}

TextFile config_page() {
  std::string text = heading("blobcache.toml", 5);
  text +=
      ".SH NAME\nblobcache.toml \\- configuration of blobcache\n.SH DESCRIPTION\n"
      "TOML; every key has a default. The environment variable BLOBCACHE_<SECTION>_<KEY> overrides a key outside of\n"
      "[[cache.disk]] and [[volume]].\n.B blobcache config check\nvalidates a file.\n.SH KEYS\n";
  for (const Key& key : config_keys()) {
    text += fmt::format(".TP\n.B {}\n{}\n.br\nDefault: {}. Values: {}. Changes {}.\n", roff(key.name),
                        roff(key.meaning), key.default_text.empty() ? "none" : roff(key.default_text), roff(key.values),
                        key.reloadable ? "on reload (SIGHUP)" : "on restart");
  }
  return {"blobcache.toml.5", text + ".SH SEE ALSO\n.BR blobcache (1)\n"};
}

TextFile fstab_page() {
  std::string text = heading("mount.blobcache", 8);
  text +=
      ".SH NAME\nmount.blobcache \\- blobcache volumes in /etc/fstab\n.SH SYNOPSIS\n.B mount \\-t blobcache\n"
      "[\\fB\\-o\\fR \\fIOPTION\\fR,...] \\fISOURCE\\fR \\fIDIRECTORY\\fR\n.SH DESCRIPTION\n"
      "Calls\n.B blobcache mount\nas\n.BR mount (8)\nand /etc/fstab want it.\n.SH OPTIONS\n"
      ".TP\n\\fBcache\\-dir=\\fIDIR\\fR, \\fBcache\\-size=\\fISIZE\\fR, \\fBmemory=\\fISIZE\\fR\nas of\n.BR "
      "blobcache\\-mount (1)\n"
      ".TP\n\\fIKEY\\fB=\\fIVALUE\\fR\nany key of\n.BR blobcache.toml (5)\n"
      ".TP\n.B allow_other\nothers than the one who mounts may read\n.PP\n"
      "Options for\n.BR mount (8)\nand systemd are left to them.\n"
      ".SH EXAMPLES\n.nf\n  s3://bucket/models /mnt/models blobcache _netdev,nofail,cache\\-dir=/nvme/blobcache 0 "
      "0\n.fi\n"
      ".SH SEE ALSO\n.BR blobcache\\-mount (1),\n.BR blobcache.toml (5)\n";
  return {"mount.blobcache.8", text};
}

}  // namespace

std::vector<TextFile> manual_pages(const std::vector<HelpCommand>& commands) {
  std::vector<TextFile> pages{overview_page(commands), config_page(), fstab_page()};
  for (const HelpCommand& command : commands) pages.push_back(command_page(command));
  return pages;
}

}  // namespace blobcache::cli
