// What is on the disks is what counts: a start reads the seal of every blob (two pages, some 20,000 a second from a cold NVMe
// disk), and there is no index file that could disagree with them. Bytes are looked at when they are read.
//
// One name, one hand: publishing, sealing again, removing and setting aside hold the blob's name (NameLock), so that equal
// uploads do not both write out, and a blob is never removed between two steps of its publication. The table's own lock is
// held for moments, never across a system call that may wait for a disk.
//
// The order of a publication: data, checksums, seal; fsync; rename; fsync of the folder; the table; the answer. A crash before
// the rename leaves a staged file, which the next start removes; one behind it a whole blob that nobody was told of.
#include "cache/blob_store.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"
#include "cache/blob_reader.h"
#include "cache/blob_writer.h"
#include "cache/disk_log.h"
#include "ring/errno.h"

namespace blobcache {
namespace {

using Guard = std::lock_guard<std::mutex>;

constexpr const char* blobs_folder = "blobs";
constexpr std::string_view no_seal = "neither of its seals is valid";

std::unexpected<Error> refuse(std::string* message_out, const std::string& path, std::string_view what) {
  const Error error = error_from_errno(errno);
  *message_out = fmt::format("the content store cannot {} in {}: {}; repair the disk or choose another", what, path,
                             std::strerror(error.os_errno));
  return std::unexpected(error);
}

std::string fan_out_name(unsigned i) { return fmt::format("{:02x}", i); }

// Calls use(name) for each file of a folder. False: errno.
template <class Use>
bool for_each_file(int folder_fd, const char* name, Use&& use) {
  const int fd = openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return false;
  DIR* folder = fdopendir(fd);
  if (folder == nullptr) {
    ::close(fd);
    return false;
  }
  errno = 0;
  while (const dirent* entry = readdir(folder)) {
    if (entry->d_name[0] != '.') use(entry->d_name);
    errno = 0;
  }
  const int os_errno = errno;
  closedir(folder);
  errno = os_errno;
  return os_errno == 0;
}

uint64_t bytes_of_file(int folder_fd, const std::string& name) {
  struct stat status;
  if (fstatat(folder_fd, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return 0;
  return static_cast<uint64_t>(status.st_size);
}

std::string aside_path(const BlobId& id) { return fmt::format("{}/{}", blob_format::aside_folder, to_hex(id)); }

}  // namespace

// Holds a blob's name. Not to be held twice.
class BlobStore::NameLock {
 public:
  NameLock(BlobStore& store, const BlobId& id) : store_(store), id_(id) {
    std::unique_lock lock(store_.lock_);
    store_.name_free_.wait(lock, [&] { return store_.named_.insert(id_).second; });
  }
  ~NameLock() {
    {
      const Guard guard(store_.lock_);
      store_.named_.erase(id_);
    }
    store_.name_free_.notify_all();
  }
  NameLock(const NameLock&) = delete;
  NameLock& operator=(const NameLock&) = delete;

 private:
  BlobStore& store_;
  const BlobId id_;
};

BlobStore::BlobStore() = default;
BlobStore::~BlobStore() { BC_ASSERT(uploads_ == 0); }

Result<void> BlobStore::open(Options options, std::string* message_out) {
  options_ = std::move(options);
  changed_s_ = options_.now_s();
  for (const Disk& disk : options_.disks) {
    if (const Result<void> opened = open_disk(disk, message_out); !opened) {
      disks_.clear();
      return opened;
    }
  }
  return {};
}

Result<void> BlobStore::open_disk(const Disk& disk, std::string* message_out) {
  const std::string path = disk.path + "/" + blobs_folder;
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return refuse(message_out, disk.path, "make blobs/");
  auto state = std::make_unique<DiskState>();
  state->limit_bytes = disk.limit_bytes;
  state->blobs_fd = FileFd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  const int fd = state->blobs_fd.get();
  if (fd < 0) return refuse(message_out, path, "open the folder");
  for (const char* name : {blob_format::staging_folder, blob_format::aside_folder}) {
    if (mkdirat(fd, name, 0700) != 0 && errno != EEXIST) return refuse(message_out, path, "make folders");
  }
  const FileFd root(::open(disk.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fsync(fd) != 0 || fsync(root.get()) != 0) return refuse(message_out, path, "sync the folder");

  const auto unlink_staged = [&](const char* name) {
    unlinkat(fd, fmt::format("{}/{}", blob_format::staging_folder, name).c_str(), 0);
  };
  const auto count_aside = [&](const char* name) {
    state->used_bytes += bytes_of_file(fd, fmt::format("{}/{}", blob_format::aside_folder, name));
  };
  if (!for_each_file(fd, blob_format::staging_folder, unlink_staged) ||
      !for_each_file(fd, blob_format::aside_folder, count_aside)) {
    return refuse(message_out, path, "list the folders");
  }
  disks_.push_back(std::move(state));
  for (unsigned i = 0; i < disk_format::fan_out; ++i) {
    const auto number = static_cast<unsigned>(disks_.size() - 1);
    if (const Result<void> scanned = scan_folder(number, fan_out_name(i), message_out); !scanned) return scanned;
  }
  return {};
}

Result<void> BlobStore::scan_folder(unsigned disk, const std::string& folder, std::string* message_out) {
  const bool listed = for_each_file(disks_[disk]->blobs_fd.get(), folder.c_str(), [&](const char* name) {
    const std::optional<BlobId> id = parse_blob_id(name);
    if (id && to_hex(*id) == name && folder == to_hex(*id).substr(0, 2)) return scan_blob(disk, *id);
    BC_LOG(warn, "content store: {}/blobs/{}/{} is no blob; it is left alone", options_.disks[disk].path, folder, name);
  });
  if (!listed && errno != ENOENT) return refuse(message_out, options_.disks[disk].path, "list blobs/");
  if (blobs_.size() <= options_.blobs_max) return {};
  *message_out = fmt::format(
      "the content store has more than {} blobs, which is what its memory has room for: raise "
      "memory.limit",
      options_.blobs_max);
  return fail(Code::full);
}

void BlobStore::scan_blob(unsigned disk, const BlobId& id) {
  DiskState& state = *disks_[disk];
  const std::string path = blob_format::blob_path(id);
  const FileFd fd(openat(state.blobs_fd.get(), path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  const Result<CurrentSeal> current = fd.get() < 0 ? std::unexpected(error_from_errno(errno)) : read_seal(fd.get(), id);
  state.used_bytes += bytes_of_file(state.blobs_fd.get(), path);
  if (!current && current.error().code == Code::corrupt) {
    return set_aside(id, disk, fd.get(), no_seal);
  }
  if (!current) {
    BC_LOG(error, "content store: blob {} cannot be read: {}", to_hex(id), std::strerror(current.error().os_errno));
    return;
  }
  if (blobs_.contains(id)) {
    BC_LOG(warn, "content store: blob {} lies on two disks; {} is not used", to_hex(id), options_.disks[disk].path);
    return;
  }
  const blob_format::Seal& seal = current->seal;
  insert(id, {.bytes = seal.bytes,
              .stored_s = seal.stored_s,
              .expires_s = seal.expires_s,
              .disk = disk,
              .pinned = (seal.flags & blob_format::flag_pinned) != 0});
}

void BlobStore::stop() {
  const Guard guard(lock_);
  stopping_ = true;
}

bool BlobStore::stopping() const {
  const Guard guard(lock_);
  return stopping_;
}

// ---- the table ----

BlobInfo BlobStore::info_of(const BlobId& id, const Entry& entry) {
  return {
      .id = id, .bytes = entry.bytes, .stored_s = entry.stored_s, .expires_s = entry.expires_s, .pinned = entry.pinned};
}

bool BlobStore::is_over(const Entry& entry) const {
  return !entry.pinned && entry.expires_s != 0 && entry.expires_s <= options_.now_s();
}

// What has expired and was not removed yet is not there.
const BlobStore::Entry* BlobStore::live(const BlobId& id) const {
  const auto found = blobs_.find(id);
  return found == blobs_.end() || is_over(found->second) ? nullptr : &found->second;
}

void BlobStore::insert(const BlobId& id, const Entry& entry) {
  erase(id);
  blobs_.emplace(id, entry);
  ++changes_;
  changed_s_ = options_.now_s();
  if (entry.expires_s != 0 && !entry.pinned) expiries_.emplace(entry.expires_s, id);
}

void BlobStore::erase(const BlobId& id) {
  const auto found = blobs_.find(id);
  if (found == blobs_.end()) return;
  expiries_.erase({found->second.expires_s, id});
  blobs_.erase(found);
  ++changes_;
  changed_s_ = options_.now_s();
}

std::optional<BlobInfo> BlobStore::find(const BlobId& id) const {
  const Guard guard(lock_);
  const Entry* entry = live(id);
  if (entry == nullptr) return std::nullopt;
  return info_of(id, *entry);
}

std::vector<BlobInfo> BlobStore::list(const std::optional<BlobId>& after, size_t count_max) const {
  std::vector<BlobInfo> infos;
  const Guard guard(lock_);
  auto at = after ? blobs_.upper_bound(*after) : blobs_.begin();
  for (; at != blobs_.end() && infos.size() < count_max; ++at) {
    if (!is_over(at->second)) infos.push_back(info_of(at->first, at->second));
  }
  return infos;
}

BlobStore::Facts BlobStore::facts() const {
  const Guard guard(lock_);
  Facts facts{.blobs = blobs_.size(),
              .blobs_max = options_.blobs_max,
              .puts = puts_,
              .opened = opened_,
              .expired = expired_,
              .set_aside = set_aside_,
              .changes = changes_,
              .changed_s = changed_s_,
              .uploads = uploads_,
              .uploads_max = options_.uploads_max};
  for (const std::unique_ptr<DiskState>& disk : disks_) {
    facts.limit_bytes += disk->limit_bytes;
    facts.used_bytes += disk->used_bytes;
    facts.reserved_bytes += disk->reserved_bytes;
  }
  return facts;
}

int64_t BlobStore::expires_at(const BlobLife& life) const {
  return life.ttl_s == 0 ? 0 : options_.now_s() + life.ttl_s;
}

// ---- put ----

bool BlobStore::try_reserve(unsigned disk, uint64_t bytes) {
  const Guard guard(lock_);
  DiskState& state = *disks_[disk];
  const uint64_t taken = state.used_bytes + state.reserved_bytes;
  if (taken > state.limit_bytes || bytes > state.limit_bytes - taken) return false;
  state.reserved_bytes += bytes;
  return true;
}

void BlobStore::end_upload(unsigned disk, uint64_t reserved_bytes) {
  const Guard guard(lock_);
  BC_ASSERT(uploads_ > 0 && disks_[disk]->reserved_bytes >= reserved_bytes);
  disks_[disk]->reserved_bytes -= reserved_bytes;
  --uploads_;
}

void BlobStore::count_put(PutOutcome outcome) {
  const Guard guard(lock_);
  ++puts_[static_cast<unsigned>(outcome)];
}

Result<std::unique_ptr<BlobWriter>> BlobStore::begin_put(const Put& put) {
  Result<std::unique_ptr<BlobWriter>> writer = try_begin_put(put);
  if (!writer && writer.error().os_errno == 0 && writer.error().code != Code::stopping) count_put(PutOutcome::refused);
  return writer;
}

// A failure of the writer's own it counts itself; those have an errno.
Result<std::unique_ptr<BlobWriter>> BlobStore::try_begin_put(const Put& put) {
  if (put.bytes.value_or(0) > blob_format::blob_bytes_max) return fail(Code::full);
  // Of an unknown size: the seal's room at least.
  const uint64_t wanted = blob_format::file_bytes(put.bytes.value_or(0));
  unsigned best = 0;
  {
    const Guard guard(lock_);
    if (stopping_ || disks_.empty()) return fail(Code::stopping);
    if (uploads_ >= options_.uploads_max) return fail(Code::again);
    if (blobs_.size() >= options_.blobs_max) return fail(Code::full);
    const auto room = [](const DiskState& disk) {
      const uint64_t taken = disk.used_bytes + disk.reserved_bytes;
      return disk.limit_bytes - std::min(disk.limit_bytes, taken);
    };
    for (unsigned i = 1; i < disks_.size(); ++i) {
      if (room(*disks_[i]) > room(*disks_[best])) best = i;
    }
    if (room(*disks_[best]) < wanted) return fail(Code::full);
    disks_[best]->reserved_bytes += wanted;
    ++uploads_;
  }
  std::unique_ptr<BlobWriter> writer(new BlobWriter(*this, best, put, wanted));
  if (const Result<void> created = writer->create(); !created) return std::unexpected(created.error());
  return writer;
}

Result<BlobStore::Published> BlobStore::publish(BlobWriter& writer, const BlobId& id) {
  const NameLock name(*this, id);
  std::optional<Entry> expired;
  {
    const Guard guard(lock_);
    if (const auto found = blobs_.find(id); found != blobs_.end() && is_over(found->second)) expired = found->second;
  }
  if (expired) {
    if (const Result<void> removed = remove_named(id, *expired); !removed) return std::unexpected(removed.error());
    const Guard guard(lock_);
    ++expired_;
  }
  const Result<BlobInfo> known = extend_named(id, writer.put_.life);
  if (known) return Published{.info = *known, .known = true};
  // A damaged one has been set aside: this one takes its place.
  if (known.error().code != Code::not_found && known.error().code != Code::corrupt) {
    return std::unexpected(known.error());
  }
  const Entry entry{.bytes = writer.bytes_,
                    .stored_s = options_.now_s(),
                    .expires_s = expires_at(writer.put_.life),
                    .disk = writer.disk_,
                    .pinned = writer.put_.life.pinned};
  if (const Result<void> sealed = writer.seal(id, entry.stored_s, entry.expires_s); !sealed) {
    return std::unexpected(sealed.error());
  }
  DiskState& disk = *disks_[writer.disk_];
  const int folder = disk.blobs_fd.get();
  const std::string path = blob_format::blob_path(id);
  // The first of its folder makes it.
  if (mkdirat(folder, path.substr(0, path.find('/')).c_str(), 0700) == 0) {
    if (fsync(folder) != 0) return std::unexpected(error_from_errno(errno));
  } else if (errno != EEXIST) {
    return std::unexpected(error_from_errno(errno));
  }
  if (renameat(folder, writer.staged_name_.c_str(), folder, path.c_str()) != 0) {
    return std::unexpected(error_from_errno(errno));
  }
  writer.staged_name_.clear();
  // What is not published after all goes while the name is ours: the next upload of these bytes takes the same.
  const auto give_up = [&](Error why) {
    unlinkat(folder, path.c_str(), 0);
    return std::unexpected(why);
  };
  if (!sync_folder(writer.disk_, id)) return give_up(error_from_errno(errno));
  bool has_place = false;
  {
    const Guard guard(lock_);
    has_place = blobs_.size() < options_.blobs_max;
    if (has_place) {
      insert(id, entry);
      const uint64_t bytes = blob_format::file_bytes(entry.bytes);
      disk.used_bytes += bytes;
      disk.reserved_bytes -= bytes;
      writer.reserved_bytes_ -= bytes;
    }
  }
  if (!has_place) return give_up({Code::full});
  for (unsigned i = 0; i < disks_.size(); ++i) drop_aside(i, id);
  return Published{.info = info_of(id, entry), .known = false};
}

bool BlobStore::sync_folder(unsigned disk, const BlobId& id) const {
  const FileFd fd(openat(disks_[disk]->blobs_fd.get(), to_hex(id).substr(0, 2).c_str(),
                         O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  return fd.get() >= 0 && fsync(fd.get()) == 0;
}

// ---- life ----

Result<BlobInfo> BlobStore::extend(const BlobId& id, const BlobLife& life) {
  const NameLock name(*this, id);
  Result<BlobInfo> known = extend_named(id, life);
  if (known) count_put(PutOutcome::known);
  return known;
}

// The longer of what it has and what is asked for. Written into the slot that does not count, so that a torn write leaves the
// seal that did.
Result<BlobInfo> BlobStore::extend_named(const BlobId& id, const BlobLife& life) {
  Entry entry;
  {
    const Guard guard(lock_);
    const Entry* known = live(id);
    if (known == nullptr) return fail(Code::not_found);
    entry = *known;
  }
  const int64_t expires_s = expires_at(life);
  const Entry before = entry;
  entry.pinned |= life.pinned;
  entry.expires_s = expires_s == 0 || entry.expires_s == 0 ? 0 : std::max(entry.expires_s, expires_s);
  if (entry.pinned == before.pinned && entry.expires_s == before.expires_s) return info_of(id, entry);
  const FileFd fd(open_direct(disks_[entry.disk]->blobs_fd.get(), blob_format::blob_path(id).c_str(), O_RDWR));
  if (fd.get() < 0) return std::unexpected(error_from_errno(errno));
  const Result<CurrentSeal> current = read_seal(fd.get(), id);
  if (!current && current.error().code == Code::corrupt) set_aside_named(id, entry.disk, fd.get(), no_seal);
  if (!current) return std::unexpected(current.error());
  blob_format::Seal seal = current->seal;
  seal.expires_s = entry.expires_s;
  seal.flags = entry.pinned ? blob_format::flag_pinned : 0;
  ++seal.generation;
  const unsigned slot = 1 - current->slot;
  blob_format::seal(seal, slot);
  PageBuffer page(sizeof seal);
  std::memcpy(page.data(), &seal, sizeof seal);
  const uint64_t offset = blob_format::seals_offset(seal.bytes) + slot * sizeof seal;
  if (const Result<void> written = write_all(fd.get(), page.bytes(), offset); !written) {
    return std::unexpected(written.error());
  }
  if (fdatasync(fd.get()) != 0) return std::unexpected(error_from_errno(errno));
  const Guard guard(lock_);
  insert(id, entry);
  return info_of(id, entry);
}

Result<void> BlobStore::remove(const BlobId& id, bool pinned_too) {
  const NameLock name(*this, id);
  std::optional<Entry> entry;
  {
    const Guard guard(lock_);
    if (const auto found = blobs_.find(id); found != blobs_.end()) entry = found->second;
  }
  bool dropped = false;
  for (unsigned i = 0; i < disks_.size(); ++i) dropped |= drop_aside(i, id);
  if (!entry && dropped) return {};
  if (!entry) return fail(Code::not_found);
  if (entry->pinned && !pinned_too) return fail(Code::denied, EPERM);
  if (const Result<void> removed = remove_named(id, *entry); !removed) return removed;
  // Once it was said to be gone it stays away, also after a power cut.
  for (unsigned i = 0; i < disks_.size(); ++i) {
    if (!sync_folder(i, id) && errno != ENOENT) return std::unexpected(error_from_errno(errno));
  }
  return {};
}

// The copies first: with one of them left behind the next start would find the blob again.
Result<void> BlobStore::remove_named(const BlobId& id, const Entry& entry) {
  {
    const Guard guard(lock_);
    erase(id);
  }
  const auto keep = [&](Error error) {
    const Guard guard(lock_);
    insert(id, entry);
    return std::unexpected(error);
  };
  for (unsigned i = 0; i < disks_.size(); ++i) {
    if (i == entry.disk) continue;
    const uint64_t bytes = bytes_of_file(disks_[i]->blobs_fd.get(), blob_format::blob_path(id));
    if (const Result<void> dropped = drop_copy(i, id, bytes); !dropped) return keep(dropped.error());
  }
  const Result<void> dropped = drop_copy(entry.disk, id, blob_format::file_bytes(entry.bytes));
  return dropped ? Result<void>() : keep(dropped.error());
}

Result<void> BlobStore::drop_copy(unsigned disk, const BlobId& id, uint64_t bytes) {
  DiskState& state = *disks_[disk];
  if (unlinkat(state.blobs_fd.get(), blob_format::blob_path(id).c_str(), 0) != 0 && errno != ENOENT) {
    return std::unexpected(error_from_errno(errno));
  }
  const Guard guard(lock_);
  state.used_bytes -= std::min(state.used_bytes, bytes);
  return {};
}

int64_t BlobStore::expire() {
  std::optional<Expiry> failed;  // the last that could not be removed: the next ones may lie on a better disk
  const auto next = [&](int64_t seconds) { return failed ? options_.now_s() + 60 : seconds; };
  while (true) {
    Expiry first;
    {
      const Guard guard(lock_);
      const auto found = failed ? expiries_.upper_bound(*failed) : expiries_.begin();
      if (found == expiries_.end()) return next(0);
      first = *found;
      if (first.first > options_.now_s() || stopping_) return next(first.first);
    }
    const BlobId& id = first.second;
    const NameLock name(*this, id);
    std::optional<Entry> entry;
    {
      const Guard guard(lock_);
      if (const auto found = blobs_.find(id); found != blobs_.end() && is_over(found->second)) entry = found->second;
    }
    if (!entry) continue;  // it was given more time meanwhile
    if (const Result<void> removed = remove_named(id, *entry); !removed) {
      BC_LOG(error, "content store: blob {} has expired and cannot be removed: {}", to_hex(id),
             std::strerror(removed.error().os_errno));
      failed = first;
      continue;
    }
    const Guard guard(lock_);
    ++expired_;
  }
}

// ---- read ----

Result<std::unique_ptr<BlobReader>> BlobStore::open_blob(const BlobId& id) {
  unsigned disk = 0;
  {
    const Guard guard(lock_);
    const Entry* entry = live(id);
    if (entry == nullptr) return fail(Code::not_found);
    disk = entry->disk;
  }
  FileFd fd(open_direct(disks_[disk]->blobs_fd.get(), blob_format::blob_path(id).c_str(), O_RDONLY));
  if (fd.get() < 0 && errno == ENOENT && !find(id)) return fail(Code::not_found);  // removed just now
  if (fd.get() < 0) return std::unexpected(error_from_errno(errno));
  const Result<CurrentSeal> current = read_seal(fd.get(), id);
  if (!current && current.error().code == Code::corrupt) {
    set_aside(id, disk, fd.get(), no_seal);
  }
  if (!current) return std::unexpected(current.error());
  {
    const Guard guard(lock_);
    ++opened_;
  }
  return std::make_unique<BlobReader>(*this, disk, std::move(fd), current->seal);
}

void BlobStore::set_aside(const BlobId& id, unsigned disk, int fd, std::string_view why) {
  const NameLock name(*this, id);
  set_aside_named(id, disk, fd, why);
}

void BlobStore::set_aside_named(const BlobId& id, unsigned disk, int fd, std::string_view why) {
  const int folder = disks_[disk]->blobs_fd.get();
  const std::string path = blob_format::blob_path(id);
  struct stat ours;
  struct stat named;
  // Another file may have the name by now: the blob was stored again.
  if (fstat(fd, &ours) != 0 || fstatat(folder, path.c_str(), &named, AT_SYMLINK_NOFOLLOW) != 0 ||
      ours.st_ino != named.st_ino) {
    return;
  }
  const std::string to = aside_path(id);
  drop_aside(disk, id);
  const bool moved = renameat(folder, path.c_str(), folder, to.c_str()) == 0;
  BC_LOG(error, "content store: blob {} is damaged: {}; {}", to_hex(id), why,
         moved ? "it was moved to blobs/" + to : std::string("it cannot be moved away, and is not served"));
  const Guard guard(lock_);
  if (const auto found = blobs_.find(id); found != blobs_.end() && found->second.disk == disk) erase(id);
  ++set_aside_;
}

bool BlobStore::drop_aside(unsigned disk, const BlobId& id) {
  DiskState& state = *disks_[disk];
  const std::string path = aside_path(id);
  const uint64_t bytes = bytes_of_file(state.blobs_fd.get(), path);
  if (unlinkat(state.blobs_fd.get(), path.c_str(), 0) != 0) return false;
  const Guard guard(lock_);
  state.used_bytes -= std::min(state.used_bytes, bytes);
  return true;
}

}  // namespace blobcache
