// stat: what the cache knows of a file, asked through the mount's extended attributes.
#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/tiers.h"

namespace blobcache::cli {
namespace {

struct Attribute {
  std::string text;
  int os_errno = 0;
};

Attribute read_attribute(const std::string& path, const char* name) {
  char value[1 << 16];
  const ssize_t length = getxattr(path.c_str(), fmt::format("user.blobcache.{}", name).c_str(), value, sizeof value);
  if (length < 0) return {"", errno};
  return {std::string(value, static_cast<size_t>(length)), 0};
}

int refuse_file(const std::string& path, int os_errno) {
  if (os_errno == ENODATA || os_errno == EOPNOTSUPP) {
    return refuse(exit_failed, fmt::format("{} is no file on a blobcache mount; give one below a mount point", path));
  }
  return refuse(exit_failed, fmt::format("{} cannot be looked at: {}; check the path", path, std::strerror(os_errno)));
}

}  // namespace

int stat_command(int argc, char** argv) {
  CLI::App app("What the cache knows of a file: its object, and how much of it lies in which tier.", "blobcache stat");
  std::string path;
  bool json = false;
  app.add_option("FILE", path, "a file on a mount")->required();
  app.add_flag("--json", json, "for programs");
  app.footer("Example:\n  blobcache stat /mnt/models/llama/model.safetensors");
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;

  struct stat status{};
  if (stat(path.c_str(), &status) != 0) return refuse_file(path, errno);
  const Attribute id = read_attribute(path, "id");
  if (id.os_errno != 0) return refuse_file(path, id.os_errno);
  const Attribute tiers_text = read_attribute(path, "tiers");
  const Attribute source = read_attribute(path, "source");
  const Attribute version = read_attribute(path, "version");
  for (const Attribute* attribute : {&tiers_text, &source, &version}) {
    if (attribute->os_errno != 0) return refuse_file(path, attribute->os_errno);
  }
  auto tiers = parse_tiers(tiers_text.text);
  if (!tiers) {
    return refuse(
        exit_failed,
        fmt::format("{} has tiers that this version does not understand; use the daemon's own version", path));
  }
  // The daemon names the whole beside its parts.
  std::erase_if(*tiers, [](const TierBytes& tier) { return tier.tier == "size"; });
  const auto size = static_cast<uint64_t>(status.st_size);
  if (json) {
    std::string list;
    for (const TierBytes& tier : *tiers) {
      list += fmt::format("{}{}:{}", list.empty() ? "" : ",", json_string(tier.tier), tier.bytes);
    }
    fmt::print("{{\"file\":{},\"id\":{},\"size\":{},\"source\":{},\"version\":{},\"tiers\":{{{}}}}}\n",
               json_string(path), json_string(id.text), size, json_string(source.text), json_string(version.text),
               list);
    return exit_done;
  }
  fmt::print("{:<10} {}\n{:<10} {}\n{:<10} {}\n{:<10} {} ({})\n", "object", id.text, "source", source.text, "version",
             version.text, "size", size, format_bytes_short(size));
  for (const TierBytes& tier : *tiers) {
    const double share = size == 0 ? 0 : 100.0 * static_cast<double>(tier.bytes) / static_cast<double>(size);
    fmt::print("{:<10} {:>15}  {:>5.1f}%\n", tier.tier, tier.bytes, share);
  }
  return exit_done;
}

}  // namespace blobcache::cli
