// credential_process: a program of the operator's that writes JSON. It is run by a shell, as AWS's tools say that it is, and
// has 30 seconds; one that hangs is killed with all that it started.
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "origin/aws_profile.h"

extern char** environ;

namespace blobcache {
namespace {

constexpr int patience_ms = 30'000;
constexpr size_t answer_bytes_max = 64 * 1024;

// -1: it could not be started.
pid_t start(const std::string& command, int output) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  // Our threads block signals; the program shall not. A group of its own can be killed as one.
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
  std::string shell = "sh";
  std::string option = "-c";
  std::string text = command;
  const std::array<char*, 4> arguments{shell.data(), option.data(), text.data(), nullptr};
  pid_t child = -1;
  if (::posix_spawn(&child, "/bin/sh", &actions, &attributes, arguments.data(), environ) != 0) child = -1;
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return child;
}

using Clock = std::chrono::steady_clock;

int ms_until(Clock::time_point until) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
  return left.count() <= 0 ? 0 : static_cast<int>(left.count());
}

// False: it did not end in time. A program may close its output and go on.
bool wait_for_end(pid_t child, Clock::time_point until) {
  const int handle = static_cast<int>(::syscall(SYS_pidfd_open, child, 0));
  if (handle < 0) return false;
  pollfd ended{.fd = handle, .events = POLLIN, .revents = 0};
  int count = 0;
  do {
    count = ::poll(&ended, 1, ms_until(until));
  } while (count < 0 && errno == EINTR);
  ::close(handle);
  return count == 1;
}

// False: it said too much, or not all of it in time.
bool read_answer(int fd, std::string& answer, Clock::time_point until) {
  while (answer.size() <= answer_bytes_max) {
    pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
    const int count = ::poll(&ready, 1, ms_until(until));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    std::array<char, 4096> buffer;
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return got == 0;
    answer.append(buffer.data(), static_cast<size_t>(got));
  }
  return false;
}

}  // namespace

Result<AwsCredentials> from_program(const std::string& command, std::string* why) {
  std::array<int, 2> ends{-1, -1};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return refuse_credentials(why, "no pipe for credential_process is left");
  const pid_t child = start(command, ends[1]);
  ::close(ends[1]);
  std::string answer;
  const auto until = Clock::now() + std::chrono::milliseconds(patience_ms);
  const bool complete = child > 0 && read_answer(ends[0], answer, until) && wait_for_end(child, until);
  ::close(ends[0]);
  int status = 0;
  if (child > 0) {
    if (!complete) ::kill(-child, SIGKILL);
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
  }
  const bool ended_well = complete && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  const Result<AwsCredentials> found = parse_service_credentials(answer);
  if (ended_well && found) return found;
  // The command may have secrets in its arguments.
  const std::string program = command.substr(0, command.find(' '));
  return refuse_credentials(why, fmt::format("credential_process ({}) {}; run it by hand", program,
                                             !complete     ? "did not answer within 30 s"
                                             : !ended_well ? "failed"
                                                           : "wrote no credentials in JSON"));
}

}  // namespace blobcache
