// ContentCalls: the content store by the control socket, for commands on this machine; no port is needed.
//   put [id=ID] [ttl=SECONDS] [pin=1] [bytes=N], with a descriptor to read from
//                            -> "ok ID BYTES new|known\n" once it is on disk
//   get ID BEGIN END         -> "ok BYTES TOTAL\n" and then so many bytes; END 0: all of it. Fewer bytes: it was damaged
//   has ID                   -> "ok BYTES STORED EXPIRES PINNED\n", times since 1970, EXPIRES 0: never
//   remove ID [pinned=1]     -> "ok\n"
//   or "error WHY: SENTENCE\n", WHY being a code's name
//   Owner     Node.   Thread  take() on the main thread; each call on a thread of its own, because it waits for its caller,
//             for a disk, or for what feeds a pipe. A caller who hangs up ends his call
//   Limits    calls_max at a time
#pragma once

#include <condition_variable>
#include <mutex>
#include <set>

#include "node/control.h"
#include "serve/content.h"

namespace blobcache::node {

class ContentCalls {
 public:
  static constexpr unsigned calls_max = 24;
  // Beside what Content counts: stacks, and a buffer each.
  static constexpr uint64_t memory_bytes = calls_max * (serve::Content::piece_bytes + 128 * limits::KiB);

  explicit ContentCalls(serve::Content& content) : content_(content) {}
  void add_to(Control& control);
  // Callers are hung up on.
  void stop();
  // False: a call hangs in a disk or a file system.
  bool join(unsigned patience_ms);

 private:
  using Answer = std::string (ContentCalls::*)(const Control::Call& call);

  void take(const Control::Call& call, Answer answer);
  void run(const Control::Call& call, Answer answer);
  std::string put(const Control::Call& call);
  std::string get(const Control::Call& call);
  std::string has(const Control::Call& call);
  std::string remove(const Control::Call& call);
  // Errors: canceled (the caller has gone, or we stop), io.
  Result<void> feed(const Control::Call& call, BlobWriter& writer);
  bool send_blob(int socket_fd, BlobReader& reader, uint64_t begin, uint64_t end);

  serve::Content& content_;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::set<int> sockets_;  // of calls under way
  bool stopping_ = false;
};

}  // namespace blobcache::node
