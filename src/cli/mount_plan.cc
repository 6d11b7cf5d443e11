#include "cli/mount_plan.h"

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/state_paths.h"
#include "cli/command.h"
#include "cli/facts.h"
#include "cli/mountpoint.h"
#include "cli/source.h"
#include "ring/uring.h"

namespace blobcache::cli {
namespace {

struct ShortForm {
  const char* option;
  const char* key;
  const char* place;  // in Config::set_by
  const std::optional<std::string>* value;
};

node::Outcome apply_short_form(const ShortForm& form, Config* config) {
  if (!*form.value) return {};
  const auto from = config->set_by.find(std::string_view(form.place));
  if (from != config->set_by.end() && from->second == "option") {
    return {exit_wrong_use, fmt::format("{} and -o {} say the same thing; give one of them", form.option, form.key)};
  }
  const std::optional<std::string> problem = set_config_value(*config, form.key, **form.value, "option");
  if (problem) return {exit_wrong_use, fmt::format("{}: {}", form.option, *problem)};
  return {};
}

// Root's default is a folder of the system; others keep theirs with what else they cache.
std::string user_cache_directory() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && cache[0] == '/') return fmt::format("{}/blobcache", cache);
  const char* home = std::getenv("HOME");
  return fmt::format("{}/.cache/blobcache", home != nullptr && home[0] == '/' ? home : "/tmp");
}

// As a person means it: from where he is.
void place_disk(DiskConfig& disk, bool path_is_given) {
  char working_directory[PATH_MAX] = "/";
  if (!path_is_given && geteuid() != 0) {
    disk.path = user_cache_directory();
    mkdir(disk.path.substr(0, disk.path.rfind('/')).c_str(), 0700);
  }
  if (getcwd(working_directory, sizeof working_directory) == nullptr) return;
  if (!disk.path.empty()) disk.path = lexical_path(disk.path, working_directory);
}

// A cache inside its own mount would wait for itself, and one inside the source would be cached as well.
node::Outcome check_cache_directory(const std::string& path, const VolumeConfig& volume) {
  for (const std::string& other : {volume.mountpoint, volume.source}) {
    if (is_within(path, other) || path == other) {
      return {exit_failed, fmt::format("cache directory {} lies inside {}; choose one outside the source and the mount "
                                       "point",
                                       path, other)};
    }
  }
  return {};
}

node::Outcome make_cache_directory(const std::string& path) {
  if (mkdir(path.c_str(), 0700) == 0) return {};
  const int os_errno = errno;
  struct stat status{};
  if (os_errno == EEXIST && stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) return {};
  return {exit_failed, fmt::format("cache directory {} cannot be made ({}); choose a directory in an existing folder",
                                   path, os_errno == EEXIST ? "a file has that name" : std::strerror(os_errno))};
}

// Resolved and looked at; as the file or the command line names it before, as the mount table will show it afterwards.
node::Outcome place(VolumeConfig& volume, std::vector<std::string>* notes_out) {
  const std::optional<std::string> mountpoint = resolve_mountpoint(volume.mountpoint);
  if (!mountpoint) {
    return {exit_failed, fmt::format("mount point {} does not exist; create it with `mkdir -p {}`", volume.mountpoint,
                                     volume.mountpoint)};
  }
  // Before the source is looked at: a dead mount may cover it.
  std::string cleaned;
  node::Outcome outcome = prepare_mountpoint(*mountpoint, &cleaned);
  if (!cleaned.empty()) notes_out->push_back(cleaned);
  if (outcome.exit_code != 0) return outcome;
  std::string source;
  outcome = resolve_source(volume.source, &source);
  if (outcome.exit_code != 0) return outcome;
  if (is_within(*mountpoint, source) || is_within(source, *mountpoint)) {
    return {exit_failed,
            fmt::format("mount point {} and source {} lie inside each other; choose a mount point outside the "
                        "source",
                        *mountpoint, source)};
  }
  volume.source = source;
  volume.mountpoint = *mountpoint;
  if (volume.name.empty()) volume.name = escape_mount_path(*mountpoint);
  return {};
}

}  // namespace

node::Outcome apply_mount_arguments(const MountArguments& arguments, const char* const* environment, Config* config) {
  const Problems problems = load_config_environment(*config, environment);
  if (!problems.empty()) return {exit_wrong_use, problems.front()};
  for (const std::string& option : arguments.options) {
    if (const std::optional<std::string> problem = set_config_option(*config, option))
      return {exit_wrong_use, *problem};
  }
  for (const char* key : {"source", "mountpoint"}) {
    if (config->set_by.contains(fmt::format("volume[0].{}", key))) {
      return {exit_wrong_use,
              fmt::format("-o volume.{} is given by its place on the command line; leave the option out", key)};
    }
  }
  for (const ShortForm& form :
       {ShortForm{"--memory", "memory.limit", "memory.limit", &arguments.memory},
        ShortForm{"--cache-dir", "cache.disk.path", "cache.disk[0].path", &arguments.cache_dir},
        ShortForm{"--cache-size", "cache.disk.size", "cache.disk[0].size", &arguments.cache_size}}) {
    node::Outcome outcome = apply_short_form(form, config);
    if (outcome.exit_code != 0) return outcome;
  }
  // The quick way opens no port that nobody asked for.
  if (!config->set_by.contains("http.listen")) config->http.listen.clear();
  return {};
}

node::Outcome place_volume(const MountArguments& arguments, Config* config, std::vector<std::string>* notes_out) {
  if (config->volumes.empty()) config->volumes.emplace_back();
  config->volumes[0].source = arguments.source;
  config->volumes[0].mountpoint = arguments.mountpoint;
  config->set_by["volume[0].source"] = config->set_by["volume[0].mountpoint"] = "option";
  return place_volumes(config, notes_out);
}

node::Outcome place_volumes(Config* config, std::vector<std::string>* notes_out) {
  for (VolumeConfig& volume : config->volumes) {
    node::Outcome outcome = place(volume, notes_out);
    if (outcome.exit_code != 0) return outcome;
  }
  for (size_t i = 0; i < config->cache.disks.size(); ++i) {
    place_disk(config->cache.disks[i], config->set_by.contains(fmt::format("cache.disk[{}].path", i)));
  }
  const Problems problems = check_config(*config);
  if (!problems.empty()) return {exit_wrong_use, problems.front()};
  for (const DiskConfig& disk : config->cache.disks) {
    node::Outcome outcome;
    for (const VolumeConfig& volume : config->volumes) {
      if (outcome.exit_code == 0) outcome = check_cache_directory(disk.path, volume);
    }
    if (outcome.exit_code == 0) outcome = make_cache_directory(disk.path);
    if (outcome.exit_code != 0) return outcome;
  }
  return {};
}

node::Outcome check_machine() {
  const int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fd < 0 && (errno == EACCES || errno == EPERM)) {
    return {exit_lacking,
            fmt::format("/dev/fuse may not be opened by this user ({}); give it mode 0666, or in a container add "
                        "--device /dev/fuse",
                        std::strerror(errno))};
  }
  if (fd < 0) {
    return {exit_lacking, fmt::format("/dev/fuse cannot be opened ({}); run `modprobe fuse`, or in a container add "
                                      "--device /dev/fuse",
                                      std::strerror(errno))};
  }
  close(fd);
  const UringProbe probe = probe_uring();
  if (!probe.available)
    return {exit_lacking, fmt::format("io_uring is not available: {}", io_uring_remedy(read_facts()))};
  if (geteuid() != 0 && find_program("fusermount3").empty()) {
    return {exit_lacking, "fusermount3 is missing, which mounts for users other than root; install the package fuse3"};
  }
  return {};
}

}  // namespace blobcache::cli
