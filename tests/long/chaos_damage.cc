#include "long/chaos_damage.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>
#include <string_view>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "long/chaos_files.h"
#include "long/chaos_machine.h"

namespace blobcache::chaos {

namespace {

constexpr uint64_t sector_bytes = 512;
constexpr unsigned kinds = 4;  // of files: data, sidecars, segments, index

// -1: none that is damaged here (FORMAT is refused by name when it is; its tests are elsewhere).
int kind_of(std::string_view file) {
  if (file.starts_with("objects/")) return file.ends_with(".sums") ? 1 : 0;
  if (file.starts_with("segments/")) return 2;
  return file.starts_with("index/") ? 3 : -1;
}

class Damage {
 public:
  Damage(const DamageOptions& options, Random& random) : options_(options), random_(random) { list(); }

  // False: there was nothing to do it to.
  bool once(unsigned kinds_taken) {
    const std::string file = pick(kinds_taken);
    if (file.empty()) return false;
    const unsigned choice = static_cast<unsigned>(random_.below(100));
    if (choice < 22) return flip(file);
    if (choice < 38) return tear(file);
    if (choice < 52) return misdirect(file);
    if (choice < 64) return lose_pages(file);
    if (choice < 74) return cut(file);
    if (choice < 80) return lose_file(file);
    if (choice < 84) return remove(file);
    if (choice < 89) return bring_back() && list();
    if (choice < 95) return swap(file);
    return (choice < 98 ? rename_index() : lose_index()) && list();
  }
  bool once_running() {
    const std::string file = pick(3);
    if (file.empty()) return false;
    const unsigned choice = static_cast<unsigned>(random_.below(10));
    if (choice < 4) return flip(file);
    if (choice < 6) return tear(file);
    return choice < 9 ? misdirect(file) : cut(file);
  }
  const std::set<std::string>& touched() const { return touched_; }

 private:
  bool list() {
    for (std::vector<std::string>& files : files_) files.clear();
    for (const std::string& file : list_files(options_.root)) {
      if (const int kind = kind_of(file); kind >= 0) files_[kind].push_back(file);
    }
    return true;
  }
  std::string path(const std::string& file) const { return options_.root + "/" + file; }
  std::string older(const std::string& file) const { return options_.older + "/" + file; }
  bool has_older(const std::string& file) const { return !options_.older.empty() && file_exists(older(file)); }

  std::string pick(unsigned kinds_taken) {
    for (unsigned attempt = 0; attempt < 8; ++attempt) {
      const std::vector<std::string>& files = files_[random_.below(kinds_taken)];
      if (!files.empty()) return files[random_.below(files.size())];
    }
    return {};
  }
  uint64_t size_of(int fd) const {
    struct stat status;
    return fd >= 0 && real_status(fd, &status) ? static_cast<uint64_t>(status.st_size) : 0;
  }
  // Where there are bytes: a hole is no place to be wrong at.
  uint64_t pick_place(int fd, uint64_t size) {
    const auto any = static_cast<off_t>(random_.below(size));
    const off_t at = lseek(fd, any, SEEK_DATA);
    return at >= 0 && static_cast<uint64_t>(at) < size ? static_cast<uint64_t>(at) : static_cast<uint64_t>(any);
  }
  static void put(int fd, const std::vector<char>& bytes, uint64_t at) {
    BC_ASSERT(pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(at)) == static_cast<ssize_t>(bytes.size()));
  }
  // Less at the end of the file.
  static std::vector<char> take(int fd, uint64_t bytes, uint64_t at) {
    std::vector<char> taken(bytes);
    const ssize_t count = pread(fd, taken.data(), bytes, static_cast<off_t>(at));
    taken.resize(count < 0 ? 0 : static_cast<size_t>(count));
    return taken;
  }

  bool flip(const std::string& file) {
    const Fd fd(::open(path(file).c_str(), O_RDWR | O_CLOEXEC));
    const uint64_t size = size_of(fd.value);
    if (size == 0) return false;
    const uint64_t at = pick_place(fd.value, size);
    std::vector<char> byte = take(fd.value, 1, at);
    if (byte.empty()) return false;
    byte[0] = static_cast<char>(byte[0] ^ static_cast<char>(random_.between(1, 255)));
    put(fd.value, byte, at);
    touched_.insert(file);
    return true;
  }

  bool tear(const std::string& file) {
    const Fd fd(::open(path(file).c_str(), O_RDWR | O_CLOEXEC));
    const uint64_t size = size_of(fd.value);
    if (size == 0) return false;
    const uint64_t at = pick_place(fd.value, size) / sector_bytes * sector_bytes;
    const uint64_t bytes = std::min((uint64_t{1} << random_.below(8)) * sector_bytes, size - at);
    std::vector<char> other(bytes, 0);
    const uint64_t what = random_.below(3);
    if (what == 1 && has_older(file)) {
      const Fd from(::open(older(file).c_str(), O_RDONLY | O_CLOEXEC));
      other = take(from.value, bytes, at);
      other.resize(bytes, 0);
    } else if (what == 2) {
      for (char& byte : other) byte = static_cast<char>(random_.next());
    }
    put(fd.value, other, at);
    touched_.insert(file);
    return true;
  }

  bool misdirect(const std::string& file) {
    const std::string target = random_.chance(50) ? file : pick(kinds - 1);
    if (target.empty()) return false;
    const Fd from(::open(path(file).c_str(), O_RDONLY | O_CLOEXEC));
    const Fd to(::open(path(target).c_str(), O_RDWR | O_CLOEXEC));
    const uint64_t from_size = size_of(from.value);
    const uint64_t to_size = size_of(to.value);
    if (from_size == 0 || to_size == 0) return false;
    const uint64_t unit = random_.chance(50) ? limits::page_bytes : limits::block_bytes;
    const uint64_t at = pick_place(from.value, from_size) / unit * unit;
    const uint64_t target_at = pick_place(to.value, to_size) / unit * unit;
    std::vector<char> bytes = take(from.value, unit, at);
    bytes.resize(std::min<uint64_t>(bytes.size(), to_size - target_at));
    put(to.value, bytes, target_at);
    touched_.insert(target);
    return true;
  }

  bool lose_pages(const std::string& file) {
    const Fd fd(::open(path(file).c_str(), O_RDWR | O_CLOEXEC));
    const uint64_t size = size_of(fd.value);
    if (size == 0 || options_.older.empty()) return false;
    const Fd from(::open(older(file).c_str(), O_RDONLY | O_CLOEXEC));
    const uint64_t pages = (size + limits::page_bytes - 1) / limits::page_bytes;
    for (uint64_t i = random_.between(1, 4); i > 0; --i) {
      const uint64_t at = random_.below(pages) * limits::page_bytes;
      const uint64_t bytes = std::min(random_.between(1, 16) * limits::page_bytes, size - at);
      std::vector<char> before;
      if (from.value >= 0) before = take(from.value, bytes, at);
      before.resize(bytes, 0);
      put(fd.value, before, at);
    }
    touched_.insert(file);
    return true;
  }

  bool cut(const std::string& file) {
    const Fd fd(::open(path(file).c_str(), O_RDWR | O_CLOEXEC));
    const uint64_t size = size_of(fd.value);
    if (size == 0) return false;
    const bool longer = random_.chance(20);
    const uint64_t unit = random_.chance(50) ? 1 : random_.chance(50) ? limits::page_bytes : limits::block_bytes;
    uint64_t end = longer ? size + random_.between(1, 4) * 1000 : random_.below(size) / unit * unit;
    if (!longer && random_.chance(20)) end = disk_format::round_up_to_page(size);
    BC_ASSERT(ftruncate(fd.value, static_cast<off_t>(end)) == 0);
    touched_.insert(file);
    // Long again, as a file is that lost its last pages in a crash.
    if (!longer && random_.chance(30)) BC_ASSERT(ftruncate(fd.value, static_cast<off_t>(size)) == 0);
    return true;
  }

  // Its older content, in the same file or in another one of the same name.
  bool lose_file(const std::string& file) {
    if (!has_older(file)) return false;
    if (random_.chance(50)) return put_back(file);
    const Fd from(::open(older(file).c_str(), O_RDONLY | O_CLOEXEC));
    const Fd to(::open(path(file).c_str(), O_RDWR | O_CLOEXEC));
    const uint64_t size = size_of(from.value);
    if (to.value < 0) return false;
    touched_.insert(file);
    constexpr uint64_t piece = 256 * KiB;
    for (uint64_t at = 0; at < size; at += piece) put(to.value, take(from.value, std::min(piece, size - at), at), at);
    return ftruncate(to.value, static_cast<off_t>(size)) == 0;
  }
  bool put_back(const std::string& file) {
    const std::string beside = options_.root + "/index/chaos.new";
    const bool copied = copy_file(older(file), beside);
    return copied && ::rename(beside.c_str(), path(file).c_str()) == 0;
  }
  bool remove(const std::string& file) { return unlink(path(file).c_str()) == 0; }
  bool bring_back() {
    if (options_.older.empty()) return false;
    bool some = false;
    for (const std::string& file : list_files(options_.older)) {
      if (kind_of(file) < 0 || file_exists(path(file)) || random_.chance(30)) continue;
      some = put_back(file) || some;
    }
    return some;
  }

  bool exchange(const std::string& a, const std::string& b) {
    return renameat2(AT_FDCWD, path(a).c_str(), AT_FDCWD, path(b).c_str(), RENAME_EXCHANGE) == 0;
  }
  bool swap(const std::string& file) {
    const int kind = kind_of(file);
    const std::vector<std::string>& others = files_[kind];
    const std::string other = others[random_.below(others.size())];
    if (other == file || !exchange(file, other)) return false;
    // Each with its checksums, half of the time: then only what these say of themselves tells.
    if (kind == 0 && random_.chance(50)) return exchange(file + ".sums", other + ".sums");
    return true;
  }
  bool rename_index() {
    if (files_[3].empty()) return false;
    const std::string file = files_[3][random_.below(files_[3].size())];
    const std::string stem = file.substr(0, file.rfind('.'));
    char generation[32];
    std::snprintf(generation, sizeof generation, ".%016llx", static_cast<unsigned long long>(random_.between(1, 6)));
    const std::string name = (random_.chance(80) ? stem : std::string("index/log")) + generation;
    return name != file && copy_file(path(file), path(name));
  }
  bool lose_index() {
    if (options_.older.empty()) return false;
    for (const std::string& file : files_[3]) unlink(path(file).c_str());
    for (const std::string& file : list_files(options_.older)) {
      if (kind_of(file) == 3) put_back(file);
    }
    return true;
  }

  const DamageOptions options_;
  Random& random_;
  std::vector<std::string> files_[kinds];
  std::set<std::string> touched_;  // whose bytes were changed in place
};

struct Times {
  timespec real_ctime;
  timespec mtime;  // as fstat() tells them
  timespec ctime;
};
std::map<ino_t, Times> times_below(const std::string& root) {
  std::map<ino_t, Times> times;
  for (const std::string& file : list_files(root)) {
    const Fd fd(::open((root + "/" + file).c_str(), O_RDONLY | O_CLOEXEC));
    struct stat real;
    struct stat told;
    if (fd.value < 0 || !real_status(fd.value, &real) || fstat(fd.value, &told) != 0) continue;
    times[real.st_ino] = {.real_ctime = real.st_ctim, .mtime = told.st_mtim, .ctime = told.st_ctim};
  }
  return times;
}

// What somebody wrote to has newer times: a file system whose clock ticks slowly is given the time to tick.
void show_changes(const std::string& path, const std::map<ino_t, Times>& before) {
  struct stat status;
  while (stat(path.c_str(), &status) == 0) {
    const auto found = before.find(status.st_ino);
    if (found == before.end() || !same_time(found->second.real_ctime, status.st_ctim)) return;
    const timespec now[2] = {{.tv_sec = 0, .tv_nsec = UTIME_OMIT}, {.tv_sec = 0, .tv_nsec = UTIME_NOW}};
    if (utimensat(AT_FDCWD, path.c_str(), now, 0) != 0) return;
  }
}

void hold_times(const std::string& root, const std::map<ino_t, Times>& before) {
  for (const auto& [inode, now] : times_below(root)) {
    const auto found = before.find(inode);
    if (found == before.end() || same_time(found->second.real_ctime, now.real_ctime)) continue;
    held_times.push_back(
        {.inode = inode, .real_ctime = now.real_ctime, .mtime = found->second.mtime, .ctime = found->second.ctime});
  }
}

}  // namespace

unsigned damage(const DamageOptions& options, Random& random) {
  const std::map<ino_t, Times> before = times_below(options.root);
  Damage damage(options, random);
  unsigned count = 0;
  for (uint64_t left = random.between(1, random.chance(20) ? 30 : 5); left > 0; --left) count += damage.once(kinds);
  if (options.silent)
    hold_times(options.root, before);
  else
    for (const std::string& file : damage.touched()) show_changes(options.root + "/" + file, before);
  return count;
}

void damage_running(const std::string& root, Random& random) {
  Damage damage({.root = root}, random);
  damage.once_running();
}

}  // namespace blobcache::chaos
