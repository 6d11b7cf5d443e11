// Slot: one FUSE request in flight and the memory that the kernel and we share for it.
//   Owner     a Transport; fixed in number (queue depth is the backpressure)
//   Thread    its core
//   States    fetching --request--> serving --reply()--> replying --CQE--> fetching ...   (closed: the connection ended)
//             serving --reply_linked()--> replying --its chain broke--> serving (the request still wants an answer)
//   Layout    the same for both transports: header page (in/out header, the operation's header), payload. `body` is what
//             followed the operation's header (names), and lies in the payload: read it before the reply is written there.
//   Invariant exactly one reply reaches the kernel per request; nothing of the request is read after reply()
#pragma once

#include <cstdint>
#include <new>
#include <string_view>

#include "base/assert.h"
#include "fuse/abi.h"
#include "ring/op.h"

namespace blobcache::fuse {

class Transport;

// The payload lies in no registered buffer.
inline constexpr uint16_t no_buffer = 0xffff;

enum class SlotState : uint8_t { closed, fetching, serving, replying };

struct Slot : Op {
  Transport* transport = nullptr;
  abi::UringHeader* header = nullptr;
  std::byte* payload = nullptr;
  uint32_t payload_bytes = 0;
  uint32_t number = 0;  // among all slots of this core
  uint16_t queue = 0;
  uint16_t buffer_index = no_buffer;  // registered buffer that the payload lies in
  SlotState state = SlotState::closed;
  bool linked = false;  // replying behind another SQE, which may fail
  const std::byte* body = nullptr;
  uint32_t body_bytes = 0;
  // Copied from the header when the request arrived: the reply overwrites it there.
  uint64_t unique = 0;
  uint64_t commit_id = 0;

  const fuse_in_header& in() const { return *reinterpret_cast<const fuse_in_header*>(header->in_out); }
  // The operation's own header, as T.
  template <class T>
  const T& argument() const {
    static_assert(sizeof(T) <= sizeof header->op_in);
    return *reinterpret_cast<const T*>(header->op_in);
  }
  // The name that the body holds, without its NUL; empty when there is none.
  std::string_view name() const {
    const auto* text = reinterpret_cast<const char*>(body);
    uint32_t length = 0;
    while (length < body_bytes && text[length] != '\0') ++length;
    return {text, length};
  }
  // Where the reply's body is written.
  template <class T>
  T& reply_as() {
    BC_ASSERT(state == SlotState::serving && sizeof(T) <= payload_bytes);
    return *new (payload) T{};
  }
};

}  // namespace blobcache::fuse
