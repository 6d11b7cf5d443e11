// What the keeper looks for when nobody asks: objects whose time is over (cache.object_ttl), objects that never got a block,
// and files that the index does not know.
//
// Age is counted from the file's birth (statx, btime; where the filesystem has none, the last change): of an own-file object
// when its first block came, of a packed one when its segment was begun. No time is kept in the index, and a sweep costs a
// statx per object, some thousands a second.
//
// Unknown files are left by a crash between the file and its index record, by a disk that was removed from the cache and
// came back, and by an index that was lost. Looked for from the start on, a hundredth of a second in each tick: an ordinary
// cache is through with it before its second reader comes. Nothing here allocates once the vectors have grown.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "cache/disk_keeper.h"

namespace blobcache {

namespace {

constexpr uint64_t orphans_ns_per_tick = 10'000'000;
constexpr size_t names_bytes = 16 * limits::KiB;
constexpr uint64_t sweep_every_max_ns = 600 * DiskHealth::second_ns;
constexpr uint64_t sweep_every_min_ns = DiskHealth::second_ns / 5;

// Errors: false.
bool parse_hex(std::string_view text, uint64_t* value_out) {
  *value_out = 0;
  for (const char c : text) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && !(c >= 'a' && c <= 'f')) return false;
    *value_out = *value_out << 4 | static_cast<uint64_t>(digit ? c - '0' : c - 'a' + 10);
  }
  return !text.empty() && text.size() <= 16;
}

}  // namespace

bool DiskKeeper::is_expired(const std::string& path) const {
  const uint64_t ttl_ns = shared_.object_ttl_ns.load(std::memory_order_relaxed);
  if (ttl_ns == 0) return false;
  struct statx status;
  if (statx(unit_.directory.root_fd(), path.c_str(), AT_SYMLINK_NOFOLLOW, STATX_BTIME | STATX_MTIME, &status) != 0)
    return false;
  const statx_timestamp& birth = (status.stx_mask & STATX_BTIME) != 0 ? status.stx_btime : status.stx_mtime;
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  const int64_t age_ns = (now.tv_sec - birth.tv_sec) * int64_t{1'000'000'000} + now.tv_nsec - birth.tv_nsec;
  return age_ns > 0 && static_cast<uint64_t>(age_ns) > ttl_ns;
}

void DiskKeeper::sweep_expired_segments() {
  std::vector<DiskIndex::Record> records;
  index_.copy_segments(unit_.number, &records);
  std::vector<uint32_t> expired;
  for (const DiskIndex::Record& record : records) {
    thread_.begin_work();
    if (!is_active(record.position) && is_expired(disk_format::segment_path(record.position)))
      expired.push_back(record.position);
  }
  if (!expired.empty()) remove_segments(std::move(expired));
}

void DiskKeeper::sweep_object(const DiskEntry& entry) {
  DiskView view;
  if (entry.packed || entry.position != 0 || entry.pinned || !index_.find(entry.id, 0, &view)) return;
  const bool expired = is_expired(disk_format::object_path(entry.id));
  if (!expired && !view.empty) return;
  if (!expired) {  // somebody may be about to write its first block
    DiskFile* file = unit_.files.find(entry.id);
    const bool used = file != nullptr && file->references.load(std::memory_order_acquire) > 1;
    if (file != nullptr) unit_.files.release(*file);
    if (used) return;
  }
  std::ignore = remove_object(entry.id, view, 0);
}

void DiskKeeper::sweep(uint64_t now_ns) {
  if (!sweeping_) {
    const uint64_t ttl_ns = shared_.object_ttl_ns.load(std::memory_order_relaxed);
    if (now_ns < next_sweep_ns_ && ttl_ns == sweep_ttl_ns_) return;
    sweep_ttl_ns_ = ttl_ns;
    next_sweep_ns_ =
        now_ns + (ttl_ns == 0 ? sweep_every_max_ns : std::clamp(ttl_ns / 8, sweep_every_min_ns, sweep_every_max_ns));
    sweeping_ = true;
    sweep_cursor_ = {};
    if (ttl_ns != 0) sweep_expired_segments();
  }
  sweeping_ = index_.copy_entries(unit_.number, &sweep_cursor_, &swept_);
  for (const DiskEntry& entry : swept_) {
    thread_.begin_work();
    sweep_object(entry);
  }
}

// Names that are none of ours stay.
bool DiskKeeper::is_orphan(const char* file_name, bool in_segments) {
  std::string_view name = file_name;
  uint64_t words[2] = {0, 0};
  if (in_segments) {
    if (name.size() != 8 || !parse_hex(name, words)) return false;
    const auto number = static_cast<uint32_t>(words[0]);
    return !index_.has_segment(unit_.number, number);
  }
  if (name.ends_with(".sums")) name.remove_suffix(5);
  if (name.size() != 32 || !parse_hex(name.substr(0, 16), &words[0]) || !parse_hex(name.substr(16), &words[1]))
    return false;
  // Names are the id's bytes, in the order of memory.
  for (uint64_t& word : words) word = __builtin_bswap64(word);
  DiskView view;
  const bool known = index_.find({{words[0], words[1]}}, 0, &view);
  return !known || view.place.packed || view.place.disk != unit_.number;
}

void DiskKeeper::sweep_orphans() {
  const uint64_t until_ns = steady_now_ns() + orphans_ns_per_tick;
  do {
    if (orphan_folder_fd_ < 0) open_orphan_folder();
    if (orphan_folder_fd_ >= 0) sweep_names();
  } while (orphans_left() && steady_now_ns() < until_ns);
}

// Folders that cannot be opened hold nothing that is known of: they are passed over.
void DiskKeeper::open_orphan_folder() {
  for (; orphan_folder_ <= disk_format::fan_out && orphan_folder_fd_ < 0; ++orphan_folder_) {
    char path[16] = "segments";
    if (orphan_folder_ < disk_format::fan_out) std::snprintf(path, sizeof path, "objects/%02x", orphan_folder_);
    orphan_folder_fd_ = openat(unit_.directory.root_fd(), path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  }
}

// As many names as fit: a folder of a million does not hold the keeper's jobs up. Removing what was read does not move what
// is read next.
void DiskKeeper::sweep_names() {
  alignas(dirent64) char names[names_bytes];
  thread_.begin_work();
  const ssize_t bytes = getdents64(orphan_folder_fd_, names, sizeof names);
  const bool in_segments = orphan_folder_ > disk_format::fan_out;  // of the folder that is open
  for (ssize_t at = 0; at < bytes;) {
    const auto* entry = reinterpret_cast<const dirent64*>(names + at);
    at += entry->d_reclen;
    thread_.begin_work();
    if (is_orphan(entry->d_name, in_segments) && unlinkat(orphan_folder_fd_, entry->d_name, 0) == 0) ++orphans_removed_;
  }
  if (bytes > 0) return;
  ::close(std::exchange(orphan_folder_fd_, -1));
  if (!orphans_left() && orphans_removed_ > 0)
    BC_LOG(info, "{}: {} files that the index does not know removed", unit_.directory.path(), orphans_removed_);
}

}  // namespace blobcache
