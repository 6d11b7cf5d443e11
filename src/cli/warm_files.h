// WarmFiles: which files a `warm` is about.
//   Thread    main
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace blobcache::cli {

struct WarmFile {
  std::string path;
  uint64_t bytes = 0;
};

// What could not be done, and why: one line each, and a field of --json.
struct WarmFailure {
  std::string path;
  std::string cause;
};

// Adds the regular files at and below each path. Links inside a tree are not followed (what they lead to in the tree is met
// by its own name), hard links to one file count once. What cannot be looked at is a failure; the rest goes on.
class WarmFiles {
 public:
  void add(const std::string& path);
  // One path a line, empty lines left out; "-" is standard input. 0 or an errno: the list cannot be read.
  int add_list(const std::string& list_path);

  const std::vector<WarmFile>& files() const { return files_; }
  uint64_t bytes() const { return bytes_; }
  const std::vector<WarmFailure>& failures() const { return failures_; }

 private:
  std::vector<WarmFile> files_;
  std::set<std::pair<uint64_t, uint64_t>> seen_;  // device, inode
  std::vector<WarmFailure> failures_;
  uint64_t bytes_ = 0;
};

}  // namespace blobcache::cli
