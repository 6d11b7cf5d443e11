#include "cli/report_facts.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>

#include <dirent.h>
#include <fmt/format.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

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
constexpr size_t logs_max = 16;

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

// The answer to GET /metrics, at most what run_bounded keeps; nothing where none came.
int get_metrics(const std::string& host, const std::string& port, const std::string& token, int output_fd) {
  const addrinfo hints{.ai_flags = AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) return 1;
  const int fd = socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC, 0);
  const bool connected = fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) == 0;
  freeaddrinfo(found);
  if (!connected) return 1;
  write_all(fd, fmt::format("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}\r\n",
                            token.empty() ? "" : fmt::format("Authorization: Bearer {}\r\n", token)));
  std::string text;
  char buffer[8192];
  for (ssize_t got = 0; (got = read(fd, buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<size_t>(got));
  close(fd);
  const size_t body = text.find("\r\n\r\n");
  if (!text.starts_with("HTTP/1.1 200") || body == std::string::npos) return 1;
  write_all(output_fd, text.substr(body + 4));
  return 0;
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

namespace {

// The newest of them: a machine where many mounts came and went has hundreds.
void add_logs(Bundle& bundle, const std::string& directory, const std::vector<std::string>& names) {
  std::vector<std::pair<time_t, std::string>> logs;
  for (const std::string& name : names) {
    struct stat status{};
    if (!name.ends_with(".log") && !name.ends_with(".log.old")) continue;
    if (stat((directory + "/" + name).c_str(), &status) == 0) logs.emplace_back(-status.st_mtime, name);
  }
  std::sort(logs.begin(), logs.end());
  for (size_t i = 0; i < logs.size(); ++i) {
    const std::string as = "logs/" + logs[i].second;
    if (i >= logs_max) {
      bundle.add_missing(as, "older than those that are in it");
    } else {
      bundle.add(as, end_of_file(directory + "/" + logs[i].second, log_bytes_max));
    }
  }
}

}  // namespace

void add_metrics(Bundle& bundle, const HttpConfig& config) {
  const size_t colon = config.listen.rfind(':');
  if (colon == std::string::npos) return bundle.add_missing("metrics.txt", "http.listen is empty");
  std::string host = config.listen.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  std::string token = config.secret_file.empty() ? "" : end_of_file(config.secret_file, log_bytes_max);
  while (!token.empty() && static_cast<unsigned char>(token.back()) <= ' ') token.pop_back();
  remember_secret(token);
  const auto answer = run_bounded(
      answer_ms, [&](int output_fd) { return get_metrics(host, config.listen.substr(colon + 1), token, output_fd); });
  if (answer && answer->exit_code == 0) return bundle.add("metrics.txt", answer->output);
  bundle.add_missing("metrics.txt", fmt::format("no daemon tells them at {}", config.listen));
}

void add_daemons(Bundle& bundle) {
  const std::string directory = state_directory();
  std::set<pid_t> seen;
  bool any = false;
  const std::vector<std::string> names = names_in(directory);
  for (const std::string& name : names) {
    if (name.ends_with(".sock")) {
      any = true;
      add_daemon(bundle, directory + "/" + name, name.substr(0, name.size() - std::strlen(".sock")), seen);
    }
  }
  if (!any) bundle.add_missing("daemons", fmt::format("no daemon of this user has its socket in {}", directory));
  add_logs(bundle, directory, names);
  add_journal(bundle);
}

}  // namespace blobcache::cli
