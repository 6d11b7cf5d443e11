// A lookup that finds the table of nodes full waits for the pruner (node/pruner.h) instead of failing: the kernel is being
// asked to forget, and its FORGETs come through the same transport as the lookup did. On /dev/fuse they need a slot to be
// read into, so the last slots of a core do not wait. ENFILE after a second means that all nodes are in use.
#include "serve/volume_server.h"

namespace blobcache::serve {
namespace {

constexpr uint64_t node_wait_ns = 1'000'000'000;
constexpr unsigned slots_kept_free = 2;

}  // namespace

Task VolumeServer::acquire_when_room(TaskStack&, Request& request, const std::string& key, const FileInfo& info,
                                     Result<fuse::NodeId>& id_out) {
  VolumeServer& server = *request.server;
  const uint64_t until_ns = server.now_ns() + node_wait_ns;
  ++server.lookups_waiting_;
  while (!id_out && id_out.error().code == Code::full && !request.given_up() && server.now_ns() < until_ns) {
    if (server.lookups_waiting_ + slots_kept_free > server.options_.slots) break;
    request.event.reset();
    server.wait_for_room(request);
    co_await request.event;
    request.cancel_wait = nullptr;
    id_out = server.volume().inodes.acquire(key, info, server.now_ns());
  }
  --server.lookups_waiting_;
}

}  // namespace blobcache::serve
