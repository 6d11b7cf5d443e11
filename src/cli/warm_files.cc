#include "cli/warm_files.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>

#include <fts.h>
#include <sys/stat.h>

#include "cli/cached_file.h"

namespace blobcache::cli {

void WarmFiles::add(const std::string& path) {
  struct stat status{};
  if (stat(path.c_str(), &status) != 0) {
    failures_.push_back({path, std::strerror(errno)});
    return;
  }
  if (!mount_of(path)) {
    failures_.push_back({path, "it is not on a blobcache mount; give a path below a mount point"});
    return;
  }
  std::string argument = path;
  char* const roots[] = {argument.data(), nullptr};
  FTS* tree = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR | FTS_XDEV, nullptr);
  if (tree == nullptr) {
    failures_.push_back({path, std::strerror(errno)});
    return;
  }
  errno = 0;
  while (const FTSENT* entry = fts_read(tree)) {
    if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR || entry->fts_info == FTS_NS) {
      failures_.push_back({entry->fts_path, std::strerror(entry->fts_errno)});
    }
    if (entry->fts_info != FTS_F || !S_ISREG(entry->fts_statp->st_mode)) continue;
    if (!seen_.emplace(entry->fts_statp->st_dev, entry->fts_statp->st_ino).second) continue;
    const auto bytes = static_cast<uint64_t>(entry->fts_statp->st_size);
    files_.push_back({entry->fts_path, bytes});
    bytes_ += bytes;
  }
  if (errno != 0) failures_.push_back({path, std::strerror(errno)});
  fts_close(tree);
}

int WarmFiles::add_list(const std::string& list_path) {
  std::ifstream file;
  if (list_path != "-") {
    errno = 0;
    file.open(list_path);
    if (!file) return errno != 0 ? errno : EIO;
  }
  std::istream& lines = list_path == "-" ? std::cin : file;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty()) add(line);
  }
  return lines.bad() ? EIO : 0;
}

}  // namespace blobcache::cli
