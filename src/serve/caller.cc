#include "serve/caller.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

namespace blobcache::serve {
namespace {

// "SigPnd:\t0000000000000100": signals pending for the thread; ShdPnd those for its process. proc_pid_status(5).
bool has_sigkill(const char* status, const char* field) {
  const char* line = std::strstr(status, field);
  if (line == nullptr) return false;
  const unsigned long long mask = std::strtoull(line + std::strlen(field), nullptr, 16);
  return (mask >> (SIGKILL - 1) & 1) != 0;
}

}  // namespace

bool caller_is_killed(uint32_t pid) {
  if (pid == 0) return false;
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%u/status", pid);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  char status[4096];
  const ssize_t bytes = read(fd, status, sizeof status - 1);
  close(fd);
  if (bytes <= 0) return false;
  status[bytes] = '\0';
  return has_sigkill(status, "\nSigPnd:") || has_sigkill(status, "\nShdPnd:");
}

}  // namespace blobcache::serve
