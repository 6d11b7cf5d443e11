// report: a support bundle, as a tar.gz that only its owner can read. What cannot be had is named in its CONTENTS and stops
// nothing: a report is asked for when something is wrong.
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "base/config.h"
#include "cli/bounded.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/config_sources.h"
#include "cli/report_facts.h"
#include "cli/version.h"

namespace blobcache::cli {
namespace {

constexpr int tar_ms = 60'000;

// A folder that goes with its owner.
class ScratchFolder {
 public:
  ScratchFolder() {
    const char* parent = std::getenv("TMPDIR");
    path_ = std::string(parent != nullptr && parent[0] == '/' ? parent : "/tmp") + "/blobcache-report.XXXXXX";
    made_ = mkdtemp(path_.data()) != nullptr;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    if (made_) std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  bool made() const { return made_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  bool made_ = false;
};

std::string bundle_name() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char time_text[32];
  std::strftime(time_text, sizeof time_text, "%Y%m%d-%H%M%S", &utc);
  return fmt::format("blobcache-report-{}-{}", NodeConfig(Config().node).name, time_text);
}

void add_config(Bundle& bundle, const ConfigSources& sources) {
  Config config;
  if (access(sources.path.c_str(), F_OK) != 0) {
    bundle.add_missing("config.toml", sources.path + " is not there");
    return add_metrics(bundle, config.http);
  }
  const Problems problems = load_config(sources, &config);
  std::string text;
  for (const std::string& problem : problems) text += problem + "\n";
  if (!problems.empty()) bundle.add("config-problems.txt", text);
  bundle.add("config.toml", show_config(config));
  add_metrics(bundle, config.http);
}

bool write_files(const Bundle& bundle, const std::string& folder) {
  const auto write = [&](const std::string& name, const std::string& text) {
    const std::filesystem::path path = std::filesystem::path(folder) / name;
    std::error_code failed;
    std::filesystem::create_directories(path.parent_path(), failed);
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file << text;
    return !failed && file.flush().good();
  };
  for (const Bundle::File& file : bundle.files()) {
    if (!write(file.name, file.text)) return false;
  }
  return write("CONTENTS", bundle.contents());
}

}  // namespace

int report_command(int argc, char** argv) {
  CLI::App app("Collect what a person who helps needs to know, without secrets, into one file.", "blobcache report");
  ConfigSources sources;
  std::string output;
  app.add_option("--output", output, "the bundle (blobcache-report-HOST-TIME.tar.gz in this directory)")
      ->type_name("FILE");
  app.add_option("--config", sources.path, fmt::format("the configuration of `run` ({})", sources.path))
      ->type_name("FILE");
  app.footer(
      "In it: version and features, the configuration, status and metrics of the daemons that run, their last logs, "
      "facts\n"
      "about the kernel and the machine. Names of files and hosts are in it: look before you send it on.\n\n"
      "Example:\n  blobcache report --output=/tmp/report.tar.gz");
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;

  umask(077);
  const std::string name = bundle_name();
  if (output.empty()) output = name + ".tar.gz";
  ScratchFolder scratch;
  if (!scratch.made()) {
    return refuse(exit_failed,
                  fmt::format("no folder can be made in /tmp: {}; set TMPDIR to one with room", std::strerror(errno)));
  }
  // First of all: nobody should wait for a report that has no place.
  const int fd = open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) {
    return refuse(exit_failed,
                  fmt::format("{} cannot be written: {}; give --output another place", output, std::strerror(errno)));
  }
  close(fd);

  Bundle bundle;
  bundle.add("version.json", version_text(true));
  bundle.add("version.txt", version_text(false));
  add_config(bundle, sources);
  add_machine(bundle);
  add_daemons(bundle);
  if (!write_files(bundle, scratch.path() + "/" + name)) {
    return refuse(exit_failed,
                  fmt::format("{} has no room for the report; set TMPDIR to a folder with some", scratch.path()));
  }
  const auto packed = run_program(tar_ms, {"tar", "--create", "--gzip", "--owner=0", "--group=0", "--directory",
                                           scratch.path(), "--file", output, name});
  if (packed && packed->exit_code == 127) {
    return refuse(exit_lacking, "tar and gzip pack the report and are not here: install them");
  }
  if (!packed || packed->exit_code != 0) {
    return refuse(exit_failed, fmt::format("{} cannot be packed: {}", output,
                                           packed ? packed->output.substr(0, packed->output.find('\n')) : "tar hangs"));
  }
  fmt::print("{}\n", output);
  return exit_done;
}

}  // namespace blobcache::cli
