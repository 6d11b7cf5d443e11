// FUSE over io_uring: each slot is an entry of one of the kernel's per-CPU queues. One command per slot is always either
// with the kernel (REGISTER or COMMIT_AND_FETCH, whose CQE is the next request) or being served here.
//
//   REGISTER --CQE 0--> serving --COMMIT_AND_FETCH--> (kernel) --CQE 0--> serving ...
//        CQE -ENOTCONN, -ECONNABORTED, -ECANCELED: the connection ended, the slot is closed
//        CQE -EAGAIN, -EINTR: the same command again
//        CQE -ENOENT on a commit: the kernel no longer knows the request (it was aborted), the entry is registered anew
//        CQE -ECANCELED on a linked commit: what it was linked to failed, so the commit was never tried and the request is
//        still ours. If it is the connection that ended, the explicit commit that follows says so.
//
// The header and payload stay where they are for the life of the connection; a successor process finds unanswered
// requests there (docs/KERNEL.md).
#include <cerrno>
#include <cstring>
#include <memory>

#include "base/log.h"
#include "fuse/transport.h"
#include "ring/sqe.h"

namespace blobcache::fuse {
namespace {

class UringTransport final : public Transport {
 public:
  UringTransport(const TransportOptions& options, std::span<const SlotMemory> memory)
      : options_(options),
        slots_(std::make_unique<Slot[]>(memory.size())),
        iovecs_(std::make_unique<iovec[]>(memory.size() * 2)),
        heads_(std::make_unique<uint64_t[]>(memory.size())),
        count_(static_cast<uint32_t>(memory.size())) {
    for (uint32_t i = 0; i < count_; ++i) {
      Slot& slot = slots_[i];
      slot.handler = &UringTransport::on_cqe;
      attach(slot, *this, memory[i], options_.first_slot + i);
      iovecs_[2 * i] = {slot.header, limits::page_bytes};
      iovecs_[2 * i + 1] = {slot.payload, slot.payload_bytes};
    }
  }

  void start() override {
    open_slots_ = count_;
    for (uint32_t i = 0; i < count_; ++i) register_slot(slots_[i]);
  }

  void reply(Slot& slot, uint32_t payload_bytes) override {
    BC_ASSERT(payload_bytes <= slot.payload_bytes);
    commit(slot, 0, payload_bytes);
  }

  bool can_link() const override { return true; }

  void reply_linked(Slot& slot, uint32_t payload_bytes) override {
    BC_ASSERT(payload_bytes <= slot.payload_bytes);
    // The reply's header lies over the request's; what a broken chain has to put back are these 8 bytes, and the number,
    // which is the same in both.
    heads_[&slot - slots_.get()] = head_of(slot);
    commit(slot, 0, payload_bytes);
    slot.linked = true;
  }

  void reply_error(Slot& slot, int os_errno) override {
    BC_ASSERT(os_errno > 0);
    commit(slot, -os_errno, 0);
  }

  // Every request of this transport wants an answer; FORGET and INTERRUPT come by /dev/fuse.
  void no_reply(Slot& slot) override { commit(slot, 0, 0); }

  Slot* find_serving(uint64_t unique) override {
    for (uint32_t i = 0; i < count_; ++i) {
      if (slots_[i].state == SlotState::serving && slots_[i].unique == unique) return &slots_[i];
    }
    return nullptr;
  }

 private:
  static UringTransport& of(Slot& slot) { return *static_cast<UringTransport*>(slot.transport); }

  static uint64_t head_of(const Slot& slot) {
    uint64_t head = 0;
    std::memcpy(&head, slot.header->in_out, sizeof head);
    return head;
  }

  abi::UringCommand& prepare_command(Slot& slot, uint32_t command, iovec* iovecs) {
    Sqe& sqe = options_.reactor->prepare(slot);
    void* area = prep_uring_cmd(sqe, FileRef::fixed(options_.device_file), command);
    if (iovecs != nullptr) {
      sqe.addr = reinterpret_cast<uint64_t>(iovecs);
      sqe.len = 2;
    }
    return *new (area) abi::UringCommand{.flags = 0, .commit_id = 0, .queue = slot.queue, .padding = {}};
  }

  void register_slot(Slot& slot) {
    slot.state = SlotState::fetching;
    prepare_command(slot, abi::uring_cmd_register, &iovecs_[2 * (&slot - slots_.get())]);
  }

  void commit(Slot& slot, int error, uint32_t payload_bytes) {
    BC_ASSERT(slot.state == SlotState::serving);
    slot.state = SlotState::replying;
    new (slot.header->in_out) fuse_out_header{
        .len = static_cast<uint32_t>(sizeof(fuse_out_header)) + payload_bytes, .error = error, .unique = slot.unique};
    slot.header->entry.payload_bytes = payload_bytes;
    send_commit(slot);
  }

  void send_commit(Slot& slot) {
    prepare_command(slot, abi::uring_cmd_commit_and_fetch, nullptr).commit_id = slot.commit_id;
  }

  static void on_cqe(Op& op, int32_t result, uint32_t) {
    Slot& slot = static_cast<Slot&>(op);
    UringTransport& self = of(slot);
    // One command is with the kernel, and it has not been answered before.
    BC_ASSERT(slot.state == SlotState::replying || slot.state == SlotState::fetching);
    const bool linked = slot.linked;
    slot.linked = false;
    if (result == 0) [[likely]] {
      slot.state = SlotState::serving;
      slot.unique = slot.in().unique;
      slot.commit_id = slot.header->entry.commit_id;
      slot.body = slot.payload;
      slot.body_bytes = slot.header->entry.payload_bytes;
      self.options_.handler->on_request(slot);
      return;
    }
    if (linked && result == -ECANCELED) return self.on_broken_chain(slot);
    self.on_failed_command(slot, result);
  }

  void on_broken_chain(Slot& slot) {
    std::memcpy(slot.header->in_out, &heads_[&slot - slots_.get()], sizeof(uint64_t));
    slot.state = SlotState::serving;
    options_.handler->on_reply_broken(slot);
  }

  void on_failed_command(Slot& slot, int32_t result) {
    if (result == -EAGAIN || result == -EINTR) {
      if (slot.state == SlotState::fetching) {
        register_slot(slot);
      } else {
        send_commit(slot);
      }
      return;
    }
    if (result == -ENOENT && slot.state == SlotState::replying) {
      register_slot(slot);
      return;
    }
    if (result != -ENOTCONN && result != -ECONNABORTED && result != -ECANCELED && result != -ENODEV) {
      BC_LOG(error, "fuse: queue {} refused a command with errno {}; this entry is lost until the next mount",
             slot.queue, -result);
    }
    slot.state = SlotState::closed;
    BC_ASSERT(open_slots_ > 0);
    if (--open_slots_ == 0) options_.handler->on_closed();
  }

  const TransportOptions options_;
  std::unique_ptr<Slot[]> slots_;
  std::unique_ptr<iovec[]> iovecs_;
  std::unique_ptr<uint64_t[]> heads_;  // of the requests whose replies are linked
  uint32_t count_;
  uint32_t open_slots_ = 0;
};

}  // namespace

std::unique_ptr<Transport> create_uring_transport(const TransportOptions& options, std::span<const SlotMemory> memory) {
  return std::make_unique<UringTransport>(options, memory);
}

}  // namespace blobcache::fuse
