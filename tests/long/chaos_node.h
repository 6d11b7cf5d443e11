// One core of the program without the kernel's side of FUSE: the real flows (serve/), tiers, writer and ring over a real
// cache directory. The transport hands in requests and keeps the replies; the origin tells every byte of every version.
//   Thread    one, beside the disk tier's own
//   Lifetime  open() -> requests -> close(); or the process is killed
#pragma once

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "base/epoch.h"
#include "cache/disk_tier.h"
#include "cache/disk_writer.h"
#include "long/chaos_world.h"
#include "ring/uring.h"
#include "serve/volume_server.h"

namespace blobcache::chaos {

inline constexpr uint32_t slots_max = 8;
inline constexpr uint32_t payload_bytes_max = 256 * limits::KiB;

struct FreeMemory {
  void operator()(std::byte* memory) const;
};
using Memory = std::unique_ptr<std::byte, FreeMemory>;

// Files "k0", "k1", ... in one folder, each with a current version that may be replaced. Answers take some turns; some fail
// or are of a young version, and what a failed or unfinished read leaves in memory is garbage.
class ChaosOrigin final : public Origin {
 public:
  ChaosOrigin(const World& world, Random random, unsigned first_version);

  void replace(unsigned key, unsigned version) { versions_[key] = version; }
  unsigned version(unsigned key) const { return versions_[key]; }
  FileInfo info_of(unsigned key) const;
  static FileInfo root_info();
  // Failures told so far: only a reader who saw this change may get an error.
  uint64_t failures() const { return failures_; }
  unsigned in_flight() const { return in_flight_; }

  std::string_view canonical_source() const override { return "chaos"; }
  void begin_lookup(Reactor& home, LookupCall& call) override;
  void begin_open(Reactor& home, OpenCall& call) override;
  void begin_read(Reactor& home, ReadCall& call) override;
  void begin_list(Reactor& home, ListCall& call) override;
  void begin_readlink(Reactor& home, ReadlinkCall& call) override;
  void begin_statfs(Reactor& home, StatfsCall& call) override;
  void close(Reactor&, int) override {}
  void stop() override {}
  bool join(unsigned) override { return true; }

 private:
  template <class Call>
  using Answer = void (ChaosOrigin::*)(Call& call);
  template <class Call>
  struct Answering;
  template <class Call>
  void answer_later(Reactor& home, Call& call, Answer<Call> answer);
  template <class Call>
  static void on_turn(Op& op, int32_t result, uint32_t flags);
  void answer_lookup(LookupCall& call);
  void answer_open(OpenCall& call);
  void answer_read(ReadCall& call);
  template <class Call>
  void refuse(Call& call) {
    call.finish_failed({Code::io, EIO});
  }
  // -1: no such file.
  int key_of(std::string_view name) const;
  bool fill_info(const std::string& key, FileInfo* info_out);

  const World& world_;
  Random random_;
  std::vector<unsigned> versions_;
  uint64_t failures_ = 0;
  unsigned in_flight_ = 0;
};

struct Reply {
  bool done = true;
  int os_errno = 0;
  uint32_t bytes = 0;
};

class ChaosTransport final : public fuse::Transport {
 public:
  ChaosTransport(Reactor& reactor, bool links, bool registered);

  struct RequestIn {
    uint32_t opcode = 0;
    uint64_t node = 0;
    const void* argument = nullptr;
    size_t argument_bytes = 0;
    std::string_view name;
  };
  // A slot that is free; -1: none.
  int free_slot() const;
  void begin(unsigned slot, const RequestIn& in);
  const Reply& reply_of(unsigned slot) const { return replies_[slot]; }
  const std::byte* payload(unsigned slot) const { return slots_[slot].payload; }
  uint64_t unique_of(unsigned slot) const { return slots_[slot].unique; }
  iovec memory() const { return {memory_.get(), memory_bytes}; }
  void set_handler(fuse::RequestHandler& handler) { handler_ = &handler; }

  void start() override {}
  void reply(fuse::Slot& slot, uint32_t payload_bytes) override { end(slot, {.bytes = payload_bytes}); }
  bool can_link() const override { return links_; }
  void reply_linked(fuse::Slot& slot, uint32_t payload_bytes) override;
  void reply_error(fuse::Slot& slot, int os_errno) override { end(slot, {.os_errno = os_errno}); }
  void no_reply(fuse::Slot& slot) override { end(slot, {}); }
  fuse::Slot* find_serving(uint64_t unique) override;

 private:
  static constexpr size_t slot_bytes = limits::page_bytes + payload_bytes_max;
  static constexpr size_t memory_bytes = slots_max * slot_bytes;
  void end(fuse::Slot& slot, Reply reply);
  static void on_linked(Op& op, int32_t result, uint32_t flags);

  Reactor& reactor_;
  const bool links_;
  Memory memory_;
  fuse::RequestHandler* handler_ = nullptr;
  fuse::Slot slots_[slots_max];
  Reply replies_[slots_max];
  uint32_t linked_bytes_[slots_max] = {};
  uint64_t next_unique_ = 1;
};

struct Node final : serve::InterruptRouter {
  Node(const World& world, const std::string& folder, Random random, unsigned first_version);

  // Empty, or why not.
  std::string open();
  // Ends in good order. Empty, or what was not given back.
  std::string close();
  void broadcast_interrupt(uint64_t unique) override { server->interrupt(unique, *transport); }
  static std::string disk_path(const std::string& folder, unsigned disk) { return folder + "/" + std::to_string(disk); }
  DiskTier& disk() { return *tier; }
  uint64_t disk_bytes() const { return server->counters().bytes[static_cast<unsigned>(serve::Tier::disk)].value(); }

  const World& world;
  const std::string folder;
  ChaosOrigin* origin;  // the volume's
  Epochs epochs;
  Memory arena;
  Memory staging;
  size_t staging_bytes = 0;
  std::unique_ptr<Reactor> reactor;
  std::unique_ptr<ChaosTransport> transport;
  std::unique_ptr<MemoryTier> memory;
  std::unique_ptr<DiskTier> tier;
  std::unique_ptr<DiskWriter> writer;
  std::unique_ptr<serve::Volume> volume;
  std::unique_ptr<serve::VolumeServer> server;
  bool idle = false;

 private:
  std::string open_disks();
  std::string open_memory();
};

}  // namespace blobcache::chaos
