// Ranges that wait because the origin's bandwidth is used up (bandwidth_queue.h):
//
//   waiting --no bandwidth--> in the queue --turn--> waiting, with its bytes taken
//   stalled --no bandwidth--> in the queue --turn--> stalled, with a second attempt's bytes taken (http_hedge.cc)
//
// While a range waits here its deadline stands still: the limit is the operator's, and no reader shall fail for it. What is
// asked without a range (look-ups, listings) is small, somebody's `ls` waits for it, and it passes by. A range that stalls is
// running: its deadline goes on, and when its bytes come after all it leaves the queue.
//
// An attempt gives back what it did not bring: a server that refuses (503) has cost no bandwidth. Of two attempts one is given
// back as soon as it is over, whichever it is: none of them has brought a byte before, so both have taken the same.
#include <utility>

#include "base/assert.h"
#include "origin/http_client.h"

namespace blobcache {

// False: the request was put aside.
bool HttpClient::take_bandwidth(HttpRequest& request) {
  if (!bandwidth_queue_ || request.to == nullptr || request.bandwidth_bytes_taken > 0) return true;
  BC_ASSERT(!request.timer.armed() && request.bytes_done < request.bytes);
  const uint32_t bytes = request.bytes - request.bytes_done;
  if (!bandwidth_queue_->take(request, bytes, request.background)) return false;
  request.bandwidth_bytes_taken = bytes;
  return true;
}

// False: the request was put aside, and its first attempt goes on.
bool HttpClient::take_hedge_bandwidth(HttpRequest& request) {
  if (!bandwidth_queue_ || request.hedge_bandwidth_bytes_taken > 0) return true;
  const uint32_t bytes = request.bytes - request.bytes_done;
  if (!bandwidth_queue_->take(request, bytes, request.background)) return false;
  request.hedge_bandwidth_bytes_taken = bytes;
  return true;
}

void HttpClient::on_bandwidth(BandwidthWaiter& waiter, void* self_pointer) {
  auto& self = *static_cast<HttpClient*>(self_pointer);
  auto& request = static_cast<HttpRequest&>(waiter);
  if (request.attempt != nullptr) {
    request.hedge_bandwidth_bytes_taken = waiter.bandwidth_bytes_wanted;
    self.stalled_.push_back(request);
  } else {
    request.bandwidth_bytes_taken = waiter.bandwidth_bytes_wanted;
    request.deadline_ns += self.home_.ring().now_ns() - waiter.waits_since_ns;
    self.wait_for_connection(request);
  }
  self.start_some();
}

// Of what was taken, no more will come than has.
void HttpClient::settle_bandwidth(HttpRequest& request) {
  if (request.bandwidth_bytes_taken == 0) return;
  const uint32_t bytes_missing = request.bytes - request.bytes_done;
  BC_ASSERT(bytes_missing <= request.bandwidth_bytes_taken);
  options_.bandwidth->give_back(bytes_missing);
  request.bandwidth_bytes_taken = 0;
}

// No second attempt is wanted, or one of the two is over.
void HttpClient::settle_hedge(HttpRequest& request) {
  // In stalled_, or among those who wait for bandwidth.
  if (request.linked()) bandwidth_queue_ ? bandwidth_queue_->leave(request) : request.unlink();
  if (const uint32_t bytes = std::exchange(request.hedge_bandwidth_bytes_taken, 0); bytes > 0) {
    options_.bandwidth->give_back(bytes);
  }
}

}  // namespace blobcache
