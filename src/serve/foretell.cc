// What is known of directories and of files that are fetched before they are opened. Nothing here does I/O: the caller acts on
// what a Change says.
//
//   wish_for, want_shard --wish--> asked --settle--> stands in --take--> an OPEN has it
//                                    '--drop, end--> free   '--end--> its handle is given back unread
//
// A shard that nobody opens costs a window at most, the next one half of it, then a quarter, a sixteenth and so on; one that is
// opened gives the trust back. While none has followed another yet it is an eighth of the shard at most.
#include "serve/foretell.h"

#include <algorithm>
#include <functional>
#include <mutex>
#include <utility>

#include "base/assert.h"
#include "serve/handle.h"
#include "serve/prefetch.h"

namespace blobcache::serve {
namespace {

constexpr uint8_t shard_misses_max = 2;
constexpr uint8_t shard_distrust_max = 6;

}  // namespace

uint64_t Foreteller::hash_of(std::string_view key) { return std::hash<std::string_view>()(key); }

std::string_view Foreteller::parent_of(std::string_view key) {
  const size_t slash = key.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : key.substr(0, slash);
}

std::string_view Foreteller::name_of(std::string_view key) {
  const size_t slash = key.rfind('/');
  return slash == std::string_view::npos ? key : key.substr(slash + 1);
}

Foreteller::~Foreteller() {
  while (Directory* directory = by_use_.front()) remove_directory(*directory);
}

Foreteller::Directory* Foreteller::find_directory(std::string_view key) {
  const auto found = directories_.find(hash_of(key));
  if (found == directories_.end() || found->second.key != key) return nullptr;
  found->second.unlink();
  by_use_.push_back(found->second);
  return &found->second;
}

void Foreteller::remove_directory(Directory& directory) {
  forget_members(directory);
  node_.remove_layout(directory.bytes);
  directory.unlink();
  directories_.erase(directory.hash);
}

bool Foreteller::make_room(uint64_t bytes) {
  if (bytes > node_.layout_bytes_max()) return false;
  while (directories_.size() >= directories_max || !node_.try_add_layout(bytes)) {
    if (by_use_.empty()) return false;
    remove_directory(*by_use_.front());
  }
  return true;
}

void Foreteller::on_listed(const std::string& key, std::unique_ptr<DirectoryNames> names) {
  if (!names->settle()) return;
  const uint64_t hash = hash_of(key);
  const uint64_t bytes =
      names->bytes() + sizeof(Directory) + sizeof(DirectoryMembership) + DirectoryMembership::bytes(names->count());
  const std::lock_guard held(lock_);
  // Listed again: its readers are the same.
  if (Directory* before = find_directory(key); before != nullptr && *before->names == *names) return;
  if (const auto before = directories_.find(hash); before != directories_.end()) remove_directory(before->second);
  if (make_room(bytes)) {
    Directory& directory = directories_[hash];
    directory.number = ++numbers_;
    directory.hash = hash;
    directory.bytes = bytes;
    directory.key = key;
    directory.members = std::make_unique<DirectoryMembership>(names->count());
    directory.names = std::move(names);
    by_use_.push_back(directory);
  }
  known_.store(static_cast<uint32_t>(directories_.size()), std::memory_order_relaxed);
}

Foreteller::File* Foreteller::find_file(std::string_view key) {
  const uint64_t hash = hash_of(key);
  for (File& file : places_) {
    if (file.state != State::free && file.hash == hash && file.key == key) return &file;
  }
  return nullptr;
}

// Null: it is here already, or there is no place.
Foreteller::File* Foreteller::add_file(std::string key, uint64_t now_ns) {
  if (find_file(key) != nullptr) return nullptr;
  for (File& file : places_) {
    if (file.state != State::free) continue;
    file.state = State::asked;
    file.shard = file.member = false;
    file.misses = 0;
    file.number = ++numbers_;
    file.hash = hash_of(key);
    file.since_ns = now_ns;
    file.key = std::move(key);
    files_.fetch_add(1, std::memory_order_relaxed);
    return &file;
  }
  return nullptr;
}

void Foreteller::free(File& file) {
  BC_ASSERT(file.state != State::free);
  if (std::exchange(file.member, false)) --members_in_flight_;
  file.state = State::free;
  file.number = 0;
  file.handle = nullptr;
  files_.fetch_sub(1, std::memory_order_relaxed);
}

void Foreteller::end(File& file, Change* change) {
  if (file.state == State::stands_in) change->ended.push_back(file.handle);
  free(file);
}

Handle* Foreteller::take(std::string_view key, const FileVersion& version, Change* change) {
  const std::lock_guard held(lock_);
  File* file = find_file(key);
  if (file == nullptr) return nullptr;
  if (file->shard) {
    shard_distrust_ /= 2;
    shards_follow_ = true;
  }
  Handle* handle = file->handle;
  if (file->state == State::stands_in && handle->version == version) {
    free(*file);
    return handle;
  }
  end(*file, change);
  return nullptr;
}

void Foreteller::on_opened(const Opened& opened, uint64_t now_ns, Change* change) {
  const std::lock_guard held(lock_);
  const std::string_view parent = parent_of(opened.key);
  if (!opened.foretold && is_shard(name_of(opened.key))) miss_shards(opened.key, change);
  Directory* directory = find_directory(parent);
  if (directory == nullptr) return;
  const std::optional<DirectoryNames::Place> place = directory->names->find(name_of(opened.key));
  if (!place) return;
  const bool member = open_member(*directory, *place, opened, now_ns, change);
  const FilesAhead ahead = directory->order.on_open({.place = *place,
                                                     .count = directory->names->count(),
                                                     .one_order = directory->names->one_order(),
                                                     .bytes = opened.bytes,
                                                     .absent = opened.absent,
                                                     .foretold = opened.foretold || member});
  for (uint32_t i = 0; i < ahead.stopped_count; ++i) {
    for (File& file : places_) {
      const bool its = file.state != State::free && !file.shard && !file.member && file.directory == directory->number;
      if (its && file.stream == ahead.stopped[i]) end(file, change);
    }
  }
  wish_for(*directory, ahead, now_ns, change);
}

std::string Foreteller::key_of(const Directory& directory, FileOrder order, uint32_t position) {
  std::string key = directory.key;
  if (!key.empty()) key.push_back('/');
  key.append(directory.names->at(order, position));
  return key;
}

void Foreteller::wish_for(const Directory& directory, const FilesAhead& ahead, uint64_t now_ns, Change* change) {
  for (uint32_t position = ahead.first; position < ahead.end; ++position) {
    if (waits(directory, ahead.order, position)) continue;
    std::string key = key_of(directory, ahead.order, position);
    File* file = add_file(key, now_ns);
    if (file == nullptr) continue;
    file->directory = directory.number;
    file->stream = ahead.stream;
    change->wishes.push_back({.key = std::move(key),
                              .place = {static_cast<uint32_t>(file - places_.data()), file->number},
                              .bytes = OpenOrder::small_file_bytes_max,
                              .whole = true});
  }
}

// A later shard was opened than the one foretold: two of them, and its readers go another way. Who opens an earlier one will
// come to it: the processes of a node read the same shards, one a little behind the other.
void Foreteller::miss_shards(std::string_view opened, Change* change) {
  for (File& file : places_) {
    if (file.state == State::free || !file.shard || parent_of(file.key) != parent_of(opened)) continue;
    if (opened <= file.key || ++file.misses < shard_misses_max) continue;
    end(file, change);
  }
}

void Foreteller::want_shard(Shard shard, uint64_t now_ns, Change* change) {
  const std::lock_guard held(lock_);
  unsigned shards = 0;
  for (const File& file : places_) {
    if (file.state != State::free && file.shard) ++shards;
  }
  if (shards >= shards_max) return;
  File* file = add_file(shard.key, now_ns);
  if (file == nullptr) return;
  file->shard = true;
  change->wishes.push_back({.key = std::move(shard.key),
                            .place = {static_cast<uint32_t>(file - places_.data()), file->number},
                            .bytes = std::max(limits::block_bytes, shard.bytes >> shard_distrust_),
                            .unproven = !shards_follow_});
}

void Foreteller::on_unread(std::string_view key, bool small) {
  const std::lock_guard held(lock_);
  if (small) {
    if (Directory* directory = find_directory(parent_of(key))) directory->order.distrust();
    return;
  }
  shards_follow_ = false;
  shard_distrust_ =
      shard_distrust_ == 0 ? 1 : std::min<uint8_t>(static_cast<uint8_t>(shard_distrust_ * 2), shard_distrust_max);
}

bool Foreteller::is_wanted(const Place& place) {
  const std::lock_guard held(lock_);
  return places_[place.index].number == place.number;
}

bool Foreteller::settle(const Place& place, Handle& handle) {
  const std::lock_guard held(lock_);
  File& file = places_[place.index];
  if (file.number != place.number) return false;
  BC_ASSERT(file.state == State::asked);
  file.state = State::stands_in;
  file.handle = &handle;
  return true;
}

void Foreteller::drop(const Place& place) {
  const std::lock_guard held(lock_);
  File& file = places_[place.index];
  if (file.number == place.number) free(file);
}

void Foreteller::expire(uint64_t now_ns, Change* change) {
  const std::lock_guard held(lock_);
  for (File& file : places_) {
    if (file.state != State::stands_in || now_ns < file.since_ns + node_.pattern().idle_timeout_ns) continue;
    end(file, change);
  }
  expire_members(now_ns, change);
}

void Foreteller::end_all(Change* change) {
  const std::lock_guard held(lock_);
  for (File& file : places_) {
    if (file.state != State::free) end(file, change);
  }
}

}  // namespace blobcache::serve
