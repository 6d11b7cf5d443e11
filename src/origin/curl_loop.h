// CurlLoop: libcurl's multi interface on a reactor's ring. libcurl says which sockets it waits for and when it wants to be
// called again; both become ordinary operations of the core, so a transfer costs no thread and no system call of its own
// but those that libcurl makes on the ready socket.
//   Owner     an HttpClient
//   Thread    the reactor's
//   Lifetime  destroyed when no transfer is left; then it needs no reactor any more (its idle connections are closed here)
//   Limits    connections_max idle connections are kept; how many transfers run at a time is the owner's to keep
//   Rule      add() and remove() are never called from within a callback of libcurl; on_acted and on_done are called outside
#pragma once

#include <memory>
#include <vector>

#include <curl/curl.h>

#include "ring/reactor.h"

namespace blobcache {

class CurlLoop {
 public:
  using OnDone = void (*)(void* transfer, CURLcode result);
  using OnActed = void (*)(void* context);

  // on_done gets what CURLOPT_PRIVATE of the transfer holds; the transfer has left the loop by then. on_acted: libcurl's
  // callbacks of this event have run; before the on_done of what ended in it.
  struct Handlers {
    OnDone on_done = nullptr;
    OnActed on_acted = nullptr;
    void* context = nullptr;  // of on_acted
  };
  CurlLoop(Reactor& home, unsigned connections_max, const Handlers& handlers);
  ~CurlLoop();
  CurlLoop(const CurlLoop&) = delete;
  CurlLoop& operator=(const CurlLoop&) = delete;

  void add(CURL* easy);
  // Ends a transfer that runs; on_done is not called for it.
  void remove(CURL* easy);
  unsigned running() const { return running_; }

 private:
  struct Watch;
  struct WakeTimer : Timer {
    using Timer::Timer;
    CurlLoop* loop = nullptr;
  };

  static int on_socket(CURL* easy, curl_socket_t socket, int what, void* self, void* watch);
  static int on_timeout(CURLM* multi, long timeout_ms, void* self);
  static int on_close(void* self, curl_socket_t socket);
  static void on_poll(Op& op, int32_t result, uint32_t flags);
  static void on_timer(Timer& timer);

  Watch& new_watch(curl_socket_t socket);
  void want(Watch& watch, uint32_t events);
  void forget(Watch& watch);
  void arm(Watch& watch);
  void cancel_poll(Watch& watch);
  void act(curl_socket_t socket, int events);

  Reactor& home_;
  const Handlers handlers_;
  CURLM* multi_;
  unsigned running_ = 0;
  bool ending_ = false;
  WakeTimer timer_;
  Op cancels_;  // of SQEs whose success nobody needs to hear of
  Op closes_;
  std::vector<std::unique_ptr<Watch>> watches_;
  std::vector<Watch*> free_watches_;
};

}  // namespace blobcache
