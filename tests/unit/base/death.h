// Death tests: a broken invariant must end the process with its own message, not with whatever the damage leads to.
//   Thread    one, in a process that has no other threads
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace blobcache_test {

// Runs body in a child process; true when the child died of SIGABRT after saying "assertion failed: ... expected".
template <class Body>
bool dies_of_assertion(std::string_view expected, Body body) {
  int ends[2];
  if (pipe(ends) != 0) return false;
  std::fflush(nullptr);  // or the child prints it again
  const pid_t child = fork();
  if (child == 0) {
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    signal(SIGABRT, SIG_DFL);  // doctest's handler would report a crash
    dup2(ends[1], STDERR_FILENO);
    body();
    _exit(0);
  }
  close(ends[1]);
  std::string said;
  char part[512];
  for (ssize_t count = 0; (count = read(ends[0], part, sizeof part)) > 0;)
    said.append(part, static_cast<size_t>(count));
  close(ends[0]);
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return false;
  const size_t at = said.find("assertion failed: ");
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && at != std::string::npos &&
         said.find(expected, at) != std::string::npos;
}

}  // namespace blobcache_test
