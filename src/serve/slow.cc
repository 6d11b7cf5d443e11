// The line about a slow request, with the time spent in each tier.
//
// What is answered from memory in its first turn has no trail: it cannot be slow, and costs nothing here. Everything else
// notes when it began, when it had room, and when the last of its bytes came from each tier, all counted from its beginning:
// tiers work side by side, so the times overlap, and the largest is the one that the reader waited for. A reader whose bytes
// another reader's load brings did not see them come; he is told the whole time for the tier that they came from.
//
// Times are the reactor's, taken once a turn: good to the length of a turn.
#include <cerrno>

#include <fmt/format.h>

#include "base/log.h"
#include "base/units.h"
#include "serve/operation.h"
#include "serve/volume_server.h"

namespace blobcache::serve {
namespace {

uint64_t ms(uint64_t ns) { return ns / 1'000'000; }

}  // namespace

std::string_view operation_name(uint32_t opcode) {
  switch (opcode) {
    case FUSE_LOOKUP: return "lookup";
    case FUSE_GETATTR: return "getattr";
    case abi::op_statx: return "statx";
    case FUSE_READLINK: return "readlink";
    case FUSE_OPEN: return "open";
    case FUSE_READ: return "read";
    case FUSE_STATFS: return "statfs";
    case FUSE_OPENDIR: return "opendir";
    case FUSE_READDIR: return "readdir";
    case FUSE_READDIRPLUS: return "readdirplus";
    default: return "operation";
  }
}

// Once a request: what falls from a disk hit into read_miss goes on with the trail that it has.
void VolumeServer::begin_trail(Request& request, ReadRange range) {
  const fuse::Slot& slot = *request.slot;
  if (request.trail.id == slot.unique) return;
  request.trail = {
      .id = slot.unique, .node = slot.in().nodeid, .opcode = slot.in().opcode, .range = range, .begun_ns = now_ns()};
  request.plan.sources = 0;
}

void VolumeServer::note_tier(Request& request, Tier tier) {
  request.trail.tier_ns[static_cast<unsigned>(tier)] = now_ns() - request.trail.begun_ns;
}

void VolumeServer::note_tier(const Load& load, Tier tier) {
  if (load.request != nullptr && load.request->trail.id == load.request_id) note_tier(*load.request, tier);
}

void VolumeServer::end_trail(Request& request) {
  const uint64_t total_ns = now_ns() - request.trail.begun_ns;
  if (total_ns >= volume().live.slow_request_ns) [[unlikely]]
    tell_slow(request, total_ns);
}

// After the reply: of the request only its trail is left.
void VolumeServer::tell_slow(Request& request, uint64_t total_ns) {
  const Request::Trail& trail = request.trail;
  const auto tier_ms = [&](Tier tier) {
    const auto number = static_cast<unsigned>(tier);
    const bool joined = trail.opcode == FUSE_READ && (request.plan.sources >> number & 1) != 0;
    return ms(joined && trail.tier_ns[number] == 0 ? total_ns : trail.tier_ns[number]);
  };
  const log::Field fields[] = {
      log::request_field(trail.id),
      {.name = trail.opcode == FUSE_READ ? "offset" : "", .value = trail.range.offset},
      {.name = trail.opcode == FUSE_READ ? "bytes" : "", .value = trail.range.bytes},
      {.name = "total_ms", .value = ms(total_ns)},
      {.name = "room_ms", .value = ms(trail.room_ns)},
      {.name = "disk_ms", .value = tier_ms(Tier::disk)},
      {.name = "peer_ms", .value = tier_ms(Tier::peer)},
      {.name = "origin_ms", .value = tier_ms(Tier::origin)},
  };
  fuse::Node node;
  const bool known = volume().inodes.get(trail.node, node);
  BC_LOG_WITH(warn, fields, "{}: slow {}{} '{}'", volume().config.name, operation_name(trail.opcode),
              trail.opcode == FUSE_LOOKUP ? " in" : " of", known ? node.key : "?");
  volume().slow_requests.add({.file = std::string(known ? node.key : "?"),
                              .operation = operation_name(trail.opcode),
                              .ended_ns = now_ns(),
                              .total_ms = ms(total_ns),
                              .disk_ms = tier_ms(Tier::disk),
                              .peer_ms = tier_ms(Tier::peer),
                              .origin_ms = tier_ms(Tier::origin)});
}

}  // namespace blobcache::serve
