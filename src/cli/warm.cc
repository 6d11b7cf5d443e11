// warm: reads files through their mount, so that the cache has them before they are needed; says what the cache has of them;
// or drops them.
//
// It is an ordinary reader of the mount: what it may read is what its user may read, and what it fills is what any reader
// would have filled. The disk is written behind the reads, so after the last of them it waits until the disk has it all, or
// until no more comes (no room, or a disk that takes no writes).
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "base/limits.h"
#include "base/units.h"
#include "cli/cached_file.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/control.h"
#include "cli/progress.h"
#include "cli/warm_files.h"
#include "cli/warm_reader.h"

namespace blobcache::cli {
namespace {

constexpr unsigned jobs_default = 8;
constexpr unsigned jobs_max = 256;
constexpr unsigned show_ms = 200;
constexpr int control_ms = 12'000;  // longer than the daemon's own patience with a disk and a core
constexpr auto settle_look = std::chrono::milliseconds(100);
constexpr auto settle_quiet = std::chrono::milliseconds(2'000);  // nothing more has come: it will not
constexpr auto settle_limit = std::chrono::milliseconds(60'000);

using Clock = std::chrono::steady_clock;

struct Arguments {
  std::vector<std::string> paths;
  std::string list;
  bool check = false;
  bool evict = false;
  bool json = false;
  unsigned jobs = jobs_default;
};

struct Report {
  uint64_t files = 0;
  uint64_t bytes = 0;
  uint64_t bytes_read = 0;
  double seconds = 0;
  std::vector<TierBytes> tiers;
  std::vector<WarmFailure> failures;
};

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

void read_files(const WarmFiles& files, const Arguments& arguments, Report* report) {
  WarmReader reader(files.files());
  Progress progress(!arguments.json);
  const Clock::time_point start = Clock::now();
  reader.start(arguments.jobs);
  while (!reader.wait(show_ms)) {
    progress.show({.bytes_done = reader.bytes_read(),
                   .bytes_total = files.bytes(),
                   .files_done = reader.files_done(),
                   .files_total = files.files().size(),
                   .seconds = seconds_since(start)});
  }
  reader.join();
  progress.end();
  report->bytes_read = reader.bytes_read();
  report->seconds = seconds_since(start);
  report->failures.insert(report->failures.end(), reader.failures().begin(), reader.failures().end());
}

bool has_disks(const std::string& path) {
  const auto mount = mount_of(path);
  std::string status;
  return mount && ask_mount(*mount, "status", control_ms, &status) == Ping::Answer::alive && says_disks(status);
}

// Small objects are verified when they are read, larger ones as soon as they are whole.
bool is_settled(const WarmFile& file, const std::vector<TierBytes>& tiers) {
  return bytes_of(tiers, file.bytes < limits::chunk_bytes_min ? "disk" : "disk_verified") >= file.bytes;
}

// Until every file lies on disk verified, or nothing has changed for a while.
void wait_for_disk(const std::vector<WarmFile>& files, bool shown) {
  std::vector<const WarmFile*> pending;
  for (const WarmFile& file : files) {
    if (file.bytes > 0) pending.push_back(&file);
  }
  const Clock::time_point start = Clock::now();
  Clock::time_point changed = start;
  uint64_t before = 0;
  bool told = false;
  while (true) {
    uint64_t sum = 0;
    std::erase_if(pending, [&](const WarmFile* file) {
      std::vector<TierBytes> tiers;
      if (read_tiers(file->path, &tiers) != 0) return true;  // the report will tell
      sum += bytes_of(tiers, "disk") + bytes_of(tiers, "disk_verified");
      return is_settled(*file, tiers);
    });
    sum += files.size() - pending.size();
    if (sum != before) changed = Clock::now();
    before = sum;
    const Clock::time_point now = Clock::now();
    if (pending.empty() || now - changed > settle_quiet || now - start > settle_limit) return;
    if (shown && !told && now - start > settle_quiet) {
      fmt::print(stderr, "waiting for the disk to have {} files\n", pending.size());
      told = true;
    }
    std::this_thread::sleep_for(settle_look);
  }
}

void add_up_tiers(const std::vector<WarmFile>& files, Report* report) {
  for (const WarmFile& file : files) {
    std::vector<TierBytes> tiers;
    if (const int os_errno = read_tiers(file.path, &tiers); os_errno != 0) {
      report->failures.push_back({file.path, std::strerror(os_errno)});
    } else {
      add_tiers(tiers, &report->tiers);
    }
  }
}

// What the kernel's page cache has of the file goes too: the next read is one of the source.
void drop_pages(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
}

// Empty, or the cause.
std::string evict_file(const WarmFile& file) {
  std::string id;
  if (const int os_errno = read_id(file.path, &id); os_errno != 0) return std::strerror(os_errno);
  const auto mount = mount_of(file.path);
  if (!mount) return "its mount is gone";
  drop_pages(file.path);
  std::string answer;
  switch (ask_mount(*mount, fmt::format("evict {} {}", id, file.bytes), control_ms, &answer)) {
    case Ping::Answer::alive: break;
    case Ping::Answer::denied: return "its daemon may not be asked by this user; repeat as root or as its owner";
    case Ping::Answer::silent: return "its daemon does not answer";
    case Ping::Answer::gone: return "its daemon does not listen";
  }
  if (answer == "ok\n") return "";
  constexpr std::string_view prefix = "error: ";
  std::string cause = answer.starts_with(prefix) ? answer.substr(prefix.size()) : answer;
  while (cause.ends_with('\n')) cause.pop_back();
  return cause;
}

void print_report(const Arguments& arguments, const Report& report) {
  fmt::print("{} files, {}", report.files, format_bytes_short(report.bytes));
  if (arguments.evict) fmt::print(", dropped");
  if (!arguments.check && !arguments.evict) {
    const double rate = report.seconds > 0 ? static_cast<double>(report.bytes_read) / report.seconds : 0;
    fmt::print(", read in {:.1f} s ({}/s)", report.seconds, format_bytes_short(static_cast<uint64_t>(rate)));
  }
  fmt::print("\n");
  for (const TierBytes& tier : report.tiers) {
    const double share =
        report.bytes == 0 ? 0 : 100.0 * static_cast<double>(tier.bytes) / static_cast<double>(report.bytes);
    fmt::print("{:<10} {:>15}  {:>5.1f}%\n", tier.tier == "disk_verified" ? "verified" : tier.tier, tier.bytes, share);
  }
}

void print_report_json(const Report& report) {
  std::string tiers;
  for (const TierBytes& tier : report.tiers) {
    tiers += fmt::format("{}{}:{}", tiers.empty() ? "" : ",", json_string(tier.tier), tier.bytes);
  }
  std::string failures;
  for (const WarmFailure& failure : report.failures) {
    failures += fmt::format("{}{{\"file\":{},\"error\":{}}}", failures.empty() ? "" : ",", json_string(failure.path),
                            json_string(failure.cause));
  }
  fmt::print("{{\"files\":{},\"bytes\":{},\"read_bytes\":{},\"seconds\":{:.3f},\"tiers\":{{{}}},\"failed\":[{}]}}\n",
             report.files, report.bytes, report.bytes_read, report.seconds, tiers, failures);
}

void describe(CLI::App& app, Arguments& arguments) {
  app.add_option("PATH", arguments.paths, "files, and directories with all that is below them, on a mount");
  app.add_option("--list", arguments.list, "a file with one such path a line; -: standard input")->type_name("FILE");
  auto* check = app.add_flag("--check", arguments.check, "read nothing, say what the cache has");
  app.add_flag("--evict", arguments.evict, "drop them from memory and disk instead")->excludes(check);
  app.add_option("--jobs", arguments.jobs, fmt::format("reads at once ({})", jobs_default))
      ->check(CLI::Range(1u, jobs_max));
  app.add_flag("--json", arguments.json, "for programs");
  app.footer(
      "Ends with 1 when a file could not be read or dropped; the others are done all the same.\n\n"
      "Examples:\n  blobcache warm /mnt/models/llama\n  blobcache warm --check /mnt/models\n"
      "  find /mnt/models -name '*.safetensors' | blobcache warm --list=-");
}

Report work(const Arguments& arguments, const WarmFiles& files) {
  Report report{.files = files.files().size(), .bytes = files.bytes(), .failures = files.failures()};
  if (arguments.evict) {
    for (const WarmFile& file : files.files()) {
      const std::string cause = evict_file(file);
      if (!cause.empty()) report.failures.push_back({file.path, cause});
    }
  } else if (!arguments.check) {
    read_files(files, arguments, &report);
    if (!files.files().empty() && has_disks(files.files()[0].path)) wait_for_disk(files.files(), !arguments.json);
  }
  add_up_tiers(files.files(), &report);
  return report;
}

}  // namespace

int warm_command(int argc, char** argv) {
  CLI::App app("Fill the cache with files, say what it has of them, or drop them.", "blobcache warm");
  Arguments arguments;
  describe(app, arguments);
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;
  if (arguments.paths.empty() && arguments.list.empty()) {
    return refuse(exit_wrong_use, "no file or directory is given; see `blobcache warm --help`");
  }
  WarmFiles files;
  for (const std::string& path : arguments.paths) files.add(path);
  if (!arguments.list.empty()) {
    if (const int os_errno = files.add_list(arguments.list); os_errno != 0) {
      return refuse(exit_failed, fmt::format("the list {} cannot be read: {}; check the path", arguments.list,
                                             std::strerror(os_errno)));
    }
  }
  const Report report = work(arguments, files);
  for (const WarmFailure& failure : report.failures) {
    fmt::print(stderr, "blobcache: {}: {}\n", failure.path, failure.cause);
  }
  if (arguments.json) {
    print_report_json(report);
  } else if (report.files > 0 || report.failures.empty()) {
    print_report(arguments, report);
  }
  return report.failures.empty() ? exit_done : exit_failed;
}

}  // namespace blobcache::cli
