// A range that stalls is asked for a second time, on another connection:
//
//   running --quiet for longer than nearly all are--> stalled --room for a connection--> two attempts --bytes--> running
//
// With a limit of bandwidth it also has to wait for that, as any other range (http_pace.cc).
//
// *When*: no byte has come for as long as the slowest ranges of this origin take to their first one: p99, or twice p95 where
// the tail is longer than that. Not before 100 of them are known, and never below 20 ms: on a near server that would be
// about our own processor, not about its answer. Nor below twice the median: where all take about the same time, one in a
// hundred is a little later than p99, and asking for it again brings nothing. A loser that never answered counts as long as
// it ran, so what is slow does not vanish from what is known; and when more than one in twenty is slow, slow is how this
// origin is, and p95 says so.
//
// *How often*: 1 in 20 requests, so that a server in trouble is not asked twice for everything. Each request earns a twentieth
// of a hedge, whichever core made it, and no more than a few are saved up: an hour without stalls is no reason for a thousand
// hedges at once. And a hedge needs a free connection like any other attempt, but is the first to get one: its reader has
// waited longest.
//
// *Who wins*: whoever has the first byte of what is missing; the second attempt asks for that alone. The frame is written
// once: the loser is marked before the winner's first byte is copied, writes nothing from then on, and is removed when
// libcurl's callbacks are done (libcurl allows it only there). An attempt that fails while the other one runs says nothing.
// Rejected: to let both run and take who ends first. That needs a second frame for each.
#include <algorithm>

#include "base/assert.h"
#include "origin/http_client.h"

namespace blobcache {
namespace {

constexpr unsigned requests_per_hedge = 20;
constexpr unsigned hedges_saved_max = 8;
constexpr uint64_t samples_min = 100;
constexpr uint64_t patience_ns_min = 20'000'000;

}  // namespace

// 0: not known yet.
uint64_t HttpClient::patience_ns() const {
  HistogramSums known;
  known.add(counters_.range_first_byte);
  if (known.count() < samples_min) return 0;
  const uint64_t late_ns = std::min(known.percentile_ns(0.99), 2 * known.percentile_ns(0.95));
  return std::max({late_ns, 2 * known.percentile_ns(0.5), patience_ns_min});
}

void HttpClient::earn_hedge(const HttpRequest& request) {
  if (request.to == nullptr) return;
  if (counters_.hedge_credit.load(std::memory_order_relaxed) >= hedges_saved_max * requests_per_hedge) return;
  counters_.hedge_credit.fetch_add(1, std::memory_order_relaxed);
}

bool HttpClient::try_spend_credit() {
  unsigned credit = counters_.hedge_credit.load(std::memory_order_relaxed);
  while (credit >= requests_per_hedge) {
    if (counters_.hedge_credit.compare_exchange_weak(credit, credit - requests_per_hedge, std::memory_order_relaxed))
      return true;
  }
  return false;
}

void HttpClient::give_back_credit() { counters_.hedge_credit.fetch_add(requests_per_hedge, std::memory_order_relaxed); }

void HttpClient::arm_impatience(HttpAttempt& attempt) {
  const HttpRequest& request = *attempt.request;
  if (request.to == nullptr || request.rival != nullptr || attempt.lost || stopping_) return;
  const uint64_t patience = patience_ns();
  if (patience == 0 || patience >= options_.attempt_timeout_ns) return;
  home_.arm_at(attempt.impatience, std::max(attempt.heard_ns + patience, home_.now_ns() + patience / 2));
}

void HttpClient::on_impatience(Timer& timer) {
  HttpAttempt& attempt = *static_cast<HttpAttempt::AttemptTimer&>(timer).attempt;
  HttpRequest& request = *attempt.request;
  HttpClient& self = *request.client;
  BC_ASSERT(request.attempt == &attempt && request.rival == nullptr && !request.linked());
  if (request.bytes_done == request.bytes) return;
  const bool quiet = attempt.heard_ns + self.patience_ns() <= self.home_.now_ns();
  if (!quiet || self.counters_.hedge_credit.load(std::memory_order_relaxed) < requests_per_hedge)
    return self.arm_impatience(attempt);
  self.stalled_.push_back(request);
  self.start_hedges();
}

void HttpClient::start_hedges() {
  while (!stalled_.empty() && in_flight_.load(std::memory_order_relaxed) < options_.connections_max) {
    hedge(*stalled_.pop_front());
  }
}

void HttpClient::hedge(HttpRequest& request) {
  BC_ASSERT(request.attempt != nullptr && request.rival == nullptr && request.bytes_done < request.bytes);
  if (!try_spend_credit()) {
    settle_hedge(request);
    return arm_impatience(*request.attempt);
  }
  if (!take_hedge_bandwidth(request)) return give_back_credit();
  const Result<HttpAttempt*> rival = set_up(request);
  if (!rival) {
    give_back_credit();
    settle_hedge(request);
    return arm_impatience(*request.attempt);
  }
  counters_.hedges.fetch_add(1, std::memory_order_relaxed);
  // Over HTTP/2 it would be a stream of the connection that stalls.
  if (!options_.http1_only) curl_easy_setopt((*rival)->easy, CURLOPT_FRESH_CONNECT, 1L);
  (*rival)->is_hedge = true;
  request.rival = *rival;
  send(**rival);
}

// Within libcurl's callback: the other attempt of the request is about to write.
void HttpClient::lose(HttpAttempt& attempt) {
  BC_ASSERT(!attempt.lost);
  attempt.lost = true;
  lost_.push_back(&attempt);
}

void HttpClient::remove_lost() {
  while (!lost_.empty()) {
    HttpAttempt& attempt = *lost_.back();
    lost_.pop_back();
    if (!attempt.is_hedge) counters_.hedges_won.fetch_add(1, std::memory_order_relaxed);
    loop_.remove(attempt.easy);
    end_attempt(attempt);
  }
  start_some();
}

}  // namespace blobcache
