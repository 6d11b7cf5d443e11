#include "cli/bounded.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <ctime>

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

namespace blobcache::cli {
namespace {

constexpr size_t output_bytes_max = 1u << 20;

int64_t now_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000} + now.tv_nsec / 1'000'000;
}

[[noreturn]] void run_child(int output_fd, const std::function<int(int)>& work) {
  // A child that hangs must not keep the caller's pipes open.
  const int null_fd = open("/dev/null", O_RDWR);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(null_fd, fd);
  if (null_fd > STDERR_FILENO) close(null_fd);
  _exit(work(output_fd));
}

// False: the time is over.
bool read_until_end(int fd, int64_t deadline_ms, std::string& out) {
  for (;;) {
    const int64_t left = deadline_ms - now_ms();
    pollfd poll_fd{.fd = fd, .events = POLLIN, .revents = 0};
    const int ready = left <= 0 ? 0 : poll(&poll_fd, 1, static_cast<int>(left));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return false;
    char buffer[4096];
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return true;
    out.append(buffer, std::min(static_cast<size_t>(got), output_bytes_max - std::min(output_bytes_max, out.size())));
  }
}

}  // namespace

std::optional<BoundedResult> run_bounded(int timeout_ms, const std::function<int(int output_fd)>& work) {
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) return std::nullopt;
  const int64_t deadline_ms = now_ms() + timeout_ms;
  const pid_t child = fork();
  if (child == 0) {
    close(pipe_fds[0]);
    run_child(pipe_fds[1], work);
  }
  close(pipe_fds[1]);
  BoundedResult result;
  // The child's end closes when it ends, however it ends.
  const bool ended = child > 0 && read_until_end(pipe_fds[0], deadline_ms, result.output);
  close(pipe_fds[0]);
  if (child <= 0) return std::nullopt;
  if (!ended) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, WNOHANG);
    return std::nullopt;
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

std::optional<BoundedResult> run_program(int timeout_ms, const std::vector<std::string>& arguments) {
  return run_bounded(timeout_ms, [&](int output_fd) {
    std::vector<char*> words;
    for (const std::string& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));  // NOLINT
    words.push_back(nullptr);
    dup2(output_fd, STDERR_FILENO);
    execvp(words[0], words.data());
    return 127;
  });
}

void write_all(int fd, const std::string& text) {
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t wrote = write(fd, text.data() + done, text.size() - done);
    if (wrote < 0 && errno != EINTR) return;
    if (wrote > 0) done += static_cast<size_t>(wrote);
  }
}

}  // namespace blobcache::cli
