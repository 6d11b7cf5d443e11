// PosixOrigin: the class behind create_posix_origin (origin/posix.h has the contract). Private to posix*.cc.
//   Thread    begin_* and close: any core. root_fd_, root_dev_ and the options never change after the constructor.
//   Bandwidth reads wait for origin.bandwidth on their core; stop() lifts the limit, so that who waits is told within 200 ms
//   Lists     two calls may hold one directory descriptor, whose position they share: list_locks_ lets one of them at a
//             time set the position and read from it
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "origin/bandwidth_queue.h"
#include "origin/origin.h"
#include "origin/posix.h"
#include "origin/posix_info.h"

namespace blobcache {

class PosixOrigin final : public Origin {
 public:
  struct Root {
    int fd = -1;  // O_PATH; ours to close
    uint64_t dev = 0;
    bool is_local = false;  // on a filesystem that answers statx of a descriptor from memory
    std::string canonical_source;
  };
  PosixOrigin(Root root, const PosixOriginOptions& options);
  ~PosixOrigin() override;
  PosixOrigin(const PosixOrigin&) = delete;
  PosixOrigin& operator=(const PosixOrigin&) = delete;

  std::string_view canonical_source() const override { return root_.canonical_source; }
  void begin_lookup(Reactor& home, LookupCall& call) override;
  void begin_open(Reactor& home, OpenCall& call) override;
  void begin_read(Reactor& home, ReadCall& call) override;
  void begin_list(Reactor& home, ListCall& call) override;
  void begin_readlink(Reactor& home, ReadlinkCall& call) override;
  void begin_statfs(Reactor& home, StatfsCall& call) override;
  void close(Reactor& home, int fd) override;
  void stop() override;
  void set_limits(const OriginConfig& config) override;
  bool join(unsigned patience_ms) override { return blocking_.join(patience_ms); }

 private:
  // False: the call was refused and has ended.
  bool begin_call(Reactor& home, OriginCall& call, std::string_view key);
  void begin_blocking(OriginCall& call, void (*run)(BlockingCall& call));
  InfoOptions info_options() const { return {.root_dev = root_.dev, .young_ns = young_ns_}; }

  // False: it has to be asked through the ring.
  static bool stat_now(const OriginCall& call, int fd, struct statx* out);
  static bool left_mount(OriginCall& call, int32_t result);

  static void lookup(LookupCall& call);
  static void on_lookup_opened(Op& op, int32_t result, uint32_t flags);
  static void on_lookup_stat(Op& op, int32_t result, uint32_t flags);
  static void finish_lookup(LookupCall& call, int32_t result);

  // For an OpenCall, and for a ReadCall that comes without a descriptor.
  template <class Call>
  static void open_path(Call& call);
  template <class Call>
  static void on_open_path(Op& op, int32_t result, uint32_t flags);
  template <class Call>
  static void stat_path(Call& call);
  template <class Call>
  static void on_open_type(Op& op, int32_t result, uint32_t flags);
  template <class Call>
  static void type_known(Call& call);
  template <class Call>
  static void open_for_reading(Call& call);
  template <class Call>
  static void on_opened(Op& op, int32_t result, uint32_t flags);
  template <class Call>
  static void on_opened_stat(Op& op, int32_t result, uint32_t flags);
  template <class Call>
  static void open_failed(Call& call, Error why);
  static void finish_open(OpenCall& call);
  static void finish_open(ReadCall& call);

  BandwidthQueue& bandwidth_queue_of(Reactor& home);
  static void on_bandwidth(BandwidthWaiter& waiter, void* self);
  static void on_stop(Op& op, int32_t result, uint32_t flags);
  void begin_bytes(ReadCall& call);
  static void read(ReadCall& call);
  static void on_read(Op& op, int32_t result, uint32_t flags);
  static void on_read_stat(Op& op, int32_t result, uint32_t flags);
  static void read_turned(ReadCall& call);
  static void stat_after_read(ReadCall& call);

  static void on_blocking_done(Op& op, int32_t result, uint32_t flags);
  static void run_list(BlockingCall& call);
  static void run_readlink(BlockingCall& call);
  static void run_statfs(BlockingCall& call);
  // Errors: as Origin::begin_list, readlink, statfs.
  Result<void> list(ListCall& call);
  Result<void> readlink(ReadlinkCall& call) const;
  Result<void> statfs(StatfsCall& call) const;
  Result<size_t> read_names(int fd, uint64_t offset, std::span<char> names);

  static constexpr size_t list_locks_count = 16;

  const Root root_;
  const uint64_t young_ns_;
  std::atomic<bool> stopping_{false};
  std::mutex list_locks_[list_locks_count];
  Bandwidth bandwidth_;  // origin.bandwidth, of this volume
  std::mutex queues_mutex_;
  struct PacedRead : BandwidthWaiter {
    ReadCall* call = nullptr;
  };
  // To each core that has a queue, when the origin stops: whoever waits in it is answered, and its timer ends.
  struct StopMessage : Message {
    StopMessage() : Message(&PosixOrigin::on_stop) {}
    BandwidthQueue* queue = nullptr;
  };
  struct CoreQueue {
    explicit CoreQueue(const BandwidthQueue::Options& options) : home(&options.home), queue(options) {
      stop_message.queue = &queue;
    }
    Reactor* const home;
    BandwidthQueue queue;
    StopMessage stop_message;
  };
  std::vector<std::unique_ptr<CoreQueue>> queues_;  // of cores that ever had to ask
  BlockingCalls blocking_;                          // last: its helpers use the rest
};

// Every path is resolved below the root's descriptor, whatever the key says and however the tree changes meanwhile.
inline constexpr uint64_t posix_resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
inline const char* posix_path(const std::string& key) { return key.empty() ? "." : key.c_str(); }

}  // namespace blobcache
