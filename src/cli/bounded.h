// Work that may hang (a dead file server, a stopped daemon) is done by a child process, for which nobody has to wait: a
// thread could not be left behind, a process in an uninterruptible wait can.
//   Thread    main, before any other thread exists (fork)
//   Limits    at most 1 MiB of output is kept
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace blobcache::cli {

struct BoundedResult {
  int exit_code = 0;  // 128 + N: ended by signal N
  std::string output;
};

// Runs `work` in a child process with the standard streams closed; what it writes to the descriptor it is given comes
// back. nullopt: not done in time; the child was told to die and may be gone only later.
std::optional<BoundedResult> run_bounded(int timeout_ms, const std::function<int(int output_fd)>& work);

// A program and its arguments, found by PATH; its standard error is the output. Exit code 127: it could not be started.
std::optional<BoundedResult> run_program(int timeout_ms, const std::vector<std::string>& arguments);

// Writes all of it; for use within `work`.
void write_all(int fd, const std::string& text);

}  // namespace blobcache::cli
