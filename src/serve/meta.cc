// Names and attributes. File nodes are versions: what the kernel knows of one never changes, so GETATTR of a file is
// answered from the table; a directory is asked for again once its attributes are older than attr_timeout.
#include <cerrno>

#include <sys/stat.h>

#include "base/limits.h"
#include "fuse/reply.h"
#include "serve/calls.h"

namespace blobcache::serve {
namespace {

// parent + "/" + name, or just name under the root. Errors: invalid with ENAMETOOLONG.
Result<std::string> child_key(const std::string& parent, std::string_view name) {
  if (name.empty() || name.size() > limits::name_bytes_max || name.find('/') != std::string_view::npos) {
    return fail(Code::invalid, ENAMETOOLONG);
  }
  if (parent.size() + 1 + name.size() >= limits::path_bytes_max) return fail(Code::invalid, ENAMETOOLONG);
  std::string key;
  key.reserve(parent.size() + 1 + name.size());
  if (!parent.empty()) key.append(parent).push_back('/');
  key.append(name);
  return key;
}

void fill_entry(const LiveSettings& live, fuse::NodeId id, const FileInfo& info, fuse_entry_out& out) {
  const fuse::Timeout entry = fuse::timeout_of_ns(live.entry_timeout_ns);
  const fuse::Timeout attributes = fuse::timeout_of_ns(live.attr_timeout_ns);
  out.nodeid = id;
  out.entry_valid = entry.seconds;
  out.entry_valid_nsec = entry.nanoseconds;
  out.attr_valid = attributes.seconds;
  out.attr_valid_nsec = attributes.nanoseconds;
  fuse::fill_attributes(info.attributes, out.attr);
}

// "There is no such name", to be remembered for negative_timeout.
void fill_negative_entry(const LiveSettings& live, fuse_entry_out& out) {
  const fuse::Timeout negative = fuse::timeout_of_ns(live.negative_timeout_ns);
  out.entry_valid = negative.seconds;
  out.entry_valid_nsec = negative.nanoseconds;
}

}  // namespace

Task VolumeServer::lookup(TaskStack&, Request& request) {
  VolumeServer& server = *request.server;
  Volume& volume = server.volume();
  fuse::Node parent;
  Pending<LookupCall>* call = nullptr;
  if (!volume.inodes.get(request.slot->in().nodeid, parent)) {
    server.reply_error(request, ESTALE);
    co_return server.finish(request);
  }
  const Result<std::string> key = child_key(parent.key, request.slot->name());
  if (!key) {
    server.reply_error(request, key.error().os_errno);
    co_return server.finish(request);
  }
  call = server.take_call(server.lookups_, request);
  if (call == nullptr) {
    server.reply_failure(request, ErrorPlace::lookup, Error{Code::again}, *key);
    co_return server.finish(request);
  }
  call->key = *key;
  volume.origin->begin_lookup(server.reactor(), *call);
  co_await request.event;
  if (!call_ended(request, *call)) {
    server.reply_given_up(request, ErrorPlace::lookup, *key);
    co_return server.finish(request);
  }
  if (!call->failed) {
    Result<fuse::NodeId> id = volume.inodes.acquire(*key, call->info, server.now_ns());
    if (!id && id.error().code == Code::full) co_await acquire_when_room(request.stack, request, *key, call->info, id);
    if (id) {
      fill_entry(volume.live, *id, call->info, request.slot->reply_as<fuse_entry_out>());
      server.reply(request, sizeof(fuse_entry_out));
    } else {
      server.reply_failure(request, ErrorPlace::lookup, id.error(), *key);
    }
  } else if (call->error.code == Code::not_found && volume.live.negative_timeout_ns > 0) {
    fill_negative_entry(volume.live, request.slot->reply_as<fuse_entry_out>());
    server.reply(request, sizeof(fuse_entry_out));
  } else {
    server.reply_failure(request, ErrorPlace::lookup, call->error, *key);
  }
  server.put_call(server.lookups_, *call);
  server.finish(request);
}

void VolumeServer::reply_attributes(Request& request, const FileInfo& info) {
  const fuse::Timeout timeout = fuse::timeout_of_ns(volume().live.attr_timeout_ns);
  if (request.slot->in().opcode == abi::op_statx) {
    auto& out = request.slot->reply_as<abi::StatxOut>();
    out.attr_valid = timeout.seconds;
    out.attr_valid_nsec = timeout.nanoseconds;
    fuse::fill_statx(info.attributes, out.stat);
    return reply(request, sizeof out);
  }
  auto& out = request.slot->reply_as<fuse_attr_out>();
  out.attr_valid = timeout.seconds;
  out.attr_valid_nsec = timeout.nanoseconds;
  fuse::fill_attributes(info.attributes, out.attr);
  reply(request, sizeof out);
}

Task VolumeServer::get_attributes(TaskStack&, Request& request) {
  VolumeServer& server = *request.server;
  Volume& volume = server.volume();
  fuse::Node node;
  Pending<LookupCall>* call = nullptr;
  if (!volume.inodes.get(request.slot->in().nodeid, node)) {
    server.reply_error(request, ESTALE);
    co_return server.finish(request);
  }
  const bool fresh = server.now_ns() - node.attributes_at_ns < volume.live.attr_timeout_ns;
  if (!S_ISDIR(node.info.attributes.mode) || fresh) {
    server.reply_attributes(request, node.info);
    co_return server.finish(request);
  }
  call = server.take_call(server.lookups_, request);
  if (call == nullptr) {
    server.reply_failure(request, ErrorPlace::lookup, Error{Code::again}, node.key);
    co_return server.finish(request);
  }
  call->key = node.key;
  volume.origin->begin_lookup(server.reactor(), *call);
  co_await request.event;
  if (!call_ended(request, *call)) {
    server.reply_given_up(request, ErrorPlace::lookup, node.key);
    co_return server.finish(request);
  }
  if (call->failed) {
    server.reply_failure(request, ErrorPlace::lookup, call->error, node.key);
  } else if (!S_ISDIR(call->info.attributes.mode)) {
    server.reply_failure(request, ErrorPlace::lookup, Error{Code::stale}, node.key);
  } else {
    volume.inodes.update_directory(node.id, call->info, server.now_ns());
    server.reply_attributes(request, call->info);
  }
  server.put_call(server.lookups_, *call);
  server.finish(request);
}

Task VolumeServer::read_link(TaskStack&, Request& request) {
  VolumeServer& server = *request.server;
  Volume& volume = server.volume();
  fuse::Node node;
  Pending<ReadlinkCall>* call = nullptr;
  if (!volume.inodes.get(request.slot->in().nodeid, node)) {
    server.reply_error(request, ESTALE);
    co_return server.finish(request);
  }
  call = server.take_call(server.readlinks_, request);
  if (call == nullptr) {
    server.reply_failure(request, ErrorPlace::readlink, Error{Code::again}, node.key);
    co_return server.finish(request);
  }
  call->key = node.key;
  volume.origin->begin_readlink(server.reactor(), *call);
  co_await request.event;
  if (!call_ended(request, *call)) {
    server.reply_given_up(request, ErrorPlace::readlink, node.key);
    co_return server.finish(request);
  }
  if (call->failed || call->target.size() > request.slot->payload_bytes) {
    server.reply_failure(request, ErrorPlace::readlink, call->failed ? call->error : Error{Code::io}, node.key);
  } else {
    std::memcpy(request.slot->payload, call->target.data(), call->target.size());
    server.reply(request, static_cast<uint32_t>(call->target.size()));
  }
  server.put_call(server.readlinks_, *call);
  server.finish(request);
}

Task VolumeServer::statfs(TaskStack&, Request& request) {
  VolumeServer& server = *request.server;
  Pending<StatfsCall>* call = server.take_call(server.statfss_, request);
  if (call == nullptr) {
    server.reply_failure(request, ErrorPlace::statfs, Error{Code::again}, "");
    co_return server.finish(request);
  }
  server.volume().origin->begin_statfs(server.reactor(), *call);
  co_await request.event;
  if (!call_ended(request, *call)) {
    server.reply_given_up(request, ErrorPlace::statfs, "");
    co_return server.finish(request);
  }
  if (call->failed) {
    server.reply_failure(request, ErrorPlace::statfs, call->error, "");
  } else {
    auto& out = request.slot->reply_as<fuse_statfs_out>();
    out.st = {.blocks = call->blocks,
              .bfree = call->blocks_free,
              .bavail = call->blocks_available,
              .files = call->files,
              .ffree = call->files_free,
              .bsize = call->block_bytes,
              .namelen = call->name_bytes_max,
              .frsize = call->block_bytes,
              .padding = 0,
              .spare = {}};
    server.reply(request, sizeof out);
  }
  server.put_call(server.statfss_, *call);
  server.finish(request);
}

// Objects have no holes: data everywhere, one hole at the end.
void VolumeServer::seek(Request& request) {
  const auto& in = request.slot->argument<fuse_lseek_in>();
  Handle* handle = volume().handles.get(in.fh);
  if (handle == nullptr) return reply_error(request, EBADF);
  if (in.whence != SEEK_DATA && in.whence != SEEK_HOLE) return reply_error(request, EINVAL);
  if (in.offset >= handle->object_bytes) return reply_error(request, ENXIO);
  const uint64_t found = in.whence == SEEK_DATA ? in.offset : handle->object_bytes;
  request.slot->reply_as<fuse_lseek_out>().offset = found;
  reply(request, sizeof(fuse_lseek_out));
}

}  // namespace blobcache::serve
