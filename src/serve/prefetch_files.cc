// Files that are fetched before anybody opens them: the flow behind foretell.h.
//
//   OPEN, or a read near the end of a shard --> Foreteller --wishes--> begin_open at the origin --> a handle that stands in, with a
//   FilePrefetch that wants the beginning of the file --> pieces like any other (prefetch_loads.cc)
//   OPEN of that file --> take_foretold: the open gets this handle, and whatever is under way for it goes on
//
// A stand-in is a handle like any other but that the kernel does not know of it, so loads, windows and the count of what was of
// use need nothing of their own. The origin's descriptor is the stand-in's; the one that came with the OPEN is closed.
//
// The rest of a directory (foretell_members.cc) has no reader yet: its handle is nobody's, and ends with the fetch.
//
// What is in memory or on disk is nothing to foretell. A stand-in that was not opened in time is looked for by a timer of the
// core that made it, which ticks only while there are any.
#include <algorithm>
#include <cstring>
#include <string_view>

#include <sys/stat.h>

#include "serve/volume_server.h"

namespace blobcache::serve {
namespace {

constexpr uint64_t index_bytes_max = 256 * limits::KiB;  // as prefetch_layout.cc: 3 ms of a core
constexpr uint64_t index_look_bytes = 4096;              // as layout_safetensors.cc
constexpr uint64_t unproven_share = 8;                   // of a shard, while none has followed another
constexpr uint64_t members_arena_share = 4;              // a quarter for what nobody has opened, as the budget's
constexpr uint64_t members_disk_share = 2;               // of what is free: the rest is for what is read meanwhile
constexpr unsigned members_at_once = 64;                 // that were there already, in one go

}  // namespace

Handle* Prefetcher::take_foretold(const std::string& key, const FileVersion& version) {
  Foreteller& foreteller = *server_.volume().foreteller;
  if (!foreteller.has_files()) return nullptr;
  Foreteller::Change change;
  Handle* handle = foreteller.take(key, version, &change);
  if (handle != nullptr) server_.counters_.prefetch_files_opened.add(1);
  act(change);
  return handle;
}

bool Prefetcher::lacks(const ObjectId& object, uint64_t bytes) const {
  Volume& volume = server_.volume();
  if (!volume.foreteller->knows_directories() || bytes == 0 || bytes > OpenOrder::small_file_bytes_max) return false;
  DiskView view;
  if (volume.disk != nullptr && volume.disk->find(object, 0, &view) && view.valid != 0) return false;
  return !volume.memory->holds(object, 0, bytes);
}

void Prefetcher::on_opened(const Foreteller::Opened& file) {
  Foreteller& foreteller = *server_.volume().foreteller;
  if (!foreteller.has_files() && !foreteller.knows_directories()) return;
  Foreteller::Change change;
  foreteller.on_opened(file, server_.reactor().now_ns(), &change);
  members_due_ |= file.absent || file.foretold || change.members.used_files != 0;
  act(change);
  fetch_members();
}

// Where what nobody has opened waits until somebody does, and pushes nothing out.
uint64_t Prefetcher::room_for_members() const {
  const DiskTier* disk = server_.volume().disk;
  const uint64_t memory = node_.arena_bytes() / members_arena_share;
  return disk == nullptr ? memory : std::max(memory, disk->free_bytes() / members_disk_share);
}

// An answer may come while it is asked for, and one fetch draws the next: here they follow one another.
void Prefetcher::fetch_members() {
  if (fetching_members_ || closed_) return;
  fetching_members_ = true;
  for (unsigned i = 0; members_due_ && i < members_at_once; ++i) {
    members_due_ = false;
    Foreteller::Change change;
    server_.volume().foreteller->want_members(room_for_members(), server_.reactor().now_ns(), &change);
    act(change);
  }
  fetching_members_ = false;
}

// All of it is here, or will not come.
void Prefetcher::end_member(FilePrefetch& file, bool failed) {
  PrefetchUse use;
  file.stop(&use);
  server_.counters_.prefetch_canceled_bytes.add(use.canceled_bytes);
  server_.volume().foreteller->on_member_landed(file.handle.key, file.handle.object_bytes, failed);
  // Who does not answer is not asked for more before somebody waits for it.
  members_due_ |= !failed;
}

void Prefetcher::on_passthrough(Handle& handle) {
  PrefetchUse use;
  handle.prefetch.load(std::memory_order_acquire)->on_passthrough(&use);
  add(use);
}

// Who has read the index of a model opens its shards next. Whether it is one, its layout says.
bool Prefetcher::may_be_index(const Handle& handle, ReadRange range, const std::byte* bytes) {
  if (range.offset != 0 || handle.object_bytes > index_bytes_max || !handle.cacheable) return false;
  if (bytes[0] != std::byte{'{'}) return false;
  const std::string_view text(reinterpret_cast<const char*>(bytes), std::min<uint64_t>(range.bytes, index_look_bytes));
  return text.find("\"weight_map\"") != std::string_view::npos;
}

void Prefetcher::on_index(Handle& handle) {
  FilePrefetch* file = handle.prefetch.load(std::memory_order_acquire);
  if (file == nullptr) {
    if (!node_.try_add_file()) return;
    auto made = std::make_unique<FilePrefetch>(node_, handle, false);
    if (handle.prefetch.compare_exchange_strong(file, made.get(), std::memory_order_acq_rel)) file = made.release();
  }
  file->learn_index();
  learn(*file);
}

void Prefetcher::want_shard(Foreteller::Shard shard) {
  if (shard.key.empty()) return;
  Foreteller::Change change;
  server_.volume().foreteller->want_shard(std::move(shard), server_.reactor().now_ns(), &change);
  act(change);
}

void Prefetcher::act(Foreteller::Change& change) {
  if (change.members.used_files != 0 || change.members.wasted_bytes != 0) {
    server_.counters_.prefetch_files_opened.add(change.members.used_files);
    add({.used_bytes = change.members.used_bytes, .wasted_bytes = change.members.wasted_bytes});
  }
  for (Handle* handle : change.ended) end(*handle);
  for (Foreteller::Wish& wish : change.wishes) ask(wish);
}

void Prefetcher::ask(Foreteller::Wish& wish) {
  FileCall* call = closed_ || !node_.enabled() ? nullptr : file_calls_.try_acquire();
  if (call == nullptr) return server_.volume().foreteller->drop(wish.place);
  call->key = wish.key;
  call->wish = std::move(wish);
  call->failed = false;
  call->request_id = 0;
  call->fd = -1;
  call->on_done = &Prefetcher::on_asked;
  server_.volume().origin->begin_open(server_.reactor(), *call);
}

void Prefetcher::on_asked(OriginCall& base) {
  auto& call = static_cast<FileCall&>(base);
  Prefetcher& self = *call.prefetcher;
  Volume& volume = self.server_.volume();
  Handle* handle = call.failed || self.closed_ ? nullptr : self.begin_standing_in(call);
  const Foreteller::Place place = call.wish.place;
  const bool member = call.wish.member;
  if (call.fd >= 0) volume.origin->close(self.server_.reactor(), call.fd);
  self.file_calls_.release(call);
  // An origin that knows the name answers at once, within somebody's read: what is wanted begins in another turn.
  self.retry_soon();
  if (handle == nullptr || !(member ? self.settle_member(place, *handle) : volume.foreteller->settle(place, *handle))) {
    volume.foreteller->drop(place);
    if (handle != nullptr) self.end(*handle);
    return self.fetch_members();
  }
  self.server_.counters_.prefetch_files.add(1);
  if (!self.expiry_.armed()) self.server_.reactor().arm(self.expiry_, self.node_.pattern().idle_timeout_ns);
}

// Its reference is that of the list, and of what is under way.
bool Prefetcher::settle_member(const Foreteller::Place& place, Handle& handle) {
  if (!server_.volume().foreteller->settle_member(place, handle.object_bytes)) return false;
  handle.prefetch.load(std::memory_order_acquire)->make_member();
  server_.release_handle(handle);
  return true;
}

// Null: it is nothing to fetch.
Handle* Prefetcher::begin_standing_in(FileCall& call) {
  Volume& volume = server_.volume();
  const FileInfo& info = call.info;
  const uint64_t size = info.attributes.size;
  members_due_ |= call.wish.member;
  if (!volume.foreteller->is_wanted(call.wish.place)) return nullptr;
  uint64_t bytes = std::min({call.wish.bytes, size, node_.window().max_window_bytes});
  if (!S_ISREG(info.attributes.mode) || info.young || size == 0 || (call.wish.whole && bytes < size)) return nullptr;
  if (call.wish.unproven) bytes = std::min(bytes, std::max(limits::block_bytes, size / unproven_share));
  const ObjectId object = volume.object_id_of(call.key, info);
  if (volume.memory->holds(object, 0, bytes)) return nullptr;
  DiskView view;
  if (volume.disk != nullptr && volume.disk->find(object, 0, &view)) {
    if (call.wish.whole ? view.valid != 0 : view.whole && volume.passes_through()) return nullptr;
  }
  members_due_ = false;  // its end draws the next
  if (!node_.try_add_file()) return nullptr;
  Handle* handle = volume.handles.take();
  if (handle == nullptr) {
    node_.remove_file();
    return nullptr;
  }
  handle->node = 0;
  handle->key = call.key;
  handle->version = info.version;
  handle->object = object;
  handle->object_bytes = size;
  handle->origin_fd = call.fd;
  handle->buffered = handle->cacheable = true;
  call.fd = -1;
  auto file = std::make_unique<FilePrefetch>(node_, *handle, volume.config.profile == Profile::model, call.wish.whole);
  FilePrefetch& prefetch = *file;
  prefetch.note_reader(server_.reactor().core());  // until there is one
  handle->prefetch.store(file.release(), std::memory_order_release);
  if (prefetch.foretell(bytes, server_.reactor().now_ns())) {
    enlist(prefetch);
    return handle;
  }
  server_.release_handle(*handle);
  return nullptr;
}

// Its reference is given back; what it has under way goes on. Where all of it was there already it was foretold for nothing,
// but has cost nothing.
void Prefetcher::end(Handle& handle) {
  PrefetchUse use;
  FilePrefetch& file = *handle.prefetch.load(std::memory_order_acquire);
  file.stop(&use);
  add(use);
  if (use.wasted_bytes > 0 && !closed_) server_.volume().foreteller->on_unread(handle.key, file.neighbour());
  server_.release_handle(handle);
}

void Prefetcher::end_files() {
  if (expiry_.armed()) server_.reactor().cancel(expiry_);
  Foreteller::Change change;
  server_.volume().foreteller->end_all(&change);
  act(change);
}

void Prefetcher::on_expiry(Timer& timer) {
  Prefetcher& self = *static_cast<Expiry&>(timer).prefetcher;
  Foreteller& foreteller = *self.server_.volume().foreteller;
  Foreteller::Change change;
  foreteller.expire(self.server_.reactor().now_ns(), &change);
  self.act(change);
  self.retry_soon();  // what was given up leaves the list of those that want something
  if (foreteller.has_files() || foreteller.members_wait())
    self.server_.reactor().arm(self.expiry_, self.node_.pattern().idle_timeout_ns);
}

}  // namespace blobcache::serve
