// Ranges that wait because the origin's bandwidth is used up:
//
//   waiting --no bandwidth--> paced --time--> waiting, with its bytes taken
//
// While a range is paced its deadline stands still: the limit is the operator's, and no reader shall fail for it. What is
// asked without a range (look-ups, listings) is small, somebody's `ls` waits for it, and it passes by.
//
// Readers go before what nobody waits for; but one of four is the background's: a reader may wait by now for what it fetches,
// and without a deadline that runs it would wait for ever.
//
// An attempt gives back what it did not bring: a server that refuses (503) has cost no bandwidth.
#include <algorithm>

#include "base/assert.h"
#include "origin/bandwidth.h"
#include "origin/http_client.h"

namespace blobcache {
namespace {

constexpr unsigned background_one_of = 4;
constexpr uint64_t look_again_ns = 1'000'000'000;  // the limit may have been changed meanwhile

}  // namespace

// False: the request was put aside.
bool HttpClient::take_bandwidth(HttpRequest& request) {
  if (options_.bandwidth == nullptr || request.to == nullptr || request.bandwidth_bytes_taken > 0) return true;
  BC_ASSERT(!request.timer.armed() && request.bytes_done <= request.bytes);
  const uint64_t now_ns = home_.ring().now_ns();
  const bool first = paced_.empty() && (!request.background || paced_background_.empty());
  if (first) {
    const uint32_t bytes = request.bytes - request.bytes_done;
    const uint64_t again_ns = options_.bandwidth->try_take(bytes, now_ns);
    if (again_ns == 0) {
      request.bandwidth_bytes_taken = bytes;
      return true;
    }
    if (!pace_timer_.armed()) home_.arm_at(pace_timer_, std::min(again_ns, now_ns + look_again_ns));
  }
  BC_ASSERT(pace_timer_.armed());
  request.paced_since_ns = now_ns;
  (request.background ? paced_background_ : paced_).push_back(request);
  return false;
}

void HttpClient::on_pace(Timer& timer) {
  HttpClient& self = *static_cast<PaceTimer&>(timer).client;
  const uint64_t now_ns = self.home_.ring().now_ns();
  while (!self.paced_.empty() || !self.paced_background_.empty()) {
    const bool turn = !self.paced_background_.empty() && self.paced_before_background_ + 1 >= background_one_of;
    const bool background = self.paced_.empty() || turn;
    HttpRequest& request = *(background ? self.paced_background_ : self.paced_).front();
    const uint32_t bytes = request.bytes - request.bytes_done;
    if (const uint64_t again_ns = self.options_.bandwidth->try_take(bytes, now_ns); again_ns != 0) {
      self.home_.arm_at(timer, std::min(again_ns, now_ns + look_again_ns));
      break;
    }
    self.paced_before_background_ = background ? 0 : self.paced_before_background_ + 1;
    request.unlink();
    request.bandwidth_bytes_taken = bytes;
    request.deadline_ns += now_ns - request.paced_since_ns;
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

}  // namespace blobcache
