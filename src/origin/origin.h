// Origin: L3, where the truth lives. A directory (posix), S3 or plain HTTP behind one interface.
//   Owner     a Volume (serve/)
//   Thread    begin_* from any core; the call's on_done runs on that same core, in a later turn or the same one
//   Lifetime  calls are owned by the caller and live until on_done; stop() makes those in flight end early where it can
//   Limits    origin.connections is the origin's to keep, over all cores, where it says so; else the caller's
//   Names     a key is a path relative to the volume's root, "" the root, parts joined by '/', no part empty, "." or "..":
//             bytes, not text. An origin never leaves its root whatever the key says.
//   Versions  FileInfo::version names one immutable version of one file. A read that finds another version than it was
//             asked for fails with Code::stale and leaves nothing to be used.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <sys/stat.h>

#include "base/file_info.h"
#include "base/result.h"
#include "origin/origin_counters.h"
#include "ring/blocking.h"
#include "ring/reactor.h"

namespace blobcache {

struct DirectoryEntry {
  std::string name;
  uint64_t ino = 0;
  uint8_t type = 0;      // DT_*
  uint64_t next_offset;  // the cookie with which a listing goes on after this entry
  bool has_info = false;
  FileInfo info;  // when asked for and had
};

class Origin;
struct OriginConfig;

// A call in flight. on_done runs exactly once on the home core; the caller owns the memory.
struct OriginCall {
  void (*on_done)(OriginCall& call) = nullptr;
  Error error{};
  bool failed = false;
  Reactor* home = nullptr;
  uint64_t request_id = 0;  // of the user's request that it is made for, for log lines; 0: none

  // For the origin's own use while the call is in flight.
  Origin* origin = nullptr;
  uint32_t retries = 0;
  bool local = false;  // of PosixOrigin: on the mount of its root, where attributes are answered from memory
  struct Step : Op {
    OriginCall* call = nullptr;
  };
  Step steps[2];
  struct Blocking : BlockingCall {
    OriginCall* call = nullptr;
  } blocking;

  void finish() { on_done(*this); }
  void finish_failed(Error why) {
    failed = true;
    error = why;
    on_done(*this);
  }
};

struct LookupCall : OriginCall {
  std::string key;
  FileInfo info;  // out
  struct statx statx_buffer;
  int fd = -1;
};

// Of PosixOrigin: a file that is being opened.
struct PosixOpening {
  struct statx statx_buffer;
  int path_fd = -1;
  char proc_path[32];
};

struct OpenCall : OriginCall, PosixOpening {
  std::string key;
  bool version_only = false;  // of a file: as it is now, but it need not be open (fd stays -1)
  FileInfo info;              // out: of the file that was opened
  int fd = -1;                // out: the caller's to close through Origin::close; -1: this origin needs none
};

// A place for a part of a range.
struct ReadPiece {
  std::byte* to = nullptr;
  uint32_t bytes = 0;
};

struct ReadCall : OriginCall, PosixOpening {
  // in
  std::string key;
  FileVersion version;
  // From OpenCall. -1 where the origin needs one: it is opened first, and is the caller's to close, also when the read fails.
  int fd = -1;
  uint64_t offset = 0;
  uint32_t bytes = 0;         // to read; the file has at least offset + bytes in the version asked for
  uint64_t object_bytes = 0;  // all of that version; 0: not known
  std::byte* to = nullptr;
  // The places that the bytes go to one after the other, instead of `to`, which is the first of them; `bytes` in all. For
  // origins that scatter. Empty: there is one.
  std::span<const ReadPiece> pieces;
  int buffer_index = -1;    // registered buffer that `to` lies in; -1: none
  bool background = false;  // nobody waits for it: may take longer, must not hold up the core
  // May be null. The first `bytes_done` bytes have come: of the version asked for, and not written to again, however the call
  // ends. On the home core, in a turn after begin_read's or the same one, any number of times, and not at all by origins that
  // know the version only when everything is read. Never told of the last byte: that is on_done's.
  void (*on_bytes)(ReadCall& call, uint32_t bytes_done) = nullptr;
  // out
  bool young = false;  // right bytes, but not to be cached
  // posix
  uint32_t bytes_done = 0;
  int32_t read_result = 0;
  int32_t statx_result = 0;
};

struct ListCall : OriginCall {
  std::string key;
  int fd = -1;                          // from begin_open of the directory
  uint64_t offset = 0;                  // 0: the start; else a next_offset seen before
  uint32_t entries_max = 0;             // at most so many, fewer are no end
  bool with_info = false;               // READDIRPLUS: attributes and version of each
  std::vector<DirectoryEntry> entries;  // out; empty: the end. "." and ".." are among them where the origin has them
};

struct ReadlinkCall : OriginCall {
  std::string key;
  std::string target;  // out
};

struct StatfsCall : OriginCall {
  uint64_t blocks = 0;
  uint64_t blocks_free = 0;
  uint64_t blocks_available = 0;
  uint64_t files = 0;
  uint64_t files_free = 0;
  uint32_t block_bytes = 4096;
  uint32_t name_bytes_max = 255;
};

class Origin {
 public:
  virtual ~Origin() = default;

  // The part of a volume's identity that the origin knows (scheme, endpoint, bucket, prefix; or the real path).
  virtual std::string_view canonical_source() const = 0;
  // Errors: not_found, denied, io, timeout (os_errno set). Never follows symlinks.
  virtual void begin_lookup(Reactor& home, LookupCall& call) = 0;
  // Opens a regular file or a directory. Errors as lookup; invalid when it is neither.
  virtual void begin_open(Reactor& home, OpenCall& call) = 0;
  // Errors: stale (another version, or shorter than it was), io, denied.
  virtual void begin_read(Reactor& home, ReadCall& call) = 0;
  virtual void begin_list(Reactor& home, ListCall& call) = 0;
  virtual void begin_readlink(Reactor& home, ReadlinkCall& call) = 0;
  virtual void begin_statfs(Reactor& home, StatfsCall& call) = 0;
  // Gives back what OpenCall handed out. Does not wait.
  virtual void close(Reactor& home, int fd) = 0;

  virtual void stop() = 0;
  virtual bool join(unsigned patience_ms) = 0;

  // Takes over what may change while calls are in flight: origin.attempt_timeout, deadline, retries and bandwidth. From any
  // thread. Calls in flight keep their deadline.
  virtual void set_limits(const OriginConfig&) {}
  // Takes over volume.revalidate, also for what is known already. From any thread.
  virtual void set_revalidate(uint64_t /*ns*/) {}
  // What is begun beyond origin.connections waits in the origin, what readers wait for first.
  virtual bool keeps_connections_max() const { return false; }
  // A request costs so much that one is worth it for places that do not lie together (ReadCall::pieces).
  virtual bool scatters() const { return false; }
  const OriginCounters& counters() const { return counters_; }

 protected:
  OriginCounters counters_;
};

}  // namespace blobcache
