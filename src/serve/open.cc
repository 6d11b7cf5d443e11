// OPEN and RELEASE.
//
// OPEN looks at the origin's file again: if it is not the version that the node stands for, the answer is ESTALE, the
// kernel looks the name up anew and opens what is there now. The origin's file is opened only if some of it is not here:
// of a small file that is cached, opening and closing it was a fifth of the processor time that we spent on it.
//
// Then it chooses how the file is read, because all opens of an inode have to agree (docs/KERNEL.md):
//
//   passthrough opens exist --> join them
//   whole and verified on disk --> DiskOpenJob makes its file a backing file; if no page-cached open came first, the open
//                                  answers with it; the kernel then reads without us until RELEASE
//   else page-cached; if passthrough opens came first meanwhile, join them after all
//
// A job that comes back too late, or for nothing, is undone by a DiskDisarmJob: an Arming outlives the open that began it.
// Where the mount cannot pass through at all, nothing of this happens and nobody counts.
#include <bit>
#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>

#include "base/log.h"
#include "fuse/passthrough.h"
#include "fuse/reply.h"
#include "serve/calls.h"

namespace blobcache::serve {
namespace {

// A backing file takes an ioctl and a stat on the keeper's thread; an open waits so long for them at most.
constexpr uint64_t patience_ns = 1'000'000'000;

}  // namespace

Task VolumeServer::open(TaskStack&, Request& request) {
  VolumeServer& server = *request.server;
  Volume& volume = server.volume();
  const bool directory = request.slot->in().opcode == FUSE_OPENDIR;
  fuse::Node node;
  ObjectId object;
  Pending<OpenCall>* call = nullptr;
  if ((request.slot->argument<fuse_open_in>().flags & O_ACCMODE) != O_RDONLY) {
    server.reply_error(request, EROFS);
    co_return server.finish(request);
  }
  if (!volume.inodes.get(request.slot->in().nodeid, node)) {
    server.reply_error(request, ESTALE);
    co_return server.finish(request);
  }
  call = server.take_call(server.opens_, request);
  if (call == nullptr) {
    server.reply_failure(request, ErrorPlace::open, Error{Code::again}, node.key);
    co_return server.finish(request);
  }
  call->key = node.key;
  call->fd = -1;
  if (!directory) object = volume.object_id_of(node.key, node.info);
  call->version_only = !directory && server.is_at_hand(object, node.info.attributes.size);
  volume.origin->begin_open(server.reactor(), *call);
  co_await request.event;
  if (!call_ended(request, *call)) {
    server.reply_given_up(request, ErrorPlace::open, node.key);
    co_return server.finish(request);
  }
  if (call->failed) {
    // Gone or another file by now: the kernel should look the name up again.
    if (call->error.code == Code::not_found) call->error = Error{Code::stale};
    server.reply_failure(request, ErrorPlace::open, call->error, node.key);
  } else if (directory) {
    volume.inodes.update_directory(node.id, call->info, server.now_ns());
    server.open_directory(request, node, *call);
  } else if (!(call->info.version == node.info.version)) {
    server.reply_failure(request, ErrorPlace::open, Error{Code::stale}, node.key);
  } else {
    co_await open_file(request.stack, request, node, object, *call);
  }
  call->request = nullptr;
  server.dispose(*call);
  server.finish(request);
}

// All of it is in memory or on disk, so the origin is asked for its version and nothing more. If it leaves the cache while
// it is open, the load that misses it opens the origin's file.
bool VolumeServer::is_at_hand(const ObjectId& object, uint64_t object_bytes) {
  if (object_bytes == 0) return true;
  if (object_bytes <= limits::chunk_frame_bytes && volume().memory->holds(object, 0, object_bytes)) return true;
  DiskView view;
  if (volume().disk == nullptr || !disk().find(object, 0, &view) || view.size != object_bytes) return false;
  if (!view.place.packed) return view.whole;
  const auto blocks = static_cast<unsigned>((object_bytes + limits::block_bytes - 1) / limits::block_bytes);
  return std::countr_one(view.valid) >= static_cast<int>(blocks);
}

// Null: the reply was an error.
Handle* VolumeServer::take_handle(Request& request, const fuse::Node& node) {
  Handle* handle = volume().handles.take();
  if (handle == nullptr) reply_failure(request, ErrorPlace::open, Error{Code::full, ENFILE}, node.key);
  return handle;
}

// All but how it is read.
void VolumeServer::describe_handle(Handle& handle, const fuse::Node& node, const ObjectId& object,
                                   Pending<OpenCall>& call) {
  handle.node = node.id;
  handle.key = node.key;
  handle.version = call.info.version;
  handle.object_bytes = object.is_null() ? 0 : call.info.attributes.size;  // a directory has none
  handle.object = object;
  handle.origin_fd = call.fd;
  handle.cacheable = !call.info.young;
  call.fd = -1;
}

void VolumeServer::open_directory(Request& request, const fuse::Node& node, Pending<OpenCall>& call) {
  Handle* handle = take_handle(request, node);
  if (handle == nullptr) return;
  describe_handle(*handle, node, {}, call);
  volume().handles.publish(*handle);
  auto& out = request.slot->reply_as<fuse_open_out>();
  out.fh = handle->id();
  // The kernel keeps the listing while the directory's mtime stays what it was.
  out.open_flags = FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE;
  reply(request, sizeof out);
}

Task VolumeServer::open_file(TaskStack&, Request& request, const fuse::Node& node, const ObjectId& object,
                             Pending<OpenCall>& call) {
  VolumeServer& server = *request.server;
  Prefetcher* prefetcher = server.prefetcher_.get();
  const bool young = call.info.young;
  Handle* handle = prefetcher == nullptr ? nullptr : prefetcher->take_foretold(node.key, call.info.version);
  const bool foretold = handle != nullptr;
  if (!foretold) {
    handle = server.take_handle(request, node);
    if (handle == nullptr) co_return;
    server.describe_handle(*handle, node, object, call);
  }
  const uint64_t bytes = handle->object_bytes;
  const bool absent = prefetcher != nullptr && !foretold && prefetcher->lacks(handle->object, bytes);
  handle->buffered = (request.slot->argument<fuse_open_in>().flags & static_cast<uint32_t>(O_DIRECT)) == 0;
  handle->node = node.id;
  OpenChoice choice;
  if (server.volume().passes_through()) {
    co_await choose_mode(request.stack, request, *handle, choice);
  } else if (server.volume().inodes.open_cached(handle->node)) {
    choice.mode = OpenMode::cached;  // one way only, but open nodes are counted: the kernel is not asked to forget them
  }
  handle->mode = choice.mode;
  if (foretold && choice.mode == OpenMode::passthrough) prefetcher->on_passthrough(*handle);
  server.volume().handles.publish(*handle);
  server.reply_open(request, *handle, choice, young);
  if (prefetcher == nullptr || young) co_return;
  prefetcher->on_opened({.key = node.key, .bytes = bytes, .absent = absent, .foretold = foretold});
  prefetcher->pump();
}

void VolumeServer::reply_open(Request& request, Handle& handle, const OpenChoice& choice, bool young) {
  auto& out = request.slot->reply_as<abi::OpenOut>();
  out.fh = handle.id();
  out.open_flags = abi::open_noflush;
  if (choice.mode == OpenMode::passthrough) {
    counters_.passthrough_opens.add(1);
    counters_.passthrough_bytes.add(handle.object_bytes);
    out.open_flags |= abi::open_passthrough;
    out.backing_id = choice.backing_id;
  } else {
    // Pages of a version that was young when they were read may be of another one: the next open drops them.
    const bool tainted = volume().inodes.exchange_tainted(handle.node, young);
    if (!tainted && !young) out.open_flags |= FOPEN_KEEP_CACHE;
  }
  reply(request, sizeof out);
}

Task VolumeServer::choose_mode(TaskStack&, Request& request, Handle& handle, OpenChoice& choice) {
  VolumeServer& server = *request.server;
  fuse::Inodes& inodes = server.volume().inodes;
  if (!inodes.join_passthrough(handle.node, &choice.backing_id)) {
    Arming* arming = server.begin_arming(request, handle);
    if (arming != nullptr) {
      co_await request.event;
      server.end_arming(request, *arming, handle, choice);
    }
    // Each of the two fails only because somebody else's open or release came between them.
    while (choice.mode == OpenMode::untold) {
      if (inodes.open_cached(handle.node)) {
        choice.mode = OpenMode::cached;
      } else if (inodes.join_passthrough(handle.node, &choice.backing_id)) {
        choice.mode = OpenMode::passthrough;
      }
    }
  } else {
    choice.mode = OpenMode::passthrough;
  }
}

// Null: the file is not one to pass through now.
Arming* VolumeServer::begin_arming(Request& request, const Handle& handle) {
  DiskView view;
  if (!handle.cacheable || volume().passthrough_refused.load(std::memory_order_relaxed)) return nullptr;
  if (!disk().find(handle.object, 0, &view) || view.place.packed || !view.whole) return nullptr;
  if (view.size != handle.object_bytes || disk().stacked(view.place.disk)) return nullptr;
  // Of a file that was not opened since the start it is not known yet whether its marks hold: the job finds out.
  if (view.confirmed && !view.whole_verified) {
    disk().verify_soon(handle.object);
    return nullptr;
  }
  Arming* arming = armings_.try_acquire();
  if (arming == nullptr) return nullptr;
  arming->server = this;
  arming->request = &request;
  arming->done = false;
  request.event.reset();
  request.cancel_wait = [](Request& waiting) { waiting.event.set(); };
  reactor().arm(arming->patience, patience_ns);
  arming->open.id = handle.object;
  arming->open.open_backing = &fuse::open_backing;
  arming->open.connection_fd = volume().session.fd();
  arming->open.file = nullptr;
  arming->open.backing_id = -1;
  arming->open.on_done = &VolumeServer::on_armed;
  post_job(arming->open, view.place.disk);
  return arming;
}

void VolumeServer::on_armed(DiskJob& job) {
  Arming& arming = *static_cast<Arming::Open&>(job).arming;
  VolumeServer& self = *arming.server;
  arming.done = true;
  if (arming.request != nullptr) {
    self.note_tier(*arming.request, Tier::disk);
    arming.request->event.set();
  } else {
    self.dispose(arming);
  }
  self.end_job();
}

// After the wait; sets choice when the open may pass through.
void VolumeServer::end_arming(Request& request, Arming& arming, const Handle& handle, OpenChoice& choice) {
  request.cancel_wait = nullptr;
  if (arming.patience.armed()) reactor().cancel(arming.patience);
  arming.request = nullptr;
  if (!arming.done) return;  // on_armed disposes of it
  if (arming.open.failed || arming.open.backing_id <= 0) {
    note_refusal(arming, handle);
    return dispose(arming);
  }
  const int32_t backing_id = arming.open.backing_id;
  int32_t in_force = 0;
  const bool passes = volume().inodes.open_passthrough(handle.node, backing_id, &in_force);
  if (!passes || in_force != backing_id) dispose(arming);
  if (!passes) return;
  choice = {.mode = OpenMode::passthrough, .backing_id = in_force};
  if (in_force != backing_id) return;
  volume().backing_files.put(backing_id, *arming.open.file);
  arming.open.file = nullptr;
  armings_.release(arming);
}

// Why was a file not taken? Not verified after all: it will be. Verified: the kernel refused, and will again.
void VolumeServer::note_refusal(const Arming& arming, const Handle& handle) {
  DiskView view;
  if (arming.open.failed || !disk().find(handle.object, 0, &view) || !view.whole) return;
  if (!view.whole_verified) return disk().verify_soon(handle.object);
  if (volume().passthrough_refused.exchange(true, std::memory_order_relaxed)) return;
  BC_LOG(warn,
         "{}: the kernel takes no backing file (errno {}), so files are read through the page cache and this process; "
         "passthrough needs CAP_SYS_ADMIN and a cache directory that lies on no stacked filesystem",
         volume().config.name, -arming.open.backing_id);
}

// Gives back what the job brought. Done, and nobody waits.
void VolumeServer::dispose(Arming& arming) {
  DiskFile* file = arming.open.file;
  arming.open.file = nullptr;
  if (file != nullptr && arming.open.backing_id > 0) {
    arming.disarm.file = file;
    arming.disarm.close_backing = &fuse::close_backing;
    arming.disarm.connection_fd = arming.open.connection_fd;
    arming.disarm.backing_id = arming.open.backing_id;
    arming.disarm.on_done = &VolumeServer::on_arming_undone;
    return post_job(arming.disarm, file->disk);
  }
  if (file != nullptr) disk().release(*file);
  armings_.release(arming);
}

void VolumeServer::on_arming_undone(DiskJob& job) {
  Arming& arming = *static_cast<Arming::Disarm&>(job).arming;
  VolumeServer& self = *arming.server;
  self.armings_.release(arming);
  self.end_job();
}

void VolumeServer::dispose(Pending<OpenCall>& call) {
  if (call.fd >= 0) volume().origin->close(reactor(), call.fd);
  call.fd = -1;
  opens_.release(call);
}

void VolumeServer::release(Request& request) {
  Handle* handle = volume().handles.get(request.slot->argument<fuse_release_in>().fh);
  if (handle != nullptr && prefetcher_ != nullptr) prefetcher_->on_release(*handle);
  if (handle != nullptr) close_mode(*handle);
  reply(request, 0);
  if (handle != nullptr) release_handle(*handle);
  if (prefetcher_ != nullptr) prefetcher_->pump();
}

// The kernel has ended its own count of the open before it sends RELEASE.
void VolumeServer::close_mode(Handle& handle) {
  const OpenMode mode = handle.mode;
  handle.mode = OpenMode::untold;
  if (mode == OpenMode::cached) return volume().inodes.close_cached(handle.node);
  if (mode != OpenMode::passthrough) return;
  const int32_t backing_id = volume().inodes.close_passthrough(handle.node);
  if (backing_id == 0) return;
  Handle::Disarm& job = handle.disarm;
  job.server = this;
  job.handle = &handle;
  job.file = &volume().backing_files.take(backing_id);
  job.close_backing = &fuse::close_backing;
  job.connection_fd = volume().session.fd();
  job.backing_id = backing_id;
  job.on_done = &VolumeServer::on_disarmed;
  volume().handles.reference(handle);
  post_job(job, job.file->disk);
}

void VolumeServer::on_disarmed(DiskJob& job) {
  auto& disarm = static_cast<Handle::Disarm&>(job);
  VolumeServer& self = *disarm.server;
  self.release_handle(*disarm.handle);
  self.end_job();
}

}  // namespace blobcache::serve
