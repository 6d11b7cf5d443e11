// The life of a request:
//
//   waiting --room--> running --answer--> done
//                        |  \--trouble that may pass--> pausing --time--> waiting
//                        \--trouble that stays, or deadline--> failed
// With a limit of bandwidth a range may have to wait for that too, between waiting and running (http_pace.cc).
//
// One timer an attempt: it looks whether bytes have come since its last look, and ends the attempt if fewer than
// progress_bytes_min have (a server that drips would otherwise hold a reader for ever). Another one ends a request's pause.
// None goes beyond the deadline. A range that stalls for a shorter time than that gets a second attempt beside the first
// (http_hedge.cc). A retry of a range goes on behind the bytes that are there, which were
// checked to be of the version asked for, so a connection that is reset at every position still gets on.
//
// A pause is random between half and all of base << retries: cores and nodes that were refused together do not come back
// together. A server that names a time (Retry-After) is obeyed, within the deadline.
#include "origin/http_client.h"

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "origin/http_text.h"

namespace blobcache {
namespace {

constexpr uint64_t pause_first_ns = 50'000'000;
constexpr uint64_t pause_ns_max = 5'000'000'000;
constexpr size_t progress_bytes_min = 4 * limits::KiB;

bool is_worth_repeating(long status) {
  return status == 408 || status == 429 || (status >= 500 && status != 501 && status != 505);
}

Error error_of_status(long status) {
  if (status == 404 || status == 410) return {Code::not_found, ENOENT};
  if (status == 401 || status == 403) return {Code::denied, EACCES};
  if (status == 412 || status == 416) return {Code::stale, ESTALE};
  if (status == 408 || status == 504) return {Code::timeout, ETIMEDOUT};
  if (status >= 500 || status == 429) return {Code::io, EIO};
  if (status >= 400) return {Code::invalid, EINVAL};
  return {Code::protocol, EPROTO};
}

// What a transfer without an answer means. `passing`: another attempt may fare better.
struct Verdict {
  Error error;
  bool passing;
};
Verdict verdict_of(CURLcode result) {
  switch (result) {
    case CURLE_OPERATION_TIMEDOUT: return {{Code::timeout, ETIMEDOUT}, true};
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY: return {{Code::io, EHOSTUNREACH}, true};
    case CURLE_COULDNT_CONNECT: return {{Code::io, ECONNREFUSED}, true};
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR: return {{Code::denied, EACCES}, false};
    case CURLE_OUT_OF_MEMORY: return {{Code::again, ENOMEM}, true};
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL: return {{Code::invalid, EINVAL}, false};
    case CURLE_TOO_MANY_REDIRECTS: return {{Code::protocol, EPROTO}, false};
    default: return {{Code::io, EIO}, true};
  }
}

}  // namespace

HttpRequest::HttpRequest() { timer.request = this; }
HttpRequest::~HttpRequest() { BC_ASSERT(attempt == nullptr && rival == nullptr); }

HttpClient::HttpClient(Reactor& home, const HttpOptions& options, OriginCounters& counters,
                       std::atomic<unsigned>& in_flight)
    : home_(home),
      options_(options),
      counters_(counters),
      in_flight_(in_flight),
      loop_(home, options.connections_max,
            {.on_done = &HttpClient::on_attempt_done, .on_acted = &HttpClient::on_acted, .context = this}),
      random_(static_cast<unsigned>(reinterpret_cast<uintptr_t>(this) ^ static_cast<uintptr_t>(std::time(nullptr)))) {
  if (options.bandwidth == nullptr) return;
  bandwidth_queue_.emplace(BandwidthQueue::Options{
      .home = home, .bandwidth = *options.bandwidth, .on_turn = &HttpClient::on_bandwidth, .context = this});
}

HttpClient::~HttpClient() { BC_ASSERT(active() == 0); }

void HttpClient::begin(HttpRequest& request) {
  BC_ASSERT(request.on_done != nullptr && request.attempt == nullptr && !request.timer.armed());
  request.client = this;
  request.timer.handler = &HttpClient::on_pause_over;
  request.failed = false;
  request.bytes_done = request.attempts = request.retries = request.bandwidth_bytes_taken = 0;
  request.hedge_bandwidth_bytes_taken = 0;
  request.asked_again = request.has_news = false;
  request.checksum.reset();
  request.digest_before.clear();
  request.deadline_ns = home_.ring().now_ns() + options_.deadline_ns;
  active_.fetch_add(1, std::memory_order_relaxed);
  if (stopping_) return finish_failed(request, {Code::stopping, ECANCELED});
  wait_for_connection(request);
  start_some();
}

void HttpClient::wait_for_connection(HttpRequest& request) {
  (request.background ? waiting_background_ : waiting_).push_back(request);
  home_.arm_at(request.timer, request.deadline_ns);
}

void HttpClient::start_some() {
  start_hedges();
  while (!waiting_.empty() || !waiting_background_.empty()) {
    if (loop_.running() > 0 && in_flight_.load(std::memory_order_relaxed) >= options_.connections_max) return;
    // Readers go first; but one of four is the background's, for a reader may wait by now for what it fetches.
    const bool passed_over = !waiting_background_.empty() && ++passed_over_ >= background_share;
    const bool background = waiting_.empty() || passed_over;
    if (background) passed_over_ = 0;
    start_attempt(*(background ? waiting_background_ : waiting_).pop_front());
  }
}

void HttpClient::start_attempt(HttpRequest& request) {
  if (request.timer.armed()) home_.cancel(request.timer);
  if (!take_bandwidth(request)) return;
  request.bytes_at_start = request.bytes_done;
  const Result<HttpAttempt*> attempt = set_up(request);
  if (!attempt) {
    if (attempt.error().code == Code::again) return retry_or_fail(request, attempt.error());
    return finish_failed(request, attempt.error());
  }
  if (request.attempts > 0) counters_.retries.fetch_add(1, std::memory_order_relaxed);
  if (request.attempts == 0) earn_hedge(request);
  request.attempt = *attempt;
  send(**attempt);
  arm_impatience(**attempt);
}

void HttpClient::send(HttpAttempt& attempt) {
  HttpRequest& request = *attempt.request;
  counters_.requests.fetch_add(1, std::memory_order_relaxed);
  ++request.attempts;
  in_flight_.fetch_add(1, std::memory_order_relaxed);
  running_.push_back(attempt);
  attempt.begun_ns = attempt.heard_ns = home_.ring().now_ns();
  home_.arm_at(attempt.watchdog, std::min(attempt.begun_ns + options_.attempt_timeout_ns, request.deadline_ns));
  loop_.add(attempt.easy);
}

// The attempt has left libcurl's loop. What it came to is the request's, unless another attempt goes on.
void HttpClient::end_attempt(HttpAttempt& attempt) {
  HttpRequest& request = *attempt.request;
  if (attempt.watchdog.armed()) home_.cancel(attempt.watchdog);
  if (attempt.impatience.armed()) home_.cancel(attempt.impatience);
  settle_hedge(request);
  attempt.unlink();
  std::erase(lost_, &attempt);
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
  count_answer(attempt);
  if (request.attempt == &attempt) request.attempt = std::exchange(request.rival, nullptr);
  request.rival = nullptr;
  if (request.attempt != nullptr) {
    arm_impatience(*request.attempt);
  } else {
    if (request.has_news) std::erase(news_, &request);
    request.has_news = false;
    settle_bandwidth(request);
    char* url = nullptr;
    curl_easy_getinfo(attempt.easy, CURLINFO_EFFECTIVE_URL, &url);
    request.effective_url = url == nullptr ? "" : url;
    request.head = std::move(attempt.head);
    request.body = std::move(attempt.body);
    request.sentence = attempt.curl_says;
    request.refused = attempt.refused;
    request.refusal_is_final = attempt.refusal_is_final;
    if (attempt.refused) request.error = attempt.error;
  }
  curl_easy_reset(attempt.easy);  // it points into the attempt
  release_attempt(attempt);
}

// libcurl's callbacks are done.
void HttpClient::on_acted(void* self_pointer) {
  auto& self = *static_cast<HttpClient*>(self_pointer);
  if (!self.lost_.empty()) self.remove_lost();
  self.tell_news();
}

// Whoever is told may begin other requests, or stop this one's reader. The request itself stays.
void HttpClient::tell_news() {
  while (!news_.empty()) {
    HttpRequest& request = *news_.back();
    news_.pop_back();
    request.has_news = false;
    request.on_bytes(request, std::min(request.bytes_done, request.bytes - 1));
  }
}

void HttpClient::count_answer(const HttpAttempt& attempt) {
  counters_.bytes.fetch_add(attempt.bytes_received, std::memory_order_relaxed);
  long connects = 0;
  curl_easy_getinfo(attempt.easy, CURLINFO_NUM_CONNECTS, &connects);
  counters_.connections.fetch_add(static_cast<uint64_t>(connects), std::memory_order_relaxed);
  // Each is a request of its own, whose answer leads to the next; the time is that of all of them.
  long redirects = 0;
  curl_easy_getinfo(attempt.easy, CURLINFO_REDIRECT_COUNT, &redirects);
  counters_.requests.fetch_add(static_cast<uint64_t>(redirects), std::memory_order_relaxed);
  const long status = attempt.head.status;
  counters_.times.add(attempt.request->verb == HttpVerb::head, status, home_.ring().now_ns() - attempt.begun_ns);
  if (status == 429 || status == 503) counters_.throttled.fetch_add(1, std::memory_order_relaxed);
  curl_off_t first_byte_us = 0;
  curl_easy_getinfo(attempt.easy, CURLINFO_STARTTRANSFER_TIME_T, &first_byte_us);
  if (status != 0 && first_byte_us > 0) counters_.first_byte.add(static_cast<uint64_t>(first_byte_us) * 1000);
  if (attempt.request->to == nullptr) return;
  if (status >= 200 && status < 300) counters_.range_first_byte.add(static_cast<uint64_t>(first_byte_us) * 1000);
  // It would have taken longer than that. Left out, what is slow would vanish from what is known of it.
  if (status == 0 && attempt.lost) counters_.range_first_byte.add(home_.now_ns() - attempt.begun_ns);
}

void HttpClient::on_attempt_done(void* attempt_pointer, CURLcode result) {
  auto& attempt = *static_cast<HttpAttempt*>(attempt_pointer);
  HttpRequest& request = *attempt.request;
  HttpClient& self = *request.client;
  self.end_attempt(attempt);
  if (request.attempt == nullptr) self.judge(request, result);
  self.start_some();
}

// All bytes are there.
void HttpClient::finish_range(HttpRequest& request) {
  if (request.checksum == nullptr || is_verified(request)) return finish(request);
  counters_.corrupt.fetch_add(1, std::memory_order_relaxed);
  request.sentence =
      fmt::format("the bytes that came are not those of the store's checksum ({})", request.checksum->name());
  request.checksum.reset();
  request.bytes_done = 0;
  retry_or_fail(request, {Code::corrupt, EIO});
}

// A store may have ETags that look like an MD5 and are none. So until one has matched, bytes that came twice alike are right,
// and the ETags are what is believed no more.
bool HttpClient::is_verified(HttpRequest& request) {
  const bool is_md5 = request.checksum->kind() == ChecksumKind::md5;
  if (request.checksum->matches()) {
    counters_.verified.fetch_add(1, std::memory_order_relaxed);
    if (is_md5) counters_.md5_matched.store(true, std::memory_order_relaxed);
    return true;
  }
  const bool came_before = request.digest_before == request.checksum->found();
  request.digest_before = request.checksum->found();
  if (!is_md5 || counters_.md5_matched.load(std::memory_order_relaxed) || !came_before) return false;
  counters_.etags_are_no_md5.store(true, std::memory_order_relaxed);
  return true;
}

void HttpClient::judge(HttpRequest& request, CURLcode result) {
  if (request.refused) {
    // The next attempt asks for a range; not once bytes came that were wrong, which only the checksum of the whole can see.
    if (request.digest_before.empty()) request.whole = false;
    if (request.refusal_is_final) return finish_failed(request, request.error);
    return retry_or_fail(request, request.error);
  }
  // All of it came, whatever happened to the connection behind the last byte; there is nothing to ask again for.
  if (request.to != nullptr && request.bytes_done == request.bytes) return finish_range(request);
  if (result != CURLE_OK) {
    if (request.sentence.empty()) request.sentence = curl_easy_strerror(result);
    const Verdict verdict = verdict_of(result);
    if (!verdict.passing) return finish_failed(request, verdict.error);
    return retry_or_fail(request, verdict.error);
  }
  judge_status(request);
}

void HttpClient::judge_status(HttpRequest& request) {
  const long status = request.head.status;
  if (status >= 200 && status < 300) {
    // An answer without a body was not looked at yet; and one that is complete by its own account may still be short.
    if (request.to != nullptr && request.bytes_done < request.bytes) return retry_or_fail(request, {Code::io, EIO});
    return finish(request);
  }
  const Error why = error_of_status(status);
  if (is_worth_repeating(status)) return retry_or_fail(request, why);
  const bool about_us = status == 400 || status == 401 || status == 403;
  if (about_us && options_.authorizer != nullptr && !request.asked_again &&
      options_.authorizer->may_ask_again(request)) {
    request.asked_again = true;
    return retry_or_fail(request, why);
  }
  finish_failed(request, why);
}

uint64_t HttpClient::backoff_ns(const HttpRequest& request) {
  const std::optional<uint64_t> told = parse_retry_after_ns(request.head.retry_after, std::time(nullptr));
  const uint64_t most = std::min(pause_first_ns << std::min(request.retries, 10u), pause_ns_max);
  const uint64_t jittered = most / 2 + random_() % (most / 2);
  return told ? std::max(*told, jittered) : jittered;
}

void HttpClient::retry_or_fail(HttpRequest& request, Error why) {
  const uint64_t now_ns = home_.ring().now_ns();
  // An attempt that brought bytes cost nothing but its own time; the deadline bounds how often.
  const bool progressed = request.bytes_done >= request.bytes_at_start + progress_bytes_min;
  const uint64_t pause_ns = backoff_ns(request);
  if (stopping_) return finish_failed(request, {Code::stopping, ECANCELED});
  if ((!progressed && request.retries >= options_.retries_max) || now_ns + pause_ns >= request.deadline_ns) {
    return finish_failed(request, why);
  }
  if (!progressed) ++request.retries;
  request.error = why;
  pausing_.push_back(request);
  home_.arm_at(request.timer, now_ns + (progressed ? 0 : pause_ns));
}

void HttpClient::on_pause_over(Timer& timer) {
  HttpRequest& request = *static_cast<HttpRequest::PauseTimer&>(timer).request;
  HttpClient& self = *request.client;
  request.unlink();
  if (self.home_.ring().now_ns() >= request.deadline_ns) {
    return self.finish_failed(request, {Code::timeout, ETIMEDOUT});
  }
  self.wait_for_connection(request);
  self.start_some();
}

void HttpClient::on_watchdog(Timer& timer) {
  HttpAttempt& attempt = *static_cast<HttpAttempt::AttemptTimer&>(timer).attempt;
  HttpRequest& request = *attempt.request;
  HttpClient& self = *request.client;
  const uint64_t now_ns = self.home_.ring().now_ns();
  const bool late = now_ns >= request.deadline_ns;
  if (!late && attempt.bytes_received >= attempt.received_at_last_look + progress_bytes_min) {
    attempt.received_at_last_look = attempt.bytes_received;
    self.home_.arm_at(timer, std::min(now_ns + self.options_.attempt_timeout_ns, request.deadline_ns));
    return;
  }
  self.loop_.remove(attempt.easy);
  self.end_attempt(attempt);
  if (request.attempt != nullptr) return self.start_some();
  if (request.to != nullptr && request.bytes_done == request.bytes && !request.refused) {
    self.finish_range(request);
  } else if (late) {
    self.finish_failed(request, {Code::timeout, ETIMEDOUT});
  } else {
    self.retry_or_fail(request, {Code::timeout, ETIMEDOUT});
  }
  self.start_some();
}

void HttpClient::finish(HttpRequest& request) {
  if (request.timer.armed()) home_.cancel(request.timer);
  settle_bandwidth(request);
  request.on_done(request);  // the last look at it
  active_.fetch_sub(1, std::memory_order_release);
}

void HttpClient::finish_failed(HttpRequest& request, Error why) {
  const bool answered = why.code == Code::not_found || why.code == Code::stale || why.code == Code::stopping;
  if (!answered) counters_.errors.fetch_add(1, std::memory_order_relaxed);
  request.failed = true;
  request.error = why;
  finish(request);
}

void HttpClient::stop() {
  stopping_ = true;
  const Error why{Code::stopping, ECANCELED};
  while (HttpAttempt* attempt = running_.front()) {
    HttpRequest& request = *attempt->request;
    loop_.remove(attempt->easy);
    end_attempt(*attempt);
    if (request.attempt == nullptr) finish_failed(request, why);
  }
  for (List<HttpRequest>* list : {&waiting_, &waiting_background_, &pausing_}) {
    while (HttpRequest* request = list->pop_front()) finish_failed(*request, why);
  }
  if (!bandwidth_queue_) return;
  bandwidth_queue_->stop();
  while (BandwidthWaiter* waiter = bandwidth_queue_->pop_front()) {
    finish_failed(static_cast<HttpRequest&>(*waiter), why);
  }
}

}  // namespace blobcache
