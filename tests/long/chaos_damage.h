// What disks, file systems and people do to a cache directory.
//
//   flipped     one to eight bits of a file
//   torn        from some 512-byte sector on, a write is missing: what was there before, or zeros, or another file's bytes
//   misdirected a page or a block lies at another place, of the same file or another one
//   lost        a file, or pages of it, or all of the index, is as it was some time ago
//   cut         a file ends at any byte; or goes on behind its end
//   gone, back  a file is not there; one that was removed is there again
//   swapped     two files have each other's names; a sidecar is another object's or an older one
//   renamed     an index file pretends to be of another generation
//
// silent: the disk did it, so the files' times are those of before. Only a machine that was down can have missed it, so the
// next start is in another boot. Otherwise somebody wrote to the files, and their times say so.
//   Thread    one; nobody else writes to the directory, but for damage_running()
#pragma once

#include <string>

#include "long/chaos_world.h"

namespace blobcache::chaos {

struct DamageOptions {
  std::string root;   // of one disk
  std::string older;  // the same some time ago; empty: not known
  bool silent = false;
};
// How many times. Adds to held_times.
unsigned damage(const DamageOptions& options, Random& random);

// Once, to bytes of objects, sidecars or segments, while the node runs: with cache.verify = "always" it must notice.
void damage_running(const std::string& root, Random& random);

}  // namespace blobcache::chaos
