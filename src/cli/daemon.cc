// What goes through the pipe: one digit, the exit code, and then the summary or the sentence up to the end of the pipe.
// Nothing at all: the daemon died before it could say a word.
#include "cli/daemon.h"

#include <cerrno>
#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/bounded.h"
#include "cli/command.h"
#include "cli/mountpoint.h"
#include "fuse/mountinfo.h"

namespace blobcache::cli {
namespace {

constexpr int answer_ms = 10'000;
constexpr off_t log_bytes_max = 1 << 20;  // a longer one is put aside as .old when a daemon starts

int open_log(const std::string& path) {
  struct stat status{};
  if (stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) && status.st_size > log_bytes_max) {
    rename(path.c_str(), (path + ".old").c_str());
  }
  return open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW, 0640);
}

// Leaves the terminal, the working directory and the caller's files behind. Returns the report pipe's new number.
int become_daemon(int report_fd, int log_fd) {
  setsid();
  umask(022);
  if (chdir("/") != 0) BC_LOG(warn, "the working directory stays: {}", std::strerror(errno));
  const int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  dup2(null_fd, STDIN_FILENO);
  dup2(log_fd, STDOUT_FILENO);
  dup2(log_fd, STDERR_FILENO);
  constexpr int report_fd_new = STDERR_FILENO + 1;
  if (report_fd != report_fd_new) dup3(report_fd, report_fd_new, O_CLOEXEC);
  close_range(report_fd_new + 1, ~0u, 0);
  return report_fd_new;
}

[[noreturn]] void run_daemon(int report_fd, int log_fd, pid_t parent,
                             const std::function<node::Outcome(const OnReady&)>& serve) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(exit_failed);
  report_fd = become_daemon(report_fd, log_fd);
  signal(SIGPIPE, SIG_IGN);
  const auto report = [&](int exit_code, const std::string& text) {
    if (report_fd < 0) return;
    write_all(report_fd, fmt::format("{}{}", exit_code, text));
    close(report_fd);
    report_fd = -1;
  };
  const node::Outcome outcome = serve([&](const std::string& summary) {
    prctl(PR_SET_PDEATHSIG, 0);
    report(exit_done, summary);
  });
  if (outcome.exit_code != 0 && report_fd < 0) BC_LOG(error, "{}", outcome.message);
  report(outcome.exit_code == 0 ? exit_failed : outcome.exit_code,
         outcome.exit_code == 0 ? "the daemon was told to stop before the mount was ready" : outcome.message);
  _exit(outcome.exit_code);
}

std::string read_report(int fd) {
  std::string text;
  for (;;) {
    char buffer[4096];
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(buffer, static_cast<size_t>(got));
  }
}

node::Outcome died(pid_t child, const std::string& log_path) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  const std::string how =
      WIFSIGNALED(status) ? fmt::format("was killed by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)))
                          : fmt::format("ended with {}", WEXITSTATUS(status));
  return {exit_failed, fmt::format("the daemon {} before the mount was ready; its log {} may say why", how, log_path)};
}

// The proof of the pudding: a call that goes through the mount.
node::Outcome check_answer(pid_t child, const DaemonOptions& options, std::string summary) {
  const auto answer = run_bounded(answer_ms, [&](int) {
    struct statvfs status{};
    return statvfs(options.mountpoint.c_str(), &status) == 0 ? 0 : errno;
  });
  const auto mounts = fuse::read_mountinfo();
  const fuse::MountEntry* mount = mounts ? fuse::find_mount(*mounts, options.mountpoint) : nullptr;
  const bool ours = mount != nullptr && mount->is_blobcache();
  if (answer && answer->exit_code == 0 && ours) return {exit_done, std::move(summary)};
  kill(child, SIGTERM);
  if (ours) {
    if (!answer) (void)fuse::abort_connection(mount->minor);
    (void)detach_mount(options.mountpoint, answer_ms);
  }
  return {exit_failed, fmt::format("{} was mounted, but {}; the log {} may say why", options.mountpoint,
                                   answer ? fmt::format("answers with an error ({})", std::strerror(answer->exit_code))
                                          : std::string("does not answer"),
                                   options.log_path)};
}

}  // namespace

node::Outcome start_daemon(const DaemonOptions& options, const std::function<node::Outcome(const OnReady&)>& serve) {
  const int log_fd = open_log(options.log_path);
  if (log_fd < 0) {
    return {exit_failed, fmt::format("the log {} cannot be written ({}); set log.file to a path that can",
                                     options.log_path, std::strerror(errno))};
  }
  int pipe_fds[2];
  const pid_t parent = getpid();
  const pid_t child = pipe2(pipe_fds, O_CLOEXEC) == 0 ? fork() : -1;
  if (child < 0) {
    return {exit_lacking, fmt::format("no daemon could be started ({}); raise the limit of processes or files",
                                      std::strerror(errno))};
  }
  if (child == 0) {
    close(pipe_fds[0]);
    run_daemon(pipe_fds[1], log_fd, parent, serve);
  }
  close(log_fd);
  close(pipe_fds[1]);
  const std::string report = read_report(pipe_fds[0]);
  close(pipe_fds[0]);
  if (report.empty()) return died(child, options.log_path);
  const int exit_code = report[0] - '0';
  if (exit_code == exit_done) return check_answer(child, options, report.substr(1));
  // Waited for, so that what it held is free when the command returns.
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return {exit_code, report.substr(1)};
}

}  // namespace blobcache::cli
