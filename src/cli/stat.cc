// stat: what the cache knows of a file, asked through the mount's extended attributes.
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/limits.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/cached_file.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/control.h"

namespace blobcache::cli {
namespace {

constexpr int status_ms = 2000;

// Empty: the kernel may read the file itself.
std::string passthrough_problem(const std::string& path, const CachedFile& file) {
  if (file.backing_path.empty()) return backing_problem(path, file);
  const auto mount = mount_of(path);
  std::string status;
  if (!mount || ask_mount(*mount, "status", status_ms, &status) != Ping::Answer::alive) {
    return "its daemon does not say whether its mount has passthrough";
  }
  if (says_passthrough(status, mount->mountpoint)) return "";
  return "its mount has no passthrough; `blobcache doctor` says what it needs";
}

void print_json(const std::string& path, const CachedFile& file, bool passthrough) {
  std::string list;
  for (const TierBytes& tier : file.tiers) {
    list += fmt::format("{}{}:{}", list.empty() ? "" : ",", json_string(tier.tier), tier.bytes);
  }
  fmt::print(
      "{{\"file\":{},\"id\":{},\"size\":{},\"source\":{},\"version\":{},\"tiers\":{{{}}},\"path\":{},"
      "\"passthrough\":{},\"pinned\":{}}}\n",
      json_string(path), json_string(file.id), file.size, json_string(file.source), json_string(file.version), list,
      file.backing_path.empty() ? "null" : json_string(file.backing_path), passthrough, file.pinned);
}

void print_text(const CachedFile& file, const std::string& problem) {
  fmt::print("{:<11} {}\n{:<11} {}\n{:<11} {}\n{:<11} {} ({})\n", "object", file.id, "source", file.source, "version",
             file.version, "size", file.size, format_bytes_short(file.size));
  for (const TierBytes& tier : file.tiers) {
    const double share = file.size == 0 ? 0 : 100.0 * static_cast<double>(tier.bytes) / static_cast<double>(file.size);
    fmt::print("{:<11} {:>15}  {:>5.1f}%  {} blocks\n", tier.tier == "disk_verified" ? "verified" : tier.tier,
               tier.bytes, share, (tier.bytes + limits::block_bytes - 1) / limits::block_bytes);
  }
  if (!file.backing_path.empty()) fmt::print("{:<11} {}\n", "path", file.backing_path);
  fmt::print("{:<11} {}\n", "pinned", file.pinned ? "yes" : "no");
  fmt::print("{:<11} {}{}\n", "passthrough", problem.empty() ? "yes" : "no: ", problem);
}

}  // namespace

int stat_command(int argc, char** argv) {
  CLI::App app("What the cache knows of a file: its object, and how much of it lies in which tier.", "blobcache stat");
  std::string path;
  bool json = false;
  app.add_option("FILE", path, "a file on a mount")->required();
  app.add_flag("--json", json, "for programs");
  app.footer(
      "`verified` is the part of `disk` that was read back and matched its checksums.\n\n"
      "Example:\n  blobcache stat /mnt/models/llama/model.safetensors");
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;

  CachedFile file;
  if (const int os_errno = read_cached_file(path, &file); os_errno != 0) {
    return refuse(exit_failed, file_problem(path, os_errno));
  }
  const std::string problem = passthrough_problem(path, file);
  if (json) {
    print_json(path, file, problem.empty());
  } else {
    print_text(file, problem);
  }
  return exit_done;
}

}  // namespace blobcache::cli
