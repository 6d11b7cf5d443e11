// Notify: tells a service manager how the node is, by datagrams to the socket that NOTIFY_SOCKET names. Nothing happens
// where there is none.
//   Owner     Node.   Thread  the main thread; Watchdog sends through fd() on its core
//   Protocol  sd_notify(3): lines of NAME=VALUE in one datagram
#pragma once

#include <cstdint>
#include <string_view>

namespace blobcache::node {

class Notify {
 public:
  Notify() = default;
  ~Notify();
  Notify(const Notify&) = delete;
  Notify& operator=(const Notify&) = delete;

  // Looks at the environment. False: NOTIFY_SOCKET names a socket that cannot be used.
  bool open();
  int fd() const { return fd_; }  // -1: nobody is told
  // How often the manager wants to hear that all is well; 0: never.
  uint64_t watchdog_ns() const { return watchdog_ns_; }

  void ready(std::string_view status);
  void status(std::string_view status);
  // Followed by ready().
  void reloading();
  void stopping();

 private:
  void send(std::string_view lines);

  int fd_ = -1;
  uint64_t watchdog_ns_ = 0;
};

}  // namespace blobcache::node
