// Files of a cache directory: listed, copied, removed, also while somebody writes them.
//   Thread    any; blocks
#pragma once

#include <string>
#include <vector>

namespace blobcache::chaos {

// A descriptor that closes itself.
struct Fd {
  explicit Fd(int fd) : value(fd) {}
  ~Fd();
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int value;
};

// Paths below root of all regular files, in the order of their names.
std::vector<std::string> list_files(const std::string& root);
bool file_exists(const std::string& path);
// The bytes, holes left as holes; of a file that changes meanwhile some of each. False: it is not there, or no space.
bool copy_file(const std::string& from, const std::string& to);
// What vanishes meanwhile is not in the copy. False: no space.
bool copy_tree(const std::string& from, const std::string& to);
void remove_tree(const std::string& root);

}  // namespace blobcache::chaos
