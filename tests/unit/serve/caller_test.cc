// A process that is being killed is seen as such, by its thread's number, and nobody else is.
#include <doctest/doctest.h>

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "serve/caller.h"

namespace blobcache::serve {
namespace {

TEST_CASE("caller: who lives, who is gone, and who is in another name space is not being killed") {
  CHECK(!caller_is_killed(static_cast<uint32_t>(getpid())));
  CHECK(!caller_is_killed(0));
  const pid_t child = fork();
  if (child == 0) _exit(0);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(!caller_is_killed(static_cast<uint32_t>(child)));
}

TEST_CASE("caller: a blocked signal that waits is not a kill") {
  const pid_t child = fork();
  if (child == 0) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, nullptr);
    raise(SIGTERM);
    raise(SIGSTOP);
    pause();
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, WUNTRACED) == child);
  CHECK(!caller_is_killed(static_cast<uint32_t>(child)));
  kill(child, SIGKILL);
  REQUIRE(waitpid(child, &status, 0) == child);
}

}  // namespace
}  // namespace blobcache::serve
