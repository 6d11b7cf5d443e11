// Listings. The origin gives entries in batches from a cookie; what did not fit into one reply waits in the handle for the
// next READDIR. The cookie of an entry is the origin's own (telldir survives), so a reader that seeks just asks there.
//
// READDIRPLUS is one lookup an entry, and the kernel holds each node until it forgets it: while the table of nodes is
// crowded entries go out without nodes, as READDIR would have them, and the origin is not asked for their attributes.
#include <cerrno>
#include <cstring>
#include <utility>

#include <dirent.h>

#include <sys/stat.h>

#include "fuse/reply.h"
#include "serve/calls.h"

namespace blobcache::serve {
namespace {

constexpr uint32_t entries_per_batch = 1024;
constexpr uint32_t entries_per_batch_with_info = 256;
constexpr uint32_t names_min = 4;
constexpr uint64_t names_step_bytes = 16 * limits::KiB;

uint32_t padded(size_t bytes) { return static_cast<uint32_t>((bytes + 7) & ~size_t{7}); }

bool is_dot(const std::string& name) { return name == "." || name == ".."; }

}  // namespace

void VolumeServer::dispose(Pending<ListCall>& call) {
  // Abandoned: the handle that it listed for waits until now for its release.
  Handle* handle = volume().handles.get(call.handle_id);
  if (handle != nullptr) {
    handle->listing = false;
    release_handle(*handle);
  }
  lists_.release(call);
}

uint32_t VolumeServer::encode_entries(Handle& handle, std::byte* to, uint32_t bytes_max, bool plus) {
  Volume& its = volume();
  uint32_t used = 0;
  while (handle.entries_told < handle.entries.size()) {
    DirectoryEntry& entry = handle.entries[handle.entries_told];
    const uint32_t head = plus ? sizeof(fuse_direntplus) : sizeof(fuse_dirent);
    const uint32_t bytes = padded(head + entry.name.size());
    if (used + bytes > bytes_max) break;
    std::memset(to + used, 0, bytes);
    auto* dirent = reinterpret_cast<fuse_dirent*>(to + used);
    if (plus) {
      auto* both = reinterpret_cast<fuse_direntplus*>(to + used);
      dirent = &both->dirent;
      if (entry.has_info && !is_dot(entry.name) && !its.inodes.crowded()) {
        const std::string key = handle.key.empty() ? entry.name : handle.key + "/" + entry.name;
        // Too many nodes, or too long a path: the entry goes without attributes, and whoever wants them looks it up.
        if (const Result<fuse::NodeId> id = its.inodes.acquire(key, entry.info, now_ns()); id) {
          const fuse::Timeout entry_time = fuse::timeout_of_ns(its.live.entry_timeout_ns);
          const fuse::Timeout attr_time = fuse::timeout_of_ns(its.live.attr_timeout_ns);
          both->entry_out.nodeid = *id;
          both->entry_out.entry_valid = entry_time.seconds;
          both->entry_out.entry_valid_nsec = entry_time.nanoseconds;
          both->entry_out.attr_valid = attr_time.seconds;
          both->entry_out.attr_valid_nsec = attr_time.nanoseconds;
          fuse::fill_attributes(entry.info.attributes, both->entry_out.attr);
        }
      }
    }
    dirent->ino = entry.ino;
    dirent->off = entry.next_offset;
    dirent->namelen = static_cast<uint32_t>(entry.name.size());
    dirent->type = entry.type;
    std::memcpy(reinterpret_cast<std::byte*>(dirent) + sizeof(fuse_dirent), entry.name.data(), entry.name.size());
    used += bytes;
    if (handle.names != nullptr) note_name(handle, entry);
    handle.entries_from = entry.next_offset;
    ++handle.entries_told;
  }
  return used;
}

// Whoever lists a directory from its start to its end tells which files will be opened after which (cache/neighbours.h).
// Names are noted as they are told: what was fetched and not told may be fetched again. They are accounted for as they grow:
// anybody may open listings and never end them.
void VolumeServer::note_listing(Handle& handle, const ListCall& call) {
  if (volume().foreteller == nullptr || !volume().prefetch->enabled()) return;
  if (call.offset == 0) {
    forget_names(handle);
    handle.names = std::make_unique<DirectoryNames>();
    handle.names_until = 0;
  }
  if (handle.names == nullptr || !call.entries.empty()) return;
  std::unique_ptr<DirectoryNames> names = std::move(handle.names);
  forget_names(handle);
  if (handle.names_until == call.offset && names->count() >= names_min) {
    volume().foreteller->on_listed(handle.key, std::move(names));
  }
}

void VolumeServer::note_name(Handle& handle, const DirectoryEntry& entry) {
  const bool follows = handle.names_until == handle.entries_from;
  const bool is_file = entry.type == DT_REG || entry.type == DT_UNKNOWN;
  handle.names_until = entry.next_offset;
  if (!follows || (is_file && !handle.names->add(entry.name))) return forget_names(handle);
  while (handle.names->bytes() > handle.names_accounted_bytes) {
    if (!volume().prefetch->try_add_layout(names_step_bytes)) return forget_names(handle);
    handle.names_accounted_bytes += names_step_bytes;
  }
}

void VolumeServer::forget_names(Handle& handle) {
  handle.names = nullptr;
  if (handle.names_accounted_bytes == 0) return;
  volume().prefetch->remove_layout(std::exchange(handle.names_accounted_bytes, 0));
}

Task VolumeServer::read_directory(TaskStack&, Request& request, bool plus) {
  VolumeServer& server = *request.server;
  Volume& volume = server.volume();
  const fuse_read_in in = request.slot->argument<fuse_read_in>();
  Handle* handle = volume.handles.get(in.fh);
  Pending<ListCall>* call = nullptr;
  if (handle == nullptr || handle->listing) {
    // A second listing of one handle meets a first that was interrupted and still hangs at the origin.
    server.reply_error(request, handle == nullptr ? EBADF : EBUSY);
    co_return server.finish(request);
  }
  if (handle->entries_told < handle->entries.size() && handle->entries_from == in.offset &&
      handle->entries_have_info == plus) {
    server.reply(request, server.encode_entries(*handle, request.slot->payload,
                                                std::min(in.size, request.slot->payload_bytes), plus));
    co_return server.finish(request);
  }
  call = server.take_call(server.lists_, request);
  if (call == nullptr) {
    server.reply_failure(request, ErrorPlace::list, Error{Code::again}, handle->key);
    co_return server.finish(request);
  }
  call->key = handle->key;
  call->fd = handle->origin_fd.load(std::memory_order_relaxed);
  call->offset = in.offset;
  call->with_info = plus && !volume.inodes.crowded();
  call->entries_max = call->with_info ? entries_per_batch_with_info : entries_per_batch;
  call->entries.clear();
  call->handle_id = in.fh;
  handle->listing = true;
  volume.handles.reference(*handle);
  volume.origin->begin_list(server.reactor(), *call);
  co_await request.event;
  if (!call_ended(request, *call)) {
    server.reply_given_up(request, ErrorPlace::list, handle->key);
    co_return server.finish(request);
  }
  handle->listing = false;
  if (call->failed) {
    server.reply_failure(request, ErrorPlace::list, call->error, handle->key);
  } else {
    server.note_listing(*handle, *call);
    std::swap(handle->entries, call->entries);
    handle->entries_told = 0;
    handle->entries_from = in.offset;
    handle->entries_have_info = plus;
    server.reply(request, server.encode_entries(*handle, request.slot->payload,
                                                std::min(in.size, request.slot->payload_bytes), plus));
  }
  server.release_handle(*handle);
  server.put_call(server.lists_, *call);
  server.finish(request);
}

}  // namespace blobcache::serve
