// warm: reads files through their mount, so that the cache has them before they are needed; says what the cache has of them;
// keeps them there (pins), or drops them.
//
// It is an ordinary reader of the mount: what it may read is what its user may read, and what it fills is what any reader
// would have filled. The disk is written behind the reads, and what comes faster than it can be written is left out. So
// after the last read it waits until no more comes, and reads what lacks again, one file after the other; memory is told to
// forget these first, because what lies there is not written a second time. A disk without room stays without.
//
// What is pinned is read whatever leaves for it, and as often as more of it comes to the disk. An interrupted `--pin` takes back
// the pins of what has not come whole: they would keep room for nobody.
//
// With --order it goes ahead of other readers of the list, and no further than --ahead beyond the furthest file that one of
// them has opened. It ends when it has read all of it.
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
#include "base/text.h"
#include "base/units.h"
#include "cli/cached_file.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/control.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "cli/warm_ahead.h"
#include "cli/warm_files.h"
#include "cli/warm_pins.h"
#include "cli/warm_reader.h"

namespace blobcache::cli {
namespace {

constexpr unsigned jobs_default = 8;
constexpr unsigned jobs_max = 256;
constexpr unsigned show_ms = 200;
constexpr int control_ms = 12'000;
constexpr unsigned rounds_max = 4;
constexpr unsigned rounds_pinned_max = 32;
constexpr size_t files_pinned_at_once = 16'384;  // a daemon awaits 65,536 small ones a disk
constexpr auto settle_look = std::chrono::milliseconds(100);
constexpr auto settle_quiet = std::chrono::milliseconds(2'000);  // nothing more has come: it will not
constexpr auto settle_limit = std::chrono::milliseconds(60'000);

using Clock = std::chrono::steady_clock;

struct Arguments {
  std::vector<std::string> paths;
  std::string list;
  std::string order;
  std::string ahead = "1GiB";
  bool check = false;
  bool evict = false;
  bool pin = false;
  bool unpin = false;
  bool unpin_all = false;
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
  uint64_t unpinned = 0;  // files
  uint64_t dropped = 0;   // files
};

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct ReadResult {
  uint64_t bytes = 0;
  double seconds = 0;
  std::vector<WarmFailure> failures;
};

// ahead: of readers, or null.
ReadResult read_files(const std::vector<WarmFile>& files, unsigned jobs, bool shown, WarmAhead* ahead = nullptr) {
  WarmReader reader(files);
  if (ahead != nullptr) {
    reader.follow(*ahead);
    reader.allow(ahead->allowed_bytes());
  }
  Progress progress(shown);
  uint64_t bytes_total = 0;
  for (const WarmFile& file : files) bytes_total += file.bytes;
  const Clock::time_point start = Clock::now();
  reader.start(jobs);
  while (!reader.wait(ahead != nullptr ? 0 : show_ms)) {
    if (ahead != nullptr && ahead->wait(show_ms)) reader.allow(ahead->allowed_bytes());
    if (Interrupt::interrupted()) reader.stop();
    progress.show({.bytes_done = reader.bytes_read(),
                   .bytes_total = bytes_total,
                   .files_done = reader.files_done(),
                   .files_total = files.size(),
                   .seconds = seconds_since(start)});
  }
  reader.join();
  progress.end();
  return {.bytes = reader.bytes_read(), .seconds = seconds_since(start), .failures = reader.failures()};
}

// nullopt: it has no disks, or may not be asked.
std::optional<uint64_t> ask_room(const std::string& path) {
  const auto mount = mount_of(path);
  std::string status;
  if (!mount || ask_mount(*mount, "status", control_ms, &status) != Ping::Answer::alive) return std::nullopt;
  return disk_room(status);
}

struct Lacking {
  std::vector<WarmFile> files;
  uint64_t bytes = 0;  // of them, that the disk does not have
};

// Small objects are verified when they are read, larger ones as soon as they are whole.
bool is_settled(const WarmFile& file, const std::vector<TierBytes>& tiers) {
  return bytes_of(tiers, file.bytes < limits::chunk_bytes_min ? "disk" : "disk_verified") >= file.bytes;
}

// Until every file lies on disk verified, or nothing has changed for a while. Gives back what lacks.
Lacking wait_for_disk(const std::vector<WarmFile>& files, bool shown) {
  std::vector<const WarmFile*> pending;
  Lacking lacking;
  for (const WarmFile& file : files) {
    if (file.bytes > 0) pending.push_back(&file);
  }
  const Clock::time_point start = Clock::now();
  Clock::time_point changed = start;
  uint64_t before = 0;
  bool told = false;
  while (true) {
    uint64_t sum = 0;
    lacking = Lacking();
    std::erase_if(pending, [&](const WarmFile* file) {
      std::vector<TierBytes> tiers;
      if (read_tiers(file->path, &tiers) != 0) return true;  // the report will tell
      sum += bytes_of(tiers, "disk") + bytes_of(tiers, "disk_verified");
      if (const uint64_t disk = bytes_of(tiers, "disk"); disk < file->bytes) {
        lacking.files.push_back(*file);
        lacking.bytes += file->bytes - disk;
      }
      return is_settled(*file, tiers);
    });
    sum += files.size() - pending.size();
    if (sum != before) changed = Clock::now();
    before = sum;
    const Clock::time_point now = Clock::now();
    if (pending.empty() || now - changed > settle_quiet || now - start > settle_limit || Interrupt::interrupted())
      return lacking;
    if (shown && !told && now - start > settle_quiet) {
      fmt::print(stderr, "waiting for the disk to have {} files\n", pending.size());
      told = true;
    }
    std::this_thread::sleep_for(settle_look);
  }
}

void fill(const Arguments& arguments, const std::vector<WarmFile>& files, Report* report) {
  const ReadResult result = read_files(files, arguments.jobs, !arguments.json);
  report->bytes_read += result.bytes;
  report->seconds += result.seconds;
  report->failures.insert(report->failures.end(), result.failures.begin(), result.failures.end());
  if (files.empty() || !ask_room(files[0].path)) return;
  Lacking lacking = wait_for_disk(files, !arguments.json);
  unsigned idle_rounds = 0;
  for (unsigned round = 1;
       round < (arguments.pin ? rounds_pinned_max : rounds_max) && !lacking.files.empty() && !Interrupt::interrupted();
       ++round) {
    // Without room it would only push out what came before.
    if (!arguments.pin && lacking.bytes > ask_room(files[0].path).value_or(0)) return;
    const uint64_t before = lacking.bytes;
    // Who may not tell the daemon leaves it at that.
    std::erase_if(lacking.files, [](const WarmFile& file) { return !tell_daemon("forget", file).done; });
    read_files(lacking.files, 1, !arguments.json);
    lacking = wait_for_disk(lacking.files, !arguments.json);
    idle_rounds = lacking.bytes < before ? 0 : idle_rounds + 1;
    if (idle_rounds > (arguments.pin ? 2u : 0u)) return;
  }
}

// Empty, or why not.
std::string fill_ahead(const Arguments& arguments, uint64_t ahead_bytes, const std::vector<WarmFile>& files,
                       Report* report) {
  WarmAhead ahead(files, ahead_bytes);
  if (std::string cause = ahead.start(); !cause.empty()) return cause;
  const ReadResult result = read_files(files, arguments.jobs, !arguments.json, &ahead);
  report->bytes_read = result.bytes;
  report->seconds = result.seconds;
  report->failures.insert(report->failures.end(), result.failures.begin(), result.failures.end());
  return "";
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

void print_report(const Arguments& arguments, const Report& report) {
  fmt::print("{} files, {}", report.files, format_bytes_short(report.bytes));
  if (arguments.unpin) fmt::print(", {} unpinned", report.unpinned);
  if (arguments.evict) fmt::print(", {} dropped", report.dropped);
  if (!arguments.check && !arguments.evict && !arguments.unpin) {
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
  auto* list = app.add_option("--list", arguments.list, "a file with one such path a line; -: standard input")
                   ->type_name("FILE");
  auto* order = app.add_option("--order", arguments.order,
                               "such a list in the order in which programs will read it: goes ahead of them")
                    ->type_name("FILE");
  app.add_option("--ahead", arguments.ahead, "with --order: how far beyond the furthest file that was opened (1GiB)")
      ->type_name("SIZE")
      ->needs(order);
  auto* check = app.add_flag("--check", arguments.check, "read nothing, say what the cache has")->excludes(order);
  auto* evict = app.add_flag("--evict", arguments.evict, "drop them from memory and disk instead")->excludes(check);
  auto* pin = app.add_flag("--pin", arguments.pin, "and keep them on this node's disk, whatever else is read");
  auto* unpin = app.add_flag("--unpin", arguments.unpin, "read nothing, let them leave the disk again");
  auto* unpin_all = app.add_flag("--unpin-all", arguments.unpin_all,
                                 "the same of all that the mount's daemon has, replaced versions too");
  for (CLI::Option* other : {check, evict, unpin}) pin->excludes(other);
  unpin->excludes(check);
  for (CLI::Option* other : {check, evict, pin, unpin, order, list}) unpin_all->excludes(other);
  for (CLI::Option* other : {evict, pin, unpin}) other->excludes(order);
  app.add_option("--jobs", arguments.jobs, fmt::format("reads at once ({})", jobs_default))
      ->check(CLI::Range(1u, jobs_max));
  app.add_flag("--json", arguments.json, "for programs");
  app.footer(
      "Ends with 1 when a file could not be read, kept or dropped; the others are done all the same.\n\n"
      "Examples:\n  blobcache warm /mnt/models/llama\n  blobcache warm --check /mnt/models\n"
      "  find /mnt/models -name '*.safetensors' | blobcache warm --list=-\n"
      "  blobcache warm --pin /mnt/models/llama\n"
      "  blobcache warm --order=epoch-3.txt --ahead=4GiB &");
}

void work(const Arguments& arguments, const WarmFiles& files, Report* report) {
  if (arguments.evict || arguments.unpin) {
    for (const WarmFile& file : files.files()) {
      Told told{.done = true};
      if (arguments.unpin) told = tell_daemon("unpin", file);
      report->unpinned += arguments.unpin && told.done ? 1 : 0;
      if (told.done && arguments.evict) {
        drop_pages(file.path);
        told = tell_daemon("evict", file);
      }
      if (!told.done) report->failures.push_back({file.path, told.text});
      report->dropped += arguments.evict && told.done ? 1 : 0;
    }
  } else if (arguments.pin) {
    const std::vector<WarmFile>& all = files.files();
    for (size_t first = 0; first < all.size() && !Interrupt::interrupted(); first += files_pinned_at_once) {
      const size_t end = std::min(all.size(), first + files_pinned_at_once);
      WarmPins pins;
      pins.pin({all.data() + first, end - first});
      fill(arguments, pins.files(), report);
      pins.settle(&report->failures);
    }
  } else if (!arguments.check) {
    fill(arguments, files.files(), report);
  }
}

int unpin_everything(const Arguments& arguments) {
  std::vector<WarmFailure> failures;
  const uint64_t unpinned = unpin_all(arguments.paths, &failures);
  for (const WarmFailure& failure : failures) fmt::print(stderr, "blobcache: {}: {}\n", failure.path, failure.cause);
  if (arguments.json) {
    fmt::print("{{\"unpinned\":{}}}\n", unpinned);
  } else {
    fmt::print("{} objects unpinned\n", unpinned);
  }
  return failures.empty() ? exit_done : exit_failed;
}

}  // namespace

int warm_command(int argc, char** argv) {
  CLI::App app("Fill the cache with files, say what it has of them, or drop them.", "blobcache warm");
  Arguments arguments;
  describe(app, arguments);
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;
  if (!arguments.order.empty() && !(arguments.paths.empty() && arguments.list.empty())) {
    return refuse(exit_wrong_use, "--order stands alone: put all files into its list");
  }
  const Parsed<uint64_t> ahead = parse_bytes(arguments.ahead);
  if (!ahead || *ahead == 0) {
    return refuse(exit_wrong_use, fmt::format("--ahead={} is no size; give one like 4GiB", arguments.ahead));
  }
  if (arguments.paths.empty() && arguments.list.empty() && arguments.order.empty()) {
    return refuse(exit_wrong_use, "no file or directory is given; see `blobcache warm --help`");
  }
  if (arguments.unpin_all) return unpin_everything(arguments);
  WarmFiles files;
  for (const std::string& path : arguments.paths) files.add(path);
  for (const std::string& list : {arguments.list, arguments.order}) {
    if (list.empty()) continue;
    if (const int os_errno = files.add_list(list); os_errno != 0) {
      return refuse(exit_failed,
                    fmt::format("the list {} cannot be read: {}; check the path", list, std::strerror(os_errno)));
    }
  }
  std::optional<Interrupt> interrupt;
  if (arguments.pin) interrupt.emplace();
  Report report{.files = files.files().size(), .bytes = files.bytes(), .failures = files.failures()};
  if (arguments.order.empty()) {
    work(arguments, files, &report);
  } else if (const std::string cause = fill_ahead(arguments, *ahead, files.files(), &report); !cause.empty()) {
    return refuse(exit_lacking, cause);
  }
  if (Interrupt::interrupted())
    return refuse(exit_failed,
                  "interrupted: what had not come to the disk whole is not pinned; repeat it for the rest");
  add_up_tiers(files.files(), &report);
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
