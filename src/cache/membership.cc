// Training reads a folder of small files in an order that nobody can foresee, but it reads all of them, each once. So it is not
// the next file that is foretold but that it will be opened some time: what is fetched waits in the cache, not for a reader.
//
// When that is believed: more than a quarter of the files was opened, and hardly any of them twice (one in 32; eight opens later
// it is the same reading: who looks at a header and then reads). Who draws at random with putting back has opened one in 16 twice
// when he has opened an eighth of the files, so he never comes so far: too many repeats begin another epoch, as the second round of
// a reader of one part does. A quarter, since a reader of a tenth, of a validation part or of a sample must cost nothing, and what
// is left is still the greater part; an earlier mark would win a quarter of the round trips at most.
//
// How much: no more waits unopened than the epoch has opened. One who stops after a quarter has so cost a quarter, and of one who
// goes on, 87 % of the rest is there before he comes: with the share x opened he meets what waits with probability x / (1 - x) until
// half is opened, and all of the rest is fetched then.
//
// The end of an epoch: every file was opened; files are opened again; nobody came for the idle time and for 16 times the time
// between two opens (of a thousand folders read together, each one rests for seconds). What waits then is wasted, and when that is
// more than an eighth of what was fetched, as when a fifth of the folder is for validation, the directory is left alone from then on.
//
// Rejected: to ask for the rest from the first open on (a listing of a large folder would begin a copy of it); to keep a handle for
// each file as serve/foretell.h does for neighbours (of 72 that wait, the next open of a thousand meets hardly ever one).
#include "cache/membership.h"

#include <algorithm>
#include <bit>

#include "base/assert.h"
#include "base/limits.h"

namespace blobcache {
namespace {

constexpr uint64_t idle_gaps = 16;

uint64_t frame_bytes(uint64_t bytes) {
  return (bytes + limits::block_bytes - 1) / limits::block_bytes * limits::block_bytes;
}

}  // namespace

DirectoryMembership::DirectoryMembership(uint32_t files) : files_(files) {
  if (files < files_min) return;
  for (Bits* bits : {&opened_, &known_, &waiting_, &landed_}) bits->assign((size_t{files} + 63) / 64, 0);
}

bool DirectoryMembership::is_recent(uint32_t file) const {
  const uint32_t* end = recent_ + std::min(recent_count_, recent_max);
  return std::find(recent_, end, file) != end;
}

DirectoryMembership::Use DirectoryMembership::on_open(const Opened& opened, uint64_t now_ns, uint64_t idle_ns) {
  if (files_ < files_min || given_up_) return {};
  BC_ASSERT(opened.file < files_);
  Use use;
  if (is_over(now_ns, idle_ns)) use = end_epoch();
  const bool again = has(opened_, opened.file);
  if (again && !is_recent(opened.file)) {
    wanting_ = false;
    if (++repeats_ <= opened_files_ / repeats_share) return use;
    use += end_epoch();
  }
  if (given_up_ || has(opened_, opened.file)) return use;
  if (opened_files_ == 0) began_ns_ = now_ns;
  last_ns_ = now_ns;
  use += note_open(opened);
  if (opened_files_ == files_) use += end_epoch();
  return use;
}

// The first of this file in the epoch.
DirectoryMembership::Use DirectoryMembership::note_open(const Opened& opened) {
  Use use;
  bool ours = false;
  if (has(waiting_, opened.file)) {
    const bool evicted = has(landed_, opened.file) && opened.absent;
    ours = !evicted;
    use = {.used_files = ours ? 1u : 0u,
           .used_bytes = ours ? opened.bytes : 0,
           .wasted_bytes = evicted ? opened.bytes : 0};
    if (evicted) ++wasted_files_;
    forget_waiting(opened.file, opened.bytes);
  }
  set(opened_, opened.file);
  set(known_, opened.file);
  recent_[recent_count_++ % recent_max] = opened.file;
  ++opened_files_;
  opened_bytes_ += opened.bytes;
  wanting_ = opened.absent || opened.foretold || ours;
  if (wanting_) ++absent_files_;
  return use;
}

void DirectoryMembership::forget_waiting(uint32_t file, uint64_t bytes) {
  clear(waiting_, file);
  clear(landed_, file);
  --waiting_files_;
  // It may be another version than was fetched: the last one takes what is left.
  waiting_bytes_ -= waiting_files_ == 0 ? waiting_bytes_ : std::min(waiting_bytes_, bytes);
  waiting_frame_bytes_ -=
      waiting_files_ == 0 ? waiting_frame_bytes_ : std::min(waiting_frame_bytes_, frame_bytes(bytes));
}

// Most of it has to be fetched: of a directory that is here already, one file that was evicted says nothing.
bool DirectoryMembership::proven() const {
  return opened_files_ > files_ / opened_share && absent_files_ > opened_files_ / 2 && mean_bytes() <= file_bytes_max;
}

std::optional<uint32_t> DirectoryMembership::next(uint32_t asked) {
  if (files_ < files_min || given_up_ || !wanting_ || !proven() || waiting_files_ + asked >= opened_files_)
    return std::nullopt;
  for (; cursor_ < files_; cursor_ = (cursor_ / 64 + 1) * 64) {
    const uint64_t free = ~known_[cursor_ / 64];
    if (free == 0) continue;
    const uint32_t file = cursor_ / 64 * 64 + static_cast<uint32_t>(std::countr_zero(free));
    if (file >= files_) break;
    set(known_, file);
    return file;
  }
  return std::nullopt;
}

void DirectoryMembership::on_begun(uint32_t file, uint64_t bytes) {
  if (has(waiting_, file) || has(opened_, file)) return;
  set(known_, file);
  set(waiting_, file);
  ++fetched_files_;
  ++waiting_files_;
  waiting_bytes_ += bytes;
  waiting_frame_bytes_ += frame_bytes(bytes);
}

void DirectoryMembership::on_landed(uint32_t file, uint64_t bytes, bool failed) {
  if (!has(waiting_, file)) return;
  if (!failed) return set(landed_, file);
  --fetched_files_;
  forget_waiting(file, bytes);
}

bool DirectoryMembership::is_over(uint64_t now_ns, uint64_t idle_ns) const {
  if (opened_files_ == 0 || now_ns <= last_ns_) return false;
  return now_ns - last_ns_ > std::max(idle_ns, idle_gaps * ((last_ns_ - began_ns_) / opened_files_));
}

DirectoryMembership::Use DirectoryMembership::end_epoch() {
  const Use use{.wasted_bytes = waiting_bytes_};
  given_up_ = given_up_ || wasted_files_ + waiting_files_ > fetched_files_ / waste_share;
  for (Bits* bits : {&opened_, &known_, &waiting_, &landed_}) std::fill(bits->begin(), bits->end(), 0);
  wanting_ = false;
  cursor_ = recent_count_ = 0;
  opened_files_ = absent_files_ = repeats_ = fetched_files_ = wasted_files_ = waiting_files_ = 0;
  opened_bytes_ = waiting_bytes_ = waiting_frame_bytes_ = 0;
  return use;
}

}  // namespace blobcache
