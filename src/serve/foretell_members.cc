// The rest of a directory that an epoch reads in any order (cache/membership.h).
//
//   OPEN --> want_members --wishes--> asked --settle_member--> in flight --on_member_landed--> waits in the cache --> its OPEN
//                '------------------------------------------------------------'           '--the epoch is over--> wasted
//
// One fetch draws the next after it, so a directory is fetched as fast as its origin answers eight at a time, whatever the pace of
// its reader. All of it gives way: to what users wait for (nothing is begun while that is as much as the eight may be), to the
// disk writer and to the budget, as every prefetch does. The next OPEN begins again what stopped.
//
// No handle stands in: the reader comes in a minute or in an hour, and has his bytes from memory or from disk. If he is faster he
// waits for the load that is on its way, as any two readers of a file do.
#include <algorithm>
#include <mutex>

#include "base/assert.h"
#include "serve/foretell.h"
#include "serve/prefetch.h"

namespace blobcache::serve {

void Foreteller::count_members(const Directory& directory, const Waiting& before) {
  const Waiting now(directory);
  members_.fetch_add(now.files - before.files, std::memory_order_relaxed);
  members_frame_bytes_ += now.frame_bytes - before.frame_bytes;
}

void Foreteller::forget_members(Directory& directory) {
  const Waiting before(directory);
  lost_bytes_ += directory.members->end_epoch().wasted_bytes;
  count_members(directory, before);
}

// It was fetched, or is being fetched: nothing to foretell.
bool Foreteller::waits(const Directory& directory, FileOrder order, uint32_t position) {
  if (directory.members->waiting_files() == 0) return false;
  const std::optional<DirectoryNames::Place> place = directory.names->find(directory.names->at(order, position));
  return place && directory.members->waits(place->by_name);
}

// Whether it had been fetched.
bool Foreteller::open_member(Directory& directory, const DirectoryNames::Place& place, const Opened& opened,
                             uint64_t now_ns, Change* change) {
  const Waiting before(directory);
  const DirectoryMembership::Use use = directory.members->on_open(
      {.file = place.by_name, .bytes = opened.bytes, .absent = opened.absent, .foretold = opened.foretold}, now_ns,
      node_.pattern().idle_timeout_ns);
  count_members(directory, before);
  change->members += use;
  change->members.wasted_bytes += std::exchange(lost_bytes_, 0);
  members_directory_ = directory.hash;
  return use.used_files != 0;
}

void Foreteller::want_members(uint64_t room_bytes, uint64_t now_ns, Change* change) {
  if (!node_.enabled() || node_.budget().demand_bytes() >= members_bytes_max) return;
  const std::lock_guard held(lock_);
  const auto found = directories_.find(members_directory_);
  if (found == directories_.end()) return;
  Directory& directory = found->second;
  const uint64_t mean_bytes = std::max<uint64_t>(1, directory.members->mean_bytes());
  const uint64_t fitting = std::clamp<uint64_t>(members_bytes_max / mean_bytes, 1, members_max);
  // Those in flight are counted as waiting only when they have begun.
  const uint64_t frame_bytes = mean_bytes + limits::block_bytes;
  while (members_in_flight_ < fitting && members_frame_bytes_ + (members_in_flight_ + 1) * frame_bytes <= room_bytes) {
    if (!want_member(directory, now_ns, change)) return;
  }
}

// False: there is none to be had.
bool Foreteller::want_member(Directory& directory, uint64_t now_ns, Change* change) {
  const std::optional<uint32_t> next = directory.members->next(members_in_flight_);
  if (!next) return false;
  std::string key = key_of(directory, FileOrder::by_name, *next);
  if (find_file(key) != nullptr) return true;  // somebody else has foretold it
  File* file = add_file(key, now_ns);
  if (file == nullptr) return false;
  file->member = true;
  file->directory = directory.number;
  file->stream = *next;
  ++members_in_flight_;
  change->wishes.push_back({.key = std::move(key),
                            .place = {static_cast<uint32_t>(file - places_.data()), file->number},
                            .bytes = DirectoryMembership::file_bytes_max,
                            .whole = true,
                            .member = true});
  return true;
}

bool Foreteller::settle_member(const Place& place, uint64_t bytes) {
  const std::lock_guard held(lock_);
  File& file = places_[place.index];
  if (file.number != place.number) return false;
  BC_ASSERT(file.state == State::asked && file.member);
  const auto found = directories_.find(hash_of(parent_of(file.key)));
  if (found == directories_.end() || found->second.number != file.directory) return false;
  const Waiting before(found->second);
  found->second.members->on_begun(file.stream, bytes);
  count_members(found->second, before);
  free(file);
  ++members_in_flight_;
  return true;
}

void Foreteller::on_member_landed(std::string_view key, uint64_t bytes, bool failed) {
  const std::lock_guard held(lock_);
  BC_ASSERT(members_in_flight_ > 0);
  --members_in_flight_;
  const auto found = directories_.find(hash_of(parent_of(key)));
  if (found == directories_.end()) return;
  Directory& directory = found->second;
  const std::optional<DirectoryNames::Place> place = directory.names->find(name_of(key));
  if (!place) return;
  const Waiting before(directory);
  directory.members->on_landed(place->by_name, bytes, failed);
  count_members(directory, before);
  members_directory_ = directory.hash;
}

void Foreteller::expire_members(uint64_t now_ns, Change* change) {
  change->members.wasted_bytes += std::exchange(lost_bytes_, 0);
  if (!members_wait()) return;
  for (auto& [hash, directory] : directories_) {
    if (directory.members->waiting_files() == 0) continue;
    if (!directory.members->is_over(now_ns, node_.pattern().idle_timeout_ns)) continue;
    const Waiting before(directory);
    change->members += directory.members->end_epoch();
    count_members(directory, before);
  }
}

}  // namespace blobcache::serve
