// /dev/fuse through the ring. While readers wait for each answer, one READ in flight per core is best: every waiter wakes
// for every request (85-89 K reads/s against 51-82 K with 8 in flight; docs/KERNEL.md). When requests queue up, several
// READs end in one turn and one io_uring_enter serves them all. So the depth follows what is seen: every depth_probe_turns
// some READs more are tried; turns in which all of them end double the depth, and depth_poor_turns in which only one does
// take it back to one.
//
// A request that is answered in the turn it came in is a WRITEV linked to the next READ into the same slot; one that has to
// wait leaves the READ to another slot, and when all slots are taken nothing is read: the backpressure.
//
//   listening --CQE n--> serving --WRITEV~READ--> listening ...          (answered at once)
//                           '--waits; another slot listens; WRITEV--> free
//
// The request is laid out as the uring transport has it: headers copied to the header page (at most 168 bytes), the body
// stays in the payload. The reply's WRITEV gathers the out header from the header page and the body from the payload.
//
// A reply is not linked to a disk read in front of it: a READ, WRITEV and the next READ would be a chain of three, each step
// of which waits for the one before, and the disk read's CQE is owed to the cache in any case.
//
// Replies by splice were tried and rejected (bench/ram_server.cc, --transport=splice): 3.0-4.0 GiB/s against 3.0-3.2 by
// writev for 512 KiB, 138-156 K/s against 142-149 K/s for 4 KiB, and a pipe and one operation more for each reply. The
// kernel copies out of the pipe all the same, because memory that we go on using cannot be given away.
#include <cerrno>
#include <cstring>
#include <memory>

#include "base/limits.h"
#include "base/log.h"
#include "fuse/transport.h"
#include "ring/sqe.h"

namespace blobcache::fuse {
namespace {

constexpr uint32_t depth_max = 8;
constexpr uint32_t depth_probe = 4;
constexpr uint64_t depth_probe_turns = 64;
constexpr uint32_t depth_poor_turns = 6;

// Bytes of the operation's own header before the body; 0 for those that are all body.
uint32_t argument_bytes(uint32_t opcode) {
  switch (opcode) {
    case FUSE_FORGET: return sizeof(fuse_forget_in);
    case FUSE_BATCH_FORGET: return sizeof(fuse_batch_forget_in);
    case FUSE_GETATTR: return sizeof(fuse_getattr_in);
    case FUSE_OPEN:
    case FUSE_OPENDIR: return sizeof(fuse_open_in);
    case FUSE_READ:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS: return sizeof(fuse_read_in);
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR: return sizeof(fuse_release_in);
    case FUSE_FLUSH: return sizeof(fuse_flush_in);
    case FUSE_GETXATTR:
    case FUSE_LISTXATTR: return sizeof(fuse_getxattr_in);
    case FUSE_INTERRUPT: return sizeof(fuse_interrupt_in);
    case FUSE_LSEEK: return sizeof(fuse_lseek_in);
    case FUSE_ACCESS: return sizeof(fuse_access_in);
    case abi::op_statx: return sizeof(abi::StatxIn);
    default: return 0;
  }
}

struct DevSlot : Slot {
  // The reply's own Op: the slot's Op is the READ, and both may owe a CQE at once.
  struct Reply : Op {
    DevSlot* slot = nullptr;
  } reply;
  iovec iovecs[2];
  bool relisten = false;  // a READ into this slot is linked behind the reply
  DevSlot* next_free = nullptr;
};

class DevTransport final : public Transport {
 public:
  DevTransport(const TransportOptions& options, std::span<const SlotMemory> memory)
      : options_(options),
        slots_(std::make_unique<DevSlot[]>(memory.size())),
        count_(static_cast<uint32_t>(memory.size())) {
    for (uint32_t i = 0; i < count_; ++i) {
      DevSlot& slot = slots_[i];
      slot.handler = &DevTransport::on_read;
      attach(slot, *this, memory[i], options_.first_slot + i);
      slot.reply.handler = &DevTransport::on_reply;
      slot.reply.slot = &slot;
      BC_ASSERT(slot.payload_bytes >= abi::read_buffer_bytes_min);
      give_back(slot);
    }
  }

  void start() override { listen(); }

  void reply(Slot& slot, uint32_t payload_bytes) override { write_reply(down(slot), 0, payload_bytes); }

  bool can_link() const override { return false; }
  void reply_linked(Slot&, uint32_t) override { BC_ASSERT(can_link()); }

  void reply_error(Slot& slot, int os_errno) override {
    BC_ASSERT(os_errno > 0);
    write_reply(down(slot), -os_errno, 0);
  }

  void no_reply(Slot& slot) override {
    BC_ASSERT(slot.state == SlotState::serving);
    give_back(down(slot));
    listen();
  }

  Slot* find_serving(uint64_t unique) override {
    for (uint32_t i = 0; i < count_; ++i) {
      if (slots_[i].state == SlotState::serving && slots_[i].unique == unique) return &slots_[i];
    }
    return nullptr;
  }

 private:
  static DevSlot& down(Slot& slot) { return static_cast<DevSlot&>(slot); }
  static DevTransport& of(Slot& slot) { return *static_cast<DevTransport*>(slot.transport); }

  void give_back(DevSlot& slot) {
    slot.state = SlotState::closed;
    slot.next_free = free_;
    free_ = &slot;
  }

  void prepare_read(DevSlot& slot) {
    slot.state = SlotState::fetching;
    prep_read(options_.reactor->prepare(slot), FileRef::fixed(options_.device_file), slot.payload,
              {.offset = 0, .bytes = slot.payload_bytes});
    ++reads_armed_;
  }

  bool wants_read() const { return reads_armed_ < depth_ && !closing_; }

  void listen() {
    while (wants_read() && free_ != nullptr) {
      DevSlot& slot = *free_;
      free_ = slot.next_free;
      prepare_read(slot);
    }
  }

  // Once a turn, at its first request: what did the turn before say about the queue?
  void adapt_depth() {
    const uint64_t turn = options_.reactor->counters().turns;
    if (turn == turn_) {
      ++reads_in_turn_;
      return;
    }
    if (depth_ == 1) {
      if (turn >= turn_of_probe_ + depth_probe_turns) {
        depth_ = depth_probe;
        poor_turns_ = 0;
        turn_of_probe_ = turn;
      }
    } else if (reads_in_turn_ >= depth_) {
      depth_ = depth_ * 2 < depth_max ? depth_ * 2 : depth_max;
      poor_turns_ = 0;
    } else if (reads_in_turn_ > 1) {
      poor_turns_ = 0;
    } else if (++poor_turns_ == depth_poor_turns) {
      depth_ = 1;
      turn_of_probe_ = turn;
    }
    turn_ = turn;
    reads_in_turn_ = 1;
  }

  void write_reply(DevSlot& slot, int error, uint32_t payload_bytes) {
    BC_ASSERT(slot.state == SlotState::serving && payload_bytes <= slot.payload_bytes);
    slot.state = SlotState::replying;
    new (slot.header->in_out) fuse_out_header{
        .len = static_cast<uint32_t>(sizeof(fuse_out_header)) + payload_bytes, .error = error, .unique = slot.unique};
    slot.iovecs[0] = {slot.header->in_out, sizeof(fuse_out_header)};
    slot.iovecs[1] = {slot.payload, payload_bytes};
    slot.relisten = wants_read();
    if (slot.relisten) {
      // The READ's CQE says that the reply is out. A reply that fails cancels the READ without a CQE of its own.
      options_.reactor->reserve(2);
      Sqe& sqe = options_.reactor->prepare_silent(slot.reply);
      prep_reply(sqe, slot, payload_bytes);
      link_next(sqe);
      prepare_read(slot);
      return;
    }
    ++replies_owed_;
    prep_reply(options_.reactor->prepare(slot.reply), slot, payload_bytes);
  }

  void prep_reply(Sqe& sqe, DevSlot& slot, uint32_t payload_bytes) {
    prep_writev(sqe, FileRef::fixed(options_.device_file), {slot.iovecs, payload_bytes > 0 ? size_t{2} : size_t{1}}, 0);
  }

  static void on_reply(Op& op, int32_t result, uint32_t) {
    DevSlot& slot = *static_cast<DevSlot::Reply&>(op).slot;
    DevTransport& self = of(slot);
    // -ENOENT: the request was aborted meanwhile; nobody waits for the answer.
    if (result < 0 && result != -ENOENT && result != -ENODEV && result != -ECANCELED) {
      BC_LOG(error, "fuse: a reply was refused with errno {}", -result);
    }
    if (slot.relisten) {
      self.options_.reactor->forgive(slot);
      --self.reads_armed_;
    } else {
      --self.replies_owed_;
    }
    self.give_back(slot);
    self.listen();
    self.close_if_idle();
  }

  static void on_read(Op& op, int32_t result, uint32_t) {
    DevSlot& slot = down(static_cast<Slot&>(op));
    DevTransport& self = of(slot);
    --self.reads_armed_;
    if (result > 0) [[likely]] {
      self.adapt_depth();
      self.on_request(slot, static_cast<uint32_t>(result));
      self.listen();
      return;
    }
    self.give_back(slot);
    // -ENOENT: the request was taken back while we read it.
    if (result == -EAGAIN || result == -EINTR || result == -ENOENT) {
      self.listen();
      return;
    }
    if (result != -ENODEV && result != -ECONNABORTED && result != 0) {
      BC_LOG(error, "fuse: reading requests failed with errno {}", -result);
    }
    self.closing_ = true;
    self.close_if_idle();
  }

  void on_request(DevSlot& slot, uint32_t bytes) {
    BC_ASSERT(bytes >= sizeof(fuse_in_header));
    std::memcpy(slot.header->in_out, slot.payload, sizeof(fuse_in_header));
    const uint32_t header_bytes = argument_bytes(slot.in().opcode);
    const uint32_t body_offset = static_cast<uint32_t>(sizeof(fuse_in_header)) + header_bytes;
    slot.state = SlotState::serving;
    slot.unique = slot.in().unique;
    if (bytes < body_offset || slot.in().len != bytes) {
      BC_LOG(error, "fuse: a request of opcode {} has {} bytes, which is not what this protocol says", slot.in().opcode,
             bytes);
      reply_error(slot, EIO);
      return;
    }
    std::memcpy(slot.header->op_in, slot.payload + sizeof(fuse_in_header), header_bytes);
    slot.body = slot.payload + body_offset;
    slot.body_bytes = bytes - body_offset;
    options_.handler->on_request(slot);
  }

  void close_if_idle() {
    if (!closing_ || closed_ || replies_owed_ > 0 || reads_armed_ > 0) return;
    closed_ = true;
    options_.handler->on_closed();
  }

  const TransportOptions options_;
  std::unique_ptr<DevSlot[]> slots_;
  uint32_t count_;
  DevSlot* free_ = nullptr;
  uint32_t replies_owed_ = 0;
  uint32_t reads_armed_ = 0;
  uint32_t depth_ = 1;  // READs to keep in flight
  uint32_t reads_in_turn_ = 0;
  uint32_t poor_turns_ = 0;
  uint64_t turn_ = 0;
  uint64_t turn_of_probe_ = 0;
  bool closing_ = false;
  bool closed_ = false;
};

}  // namespace

std::unique_ptr<Transport> create_dev_transport(const TransportOptions& options, std::span<const SlotMemory> memory) {
  return std::make_unique<DevTransport>(options, memory);
}

}  // namespace blobcache::fuse
