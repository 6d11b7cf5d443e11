// One multi handle a core. libcurl's sockets are polled with one-shot POLL_ADDs: armed for what libcurl wants, armed again
// after each call into libcurl, which makes them level-triggered without an event ever being lost.
//
// A poll holds on to its socket in the kernel: closing the descriptor alone would neither end the poll nor send a FIN, and
// the number could be given out again before a prepared SQE with it is submitted. So the poll is cancelled first, and the
// descriptor is closed through the ring too: one ring takes its SQEs in order, and the cancel and the close of one socket
// are never in the other order. A Watch stands for one use of one socket (its generation): it is reused only after its own
// last CQE, so an event of the socket that had the number before can never be taken for one of the next.
//
// The socket of libcurl's resolver thread is closed by libcurl itself. Its poll is cancelled in the same turn, and what a
// prepared SQE may see there meanwhile reaches a Watch that nobody looks at any more.
#include "origin/curl_loop.h"

#include <cerrno>

#include <poll.h>
#include <unistd.h>

#include "base/assert.h"

namespace blobcache {

struct CurlLoop::Watch : Op {
  Watch() : Op(&CurlLoop::on_poll) {}
  CurlLoop* loop = nullptr;
  curl_socket_t socket = CURL_SOCKET_BAD;
  uint32_t wanted = 0;
  uint32_t armed = 0;      // events of the poll in flight; 0: none
  bool canceling = false;  // that poll is being cancelled
  bool dead = false;       // libcurl has let go of the socket
  bool acting = false;     // libcurl is being called for it
};

CurlLoop::CurlLoop(Reactor& home, unsigned connections_max, const Handlers& handlers)
    : home_(home),
      handlers_(handlers),
      multi_(curl_multi_init()),
      timer_(&CurlLoop::on_timer),
      cancels_([](Op&, int32_t result, uint32_t) { BC_ASSERT(result == -ENOENT || result == -EALREADY); }),
      closes_([](Op&, int32_t result, uint32_t) { BC_ASSERT(result != -EBADF); }) {
  BC_ASSERT(multi_ != nullptr);
  timer_.loop = this;
  curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, &CurlLoop::on_socket);
  curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
  curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, &CurlLoop::on_timeout);
  curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
  curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, static_cast<long>(connections_max));
}

CurlLoop::~CurlLoop() {
  BC_ASSERT(running_ == 0 && !timer_.armed());
  ending_ = true;
  curl_multi_cleanup(multi_);
  // A reactor that ended before the last cancelled poll came back never brings it: its Watch is left behind.
  for (std::unique_ptr<Watch>& watch : watches_) {
    if (watch->cqes_owed > 0) [[maybe_unused]]
      Watch* left = watch.release();
  }
}

void CurlLoop::add(CURL* easy) {
  curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, &CurlLoop::on_close);
  curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, this);
  ++running_;
  const CURLMcode added = curl_multi_add_handle(multi_, easy);
  BC_ASSERT(added == CURLM_OK);
}

void CurlLoop::remove(CURL* easy) {
  BC_ASSERT(running_ > 0);
  --running_;
  curl_multi_remove_handle(multi_, easy);
  // Connections without a transfer are watched by nobody and need no time.
  if (running_ == 0 && timer_.armed()) home_.cancel(timer_);
}

CurlLoop::Watch& CurlLoop::new_watch(curl_socket_t socket) {
  if (free_watches_.empty()) {
    watches_.push_back(std::make_unique<Watch>());
    free_watches_.push_back(watches_.back().get());
  }
  Watch& watch = *free_watches_.back();
  free_watches_.pop_back();
  watch.loop = this;
  watch.socket = socket;
  watch.wanted = watch.armed = 0;
  watch.canceling = watch.dead = watch.acting = false;
  return watch;
}

int CurlLoop::on_socket(CURL*, curl_socket_t socket, int what, void* self_pointer, void* watch_pointer) {
  auto& self = *static_cast<CurlLoop*>(self_pointer);
  auto* watch = static_cast<Watch*>(watch_pointer);
  if (what == CURL_POLL_REMOVE) {
    if (watch != nullptr) self.forget(*watch);
    return 0;
  }
  if (watch == nullptr) {
    watch = &self.new_watch(socket);
    curl_multi_assign(self.multi_, socket, watch);
  }
  const uint32_t in = (what & CURL_POLL_IN) != 0 ? POLLIN : 0;
  const uint32_t out = (what & CURL_POLL_OUT) != 0 ? POLLOUT : 0;
  self.want(*watch, in | out);
  return 0;
}

void CurlLoop::want(Watch& watch, uint32_t events) {
  watch.wanted = events;
  if (watch.acting) return;  // armed after the call
  if (watch.armed == 0) return arm(watch);
  if (watch.armed != events) cancel_poll(watch);
}

void CurlLoop::arm(Watch& watch) {
  if (watch.wanted == 0 || ending_) return;
  watch.armed = watch.wanted;
  watch.canceling = false;
  prep_poll(home_.prepare(watch), FileRef::fd(watch.socket), watch.armed);
}

void CurlLoop::cancel_poll(Watch& watch) {
  if (watch.canceling || ending_) return;
  watch.canceling = true;
  prep_cancel(home_.prepare_silent(cancels_), reinterpret_cast<uint64_t>(static_cast<Op*>(&watch)));
}

void CurlLoop::forget(Watch& watch) {
  watch.dead = true;
  if (watch.armed != 0) return cancel_poll(watch);
  if (!watch.acting) free_watches_.push_back(&watch);
}

int CurlLoop::on_close(void* self_pointer, curl_socket_t socket) {
  auto& self = *static_cast<CurlLoop*>(self_pointer);
  if (self.ending_) return ::close(socket);
  prep_close(self.home_.prepare_silent(self.closes_), socket);
  return 0;
}

void CurlLoop::on_poll(Op& op, int32_t result, uint32_t) {
  auto& watch = static_cast<Watch&>(op);
  CurlLoop& self = *watch.loop;
  watch.armed = 0;
  if (watch.dead) {
    self.free_watches_.push_back(&watch);
    return;
  }
  if (result == -ECANCELED) return self.arm(watch);
  int events = CURL_CSELECT_ERR;
  if (result >= 0) {
    const auto ready = static_cast<uint32_t>(result);
    events = (ready & (POLLIN | POLLHUP | POLLRDHUP)) != 0 ? CURL_CSELECT_IN : 0;
    if ((ready & POLLOUT) != 0) events |= CURL_CSELECT_OUT;
    if ((ready & (POLLERR | POLLNVAL)) != 0) events |= CURL_CSELECT_ERR;
  }
  watch.acting = true;
  self.act(watch.socket, events);
  watch.acting = false;
  if (!watch.dead) {
    if (watch.armed == 0) self.arm(watch);
  } else if (watch.armed == 0) {
    self.free_watches_.push_back(&watch);
  }
}

int CurlLoop::on_timeout(CURLM*, long timeout_ms, void* self_pointer) {
  auto& self = *static_cast<CurlLoop*>(self_pointer);
  if (self.timer_.armed()) self.home_.cancel(self.timer_);
  if (timeout_ms < 0 || self.running_ == 0 || self.ending_) return 0;
  // libcurl must not be called from within this callback, even when it wants to be called at once.
  self.home_.arm(self.timer_, static_cast<uint64_t>(timeout_ms) * 1'000'000);
  return 0;
}

void CurlLoop::on_timer(Timer& timer) { static_cast<WakeTimer&>(timer).loop->act(CURL_SOCKET_TIMEOUT, 0); }

void CurlLoop::act(curl_socket_t socket, int events) {
  int still_running = 0;
  curl_multi_socket_action(multi_, socket, events, &still_running);
  handlers_.on_acted(handlers_.context);
  int left = 0;
  while (CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    CURL* easy = message->easy_handle;
    const CURLcode result = message->data.result;  // the message is gone once the handle is removed
    void* transfer = nullptr;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
    remove(easy);
    handlers_.on_done(transfer, result);
  }
}

}  // namespace blobcache
