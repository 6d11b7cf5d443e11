// What the machine under a cache directory says of itself, as the tests want it: which boot this is, and when a file was
// last changed. A disk that loses a write or changes a bit leaves the times of the file alone, and no program can do that
// from outside; so fstat() of the test program tells the times of before the damage.
//   Thread    set before the node's threads start; then read by them
#pragma once

#include <cstdint>
#include <vector>

#include <sys/stat.h>

namespace blobcache::chaos {

// Times that are told instead of the real ones, as long as the file has not been changed since.
struct HeldTimes {
  ino_t inode = 0;
  timespec real_ctime{};
  timespec mtime{};
  timespec ctime{};
};
extern std::vector<HeldTimes> held_times;

// The boot id that the program is told; 0: the machine's own.
void pretend_boot(uint64_t boot);

inline bool same_time(const timespec& a, const timespec& b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }
// Past what fstat() is made to say.
bool real_status(int fd, struct stat* out);

}  // namespace blobcache::chaos
