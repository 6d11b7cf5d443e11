// Control: the socket on which other commands reach a running node: one line in, one answer out.
//   ping    -> "pong PID\n", once every core has answered a message
//   mounts  -> how many of its mounts are still served
//   status  -> one JSON object
//   stop    -> "ok\n", and the node drains
//   evict ID BYTES -> "ok\n", once the object of that size is neither on disk nor in memory; or "error: ...\n"
//   forget ID BYTES -> the same of memory alone
//   put, get, has, remove -> node/content_calls.h
//   Owner     Node.   Thread  the main thread; it polls fd() and calls on_readable()
//   Path      as base/state_paths.h says; mode 0660
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace blobcache::node {

class Control {
 public:
  // Gets what stands behind the word.
  using Command = std::function<std::string(std::string_view arguments)>;

  ~Control() { close(); }
  // Listens there; the first time at all, later under one more name. Errors: what bind said; again when another live process
  // listens there.
  Result<void> open(const std::string& path);
  void close();
  int fd() const { return fd_; }
  void add(const std::string& word, Command command) { commands_[word] = std::move(command); }
  // A command that takes longer than a moment: it is given the caller's socket, and the descriptor that he sent with the line
  // (-1: none). Both are its own to close.
  struct Call {
    int socket_fd = -1;
    int passed_fd = -1;
    std::string arguments;
  };
  using Taker = std::function<void(const Call& call)>;
  void add_taker(const std::string& word, Taker taker) { takers_[word] = std::move(taker); }
  // Accepts one caller and serves it; a caller that says nothing for a second is dropped.
  void on_readable();

 private:
  Result<void> add_name(const std::string& path);
  void serve(int caller);

  int fd_ = -1;
  std::vector<std::string> paths_;  // the socket; then links to it
  std::map<std::string, Command, std::less<>> commands_;
  std::map<std::string, Taker, std::less<>> takers_;
};

}  // namespace blobcache::node
