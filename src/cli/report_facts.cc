#include "cli/report_facts.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>

#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "base/secrets.h"
#include "base/state_paths.h"
#include "cli/bounded.h"
#include "cli/checks.h"
#include "cli/control.h"
#include "cli/facts.h"

namespace blobcache::cli {
namespace {

constexpr int answer_ms = 3000;
constexpr int journal_ms = 10'000;
constexpr size_t log_bytes_max = 1 << 20;

// The end of a file, at most bytes_max; from the start of a line where it is cut.
std::string end_of_file(const std::string& path, size_t bytes_max) {
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (text.size() <= bytes_max) return text;
  text.erase(0, text.size() - bytes_max);
  return text.substr(std::min(text.size(), text.find('\n') + 1));
}

std::string printable_arguments(const std::string& pid) {
  std::string text = end_of_file("/proc/" + pid + "/cmdline", log_bytes_max);
  std::replace(text.begin(), text.end(), '\0', ' ');
  return text;
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  DIR* opened = opendir(directory.c_str());
  if (opened == nullptr) return names;
  while (const dirent* entry = readdir(opened)) names.emplace_back(entry->d_name);
  closedir(opened);
  std::sort(names.begin(), names.end());
  return names;
}

void add_answer(Bundle& bundle, const std::string& socket, std::string_view question, const std::string& name) {
  std::string text;
  const Ping::Answer answer = ask_socket(socket, question, answer_ms, &text);
  if (answer == Ping::Answer::alive && !text.starts_with("error:")) return bundle.add(name, text);
  bundle.add_missing(name, answer == Ping::Answer::alive    ? text.substr(0, text.find('\n'))
                           : answer == Ping::Answer::silent ? "the daemon does not answer"
                           : answer == Ping::Answer::denied ? "this user may not ask the daemon"
                                                            : "the daemon is gone");
}

void add_daemon(Bundle& bundle, const std::string& socket, const std::string& name, std::set<pid_t>& seen) {
  const Ping ping = ping_socket(socket, answer_ms);
  // Each mount of a daemon has a name of its own for the one socket.
  if (ping.answer == Ping::Answer::alive && !seen.insert(ping.pid).second) return;
  const std::string folder = "daemon-" + name + "/";
  add_answer(bundle, socket, "status\n", folder + "status.json");
  add_answer(bundle, socket, "metrics\n", folder + "metrics.txt");
  if (ping.answer != Ping::Answer::alive) return;
  const std::string pid = std::to_string(ping.pid);
  bundle.add(folder + "command.txt", printable_arguments(pid) + "\n");
  for (const char* file : {"status", "limits", "cgroup", "io"}) {
    const std::string text = end_of_file("/proc/" + pid + "/" + file, log_bytes_max);
    if (text.empty()) {
      bundle.add_missing(folder + file + ".txt", "this user may not read it");
    } else {
      bundle.add(folder + file + ".txt", text);
    }
  }
}

void add_journal(Bundle& bundle) {
  const auto journal = run_program(
      journal_ms, {"sh", "-c", "journalctl --no-pager --quiet --unit=blobcache --lines=4000 --output=short-iso 1>&2"});
  if (!journal || journal->exit_code != 0 || journal->output.empty()) {
    return bundle.add_missing("journal.log", !journal                    ? "journalctl does not answer"
                                             : journal->exit_code == 127 ? "there is no journalctl here"
                                                                         : "it has no line of the service blobcache");
  }
  bundle.add("journal.log", journal->output);
}

}  // namespace

void Bundle::add(std::string name, std::string_view text) { files_.push_back({std::move(name), redacted(text)}); }

void Bundle::add_missing(std::string_view name, std::string_view why) {
  missing_ += fmt::format("missing {}: {}\n", name, redacted(why));
}

std::string Bundle::contents() const {
  std::string text;
  for (const File& file : files_) text += fmt::format("{:>9} {}\n", file.text.size(), file.name);
  return text + missing_;
}

void add_machine(Bundle& bundle) {
  bundle.add("machine/checks.txt", render_checks(check_facts(read_facts())));
  utsname name{};
  uname(&name);
  bundle.add("machine/kernel.txt",
             fmt::format("{} {} {} {}\n", name.sysname, name.release, name.version, name.machine));
  for (const char* path :
       {"/etc/os-release", "/proc/meminfo", "/proc/self/mountinfo", "/proc/self/limits", "/proc/self/cgroup",
        "/proc/loadavg", "/proc/pressure/io", "/proc/pressure/memory", "/proc/sys/kernel/io_uring_disabled",
        "/proc/sys/fs/fuse/max_pages_limit", "/sys/module/fuse/parameters/enable_uring",
        "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/diskstats"}) {
    std::string as = path + 1;
    std::replace(as.begin(), as.end(), '/', '-');
    const std::string text = end_of_file(path, log_bytes_max);
    if (text.empty()) {
      bundle.add_missing("machine/" + as, "this kernel has none, or this user may not read it");
    } else {
      bundle.add("machine/" + as, text);
    }
  }
}

void add_daemons(Bundle& bundle) {
  const std::string directory = state_directory();
  std::set<pid_t> seen;
  bool any = false;
  for (const std::string& name : names_in(directory)) {
    if (name.ends_with(".sock")) {
      any = true;
      add_daemon(bundle, directory + "/" + name, name.substr(0, name.size() - std::strlen(".sock")), seen);
    } else if (name.ends_with(".log") || name.ends_with(".log.old")) {
      bundle.add("logs/" + name, end_of_file(directory + "/" + name, log_bytes_max));
    }
  }
  if (!any) bundle.add_missing("daemons", fmt::format("no daemon of this user has its socket in {}", directory));
  add_journal(bundle);
}

}  // namespace blobcache::cli
