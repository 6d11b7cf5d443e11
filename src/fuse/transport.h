// Transport: how requests come from the kernel and replies go back, on one core. Two of them: FUSE over io_uring (uring),
// and /dev/fuse read and written through the same ring (dev).
//   Owner     a core, one per volume
//   Thread    the core's
//   Lifetime  start() ... on_closed(): the connection ended and no CQE is owed
//   Requests  arrive at the handler with state serving; it calls exactly one of reply, reply_error, no_reply, now or later;
//             or reply_linked, which may break and then leaves the request to be answered by one of the others
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "fuse/slot.h"
#include "ring/reactor.h"

namespace blobcache::fuse {

class RequestHandler {
 public:
  virtual void on_request(Slot& slot) = 0;
  // What the reply was linked to failed, so it was not sent: the slot is serving the same request again.
  virtual void on_reply_broken(Slot& slot) = 0;
  // The connection is gone and every slot is closed.
  virtual void on_closed() = 0;

 protected:
  ~RequestHandler() = default;
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual void start() = 0;
  // Answers with the first payload_bytes of the slot's payload.
  virtual void reply(Slot& slot, uint32_t payload_bytes) = 0;
  // Whether a reply can be linked to the SQE before it.
  virtual bool can_link() const = 0;
  // The same reply, sent when the SQE before it has succeeded in full. The caller has reserved two SQEs and prepared that one
  // with link_next; nothing else was prepared since. Payload and header are the kernel's from now on.
  virtual void reply_linked(Slot& slot, uint32_t payload_bytes) = 0;
  // os_errno > 0.
  virtual void reply_error(Slot& slot, int os_errno) = 0;
  // For what the kernel expects no answer to (FORGET, INTERRUPT).
  virtual void no_reply(Slot& slot) = 0;
  // The slot that serves request `unique`, or null. For INTERRUPT; looks at every slot.
  virtual Slot* find_serving(uint64_t unique) = 0;
};

struct TransportOptions {
  Reactor* reactor = nullptr;
  RequestHandler* handler = nullptr;
  unsigned device_file = 0;  // place of the /dev/fuse descriptor in the ring's table of registered files
  unsigned first_slot = 0;   // number of the first slot
};

// What one slot is made of; entries.h hands them out.
struct SlotMemory {
  abi::UringHeader* header = nullptr;
  std::byte* payload = nullptr;
  uint32_t payload_bytes = 0;
  uint16_t queue = 0;
  uint16_t buffer_index = no_buffer;
};

inline void attach(Slot& slot, Transport& transport, const SlotMemory& memory, uint32_t number) {
  slot.transport = &transport;
  slot.header = memory.header;
  slot.payload = memory.payload;
  slot.payload_bytes = memory.payload_bytes;
  slot.queue = memory.queue;
  slot.buffer_index = memory.buffer_index;
  slot.number = number;
}

// memory: the entries of the queues that this core owns.
std::unique_ptr<Transport> create_uring_transport(const TransportOptions& options, std::span<const SlotMemory> memory);
// memory: as many requests as may be in flight on this core.
std::unique_ptr<Transport> create_dev_transport(const TransportOptions& options, std::span<const SlotMemory> memory);

}  // namespace blobcache::fuse
