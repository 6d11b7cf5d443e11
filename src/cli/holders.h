// Who holds a mount: the processes with a file, a directory, a program or a mapping below it.
//   Thread    main, before any other thread exists (bounded.h)
//   Safety    reads links of /proc only, never the mount; a process stuck in the kernel can make its maps unreadable, so all
//             of it happens in a child process with a time limit
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

namespace blobcache::cli {

struct Holder {
  pid_t pid = 0;
  std::string name;  // of the program
  std::string path;  // one that it holds
};

// At most 20, found within the time given.
std::vector<Holder> find_holders(const std::string& mountpoint, int timeout_ms);

}  // namespace blobcache::cli
