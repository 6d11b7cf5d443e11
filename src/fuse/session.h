// Session: one mounted file system: mounting through libfuse3, INIT of our own.
//   Owner     a volume.   Thread  the main thread; fd() by any
//   Lifetime  mount() -> negotiate() -> (served by transports) -> unmount()
//   Errors    carry one sentence with the remedy in message_out
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "fuse/address_space.h"

struct fuse_session;

namespace blobcache::fuse {

struct SessionOptions {
  std::string mountpoint;
  std::string source;  // shown as the mount's source
  bool allow_other = false;
  uint32_t max_request = 0;  // bytes
  uint32_t max_background = 0;
  bool want_uring = false;
  bool want_passthrough = false;
};

// What INIT agreed on.
struct SessionFacts {
  uint32_t minor = 0;
  bool uring = false;
  bool passthrough = false;
  bool resend = false;
  uint32_t max_request = 0;   // bytes, what the kernel grants
  uint32_t device_minor = 0;  // of the mount: /sys/fs/fuse/connections/N, /sys/class/bdi/0:N
};

class Session {
 public:
  Session() = default;
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  Result<void> mount(const SessionOptions& options, std::string* message_out);
  // Reads INIT and answers it. max_request may come out smaller than was asked for.
  Result<void> negotiate(std::string* message_out);
  int fd() const { return fd_; }
  const SessionFacts& facts() const { return facts_; }
  const std::string& mountpoint() const { return options_.mountpoint; }

  // Takes the mount out of the name space; those who have files open keep them until they close (or the fd is closed).
  // Must not run on a core: the kernel may ask us something meanwhile.
  void detach();
  // Closes the device: every request in flight fails, every later one gets ENOTCONN.
  void close_device();

 private:
  SessionOptions options_;
  SessionFacts facts_;
  fuse_session* session_ = nullptr;
  int fd_ = -1;
  static inline fuse_session* ended_[address_space::volumes_max] = {};
  static inline unsigned ended_count_ = 0;
};

// The size of request that fs.fuse.max_pages_limit allows, in bytes.
uint32_t kernel_max_request_bytes();
bool uring_fuse_enabled();

}  // namespace blobcache::fuse
