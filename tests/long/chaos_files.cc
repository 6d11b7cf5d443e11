#include "long/chaos_files.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace blobcache::chaos {

namespace fs = std::filesystem;

Fd::~Fd() {
  if (value >= 0) ::close(value);
}

namespace {

void list_below(const std::string& root, const std::string& folder, std::vector<std::string>* files) {
  const std::string path = folder.empty() ? root : root + "/" + folder;
  DIR* open_folder = opendir(path.c_str());
  if (open_folder == nullptr) return;
  while (const dirent* entry = readdir(open_folder)) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    const std::string below = folder.empty() ? std::string(name) : folder + "/" + entry->d_name;
    if (entry->d_type == DT_DIR) list_below(root, below, files);
    if (entry->d_type == DT_REG) files->push_back(below);
  }
  closedir(open_folder);
}

}  // namespace

std::vector<std::string> list_files(const std::string& root) {
  std::vector<std::string> files;
  list_below(root, "", &files);
  std::ranges::sort(files);
  return files;
}

bool file_exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

bool copy_file(const std::string& from, const std::string& to) {
  const Fd in(open(from.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status;
  if (in.value < 0 || fstat(in.value, &status) != 0) return false;
  const Fd out(open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (out.value < 0 || ftruncate(out.value, status.st_size) != 0) return false;
  std::vector<char> buffer(256 * 1024);
  off_t at = 0;
  while ((at = lseek(in.value, at, SEEK_DATA)) >= 0) {
    const off_t hole = std::min(lseek(in.value, at, SEEK_HOLE), status.st_size);
    while (at < hole) {
      const size_t wanted = std::min(buffer.size(), static_cast<size_t>(hole - at));
      const ssize_t count = pread(in.value, buffer.data(), wanted, at);
      if (count <= 0) return true;
      if (pwrite(out.value, buffer.data(), static_cast<size_t>(count), at) != count) return false;
      at += count;
    }
    if (at >= status.st_size) break;
  }
  return true;
}

bool copy_tree(const std::string& from, const std::string& to) {
  std::error_code error;
  fs::create_directories(to, error);
  std::string folder_made;
  for (const std::string& file : list_files(from)) {
    const std::string target = to + "/" + file;
    const std::string folder = target.substr(0, target.rfind('/'));
    if (folder != folder_made) fs::create_directories(folder, error);
    folder_made = folder;
    if (!copy_file(from + "/" + file, target) && file_exists(from + "/" + file)) return false;
  }
  fs::permissions(to, fs::perms::owner_all, error);
  for (fs::directory_iterator at(to, error), end; !error && at != end; at.increment(error)) {
    std::error_code ignored;
    if (at->is_directory(ignored)) fs::permissions(at->path(), fs::perms::owner_all, ignored);
  }
  return true;
}

void remove_tree(const std::string& root) {
  std::error_code ignored;
  fs::remove_all(root, ignored);
}

}  // namespace blobcache::chaos
