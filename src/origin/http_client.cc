// The life of a request:
//
//   waiting --room--> running --answer--> done
//                        |  \--trouble that may pass--> pausing --time--> waiting
//                        \--trouble that stays, or deadline--> failed
// With a limit of bandwidth a range may have to wait for that too, between waiting and running (http_pace.cc).
//
// One timer a request: while an attempt runs it looks whether bytes have come since its last look, and ends the attempt if
// fewer than progress_bytes_min have (a server that drips would otherwise hold a reader for ever); while it pauses it ends
// the pause; and it never goes beyond the deadline. A retry of a range goes on behind the bytes that are there, which were
// checked to be of the version asked for, so a connection that is reset at every position still gets on.
//
// A pause is random between half and all of base << retries: cores and nodes that were refused together do not come back
// together. A server that names a time (Retry-After) is obeyed, within the deadline.
#include "origin/http_client.h"

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <utility>

#include "base/assert.h"
#include "base/limits.h"
#include "origin/http_text.h"

namespace blobcache {
namespace {

constexpr uint64_t pause_first_ns = 50'000'000;
constexpr uint64_t pause_ns_max = 5'000'000'000;
constexpr size_t progress_bytes_min = 4 * limits::KiB;
constexpr size_t idle_handles_max = 64;

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
HttpRequest::~HttpRequest() { BC_ASSERT(easy == nullptr); }

HttpClient::HttpClient(Reactor& home, const HttpOptions& options, OriginCounters& counters,
                       std::atomic<unsigned>& in_flight)
    : home_(home),
      options_(options),
      counters_(counters),
      in_flight_(in_flight),
      loop_(home, options.connections_max,
            {.on_done = &HttpClient::on_attempt_done, .on_acted = &HttpClient::tell_news, .context = this}),
      random_(static_cast<unsigned>(reinterpret_cast<uintptr_t>(this) ^ static_cast<uintptr_t>(std::time(nullptr)))),
      pace_timer_(&HttpClient::on_pace) {
  pace_timer_.client = this;
}

HttpClient::~HttpClient() {
  BC_ASSERT(active() == 0);
  for (CURL* easy : idle_) curl_easy_cleanup(easy);
}

void HttpClient::begin(HttpRequest& request) {
  BC_ASSERT(request.on_done != nullptr && request.easy == nullptr && !request.timer.armed());
  request.client = this;
  request.timer.handler = &HttpClient::on_watchdog;
  request.failed = false;
  request.bytes_done = request.attempts = request.retries = request.bandwidth_bytes_taken = 0;
  request.asked_again = request.has_news = false;
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
  if (const Result<void> ready = set_up(request); !ready) {
    if (ready.error().code == Code::again) return retry_or_fail(request, ready.error());
    return finish_failed(request, ready.error());
  }
  counters_.requests.fetch_add(1, std::memory_order_relaxed);
  if (request.attempts++ > 0) counters_.retries.fetch_add(1, std::memory_order_relaxed);
  in_flight_.fetch_add(1, std::memory_order_relaxed);
  running_.push_back(request);
  request.bytes_at_last_look = request.bytes_done;
  request.received_at_last_look = 0;
  const uint64_t now_ns = home_.ring().now_ns();
  home_.arm_at(request.timer, std::min(now_ns + options_.attempt_timeout_ns, request.deadline_ns));
  loop_.add(request.easy);
}

// The attempt has left libcurl's loop.
void HttpClient::end_attempt(HttpRequest& request) {
  if (request.timer.armed()) home_.cancel(request.timer);
  request.unlink();
  if (request.has_news) std::erase(news_, &request);
  request.has_news = false;
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
  long connects = 0;
  curl_easy_getinfo(request.easy, CURLINFO_NUM_CONNECTS, &connects);
  counters_.connections.fetch_add(static_cast<uint64_t>(connects), std::memory_order_relaxed);
  count_answer(request);
  settle_bandwidth(request, request.bytes_done - request.bytes_at_start);
  char* url = nullptr;
  curl_easy_getinfo(request.easy, CURLINFO_EFFECTIVE_URL, &url);
  request.effective_url = url == nullptr ? "" : url;
  CURL* easy = std::exchange(request.easy, nullptr);
  curl_slist_free_all(std::exchange(request.header_list, nullptr));
  if (idle_.size() < idle_handles_max) {
    curl_easy_reset(easy);  // it points into the request
    idle_.push_back(easy);
  } else {
    curl_easy_cleanup(easy);
  }
}

// Outside libcurl: whoever is told may begin other requests, or stop this one's reader. The request itself stays.
void HttpClient::tell_news(void* self_pointer) {
  auto& self = *static_cast<HttpClient*>(self_pointer);
  while (!self.news_.empty()) {
    HttpRequest& request = *self.news_.back();
    self.news_.pop_back();
    request.has_news = false;
    request.on_bytes(request, std::min(request.bytes_done, request.bytes - 1));
  }
}

void HttpClient::count_answer(const HttpRequest& request) {
  const size_t bytes = request.to != nullptr ? request.bytes_done - request.bytes_at_start : request.body.size();
  counters_.bytes.fetch_add(bytes, std::memory_order_relaxed);
  const long status = request.head.status;
  if (status == 429 || status == 503) counters_.throttled.fetch_add(1, std::memory_order_relaxed);
  curl_off_t first_byte_us = 0;
  curl_easy_getinfo(request.easy, CURLINFO_STARTTRANSFER_TIME_T, &first_byte_us);
  if (status != 0 && first_byte_us > 0) counters_.first_byte_us.add(static_cast<uint64_t>(first_byte_us));
}

void HttpClient::on_attempt_done(void* request_pointer, CURLcode result) {
  auto& request = *static_cast<HttpRequest*>(request_pointer);
  HttpClient& self = *request.client;
  self.end_attempt(request);
  self.judge(request, result);
  self.start_some();
}

void HttpClient::judge(HttpRequest& request, CURLcode result) {
  if (request.refused) {
    if (request.refusal_is_final) return finish_failed(request, request.error);
    return retry_or_fail(request, request.error);
  }
  // All of it came, whatever happened to the connection behind the last byte; there is nothing to ask again for.
  if (request.to != nullptr && request.bytes_done == request.bytes) return finish(request);
  if (result != CURLE_OK) {
    request.sentence = request.curl_says[0] != '\0' ? request.curl_says : curl_easy_strerror(result);
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

void HttpClient::on_watchdog(Timer& timer) {
  HttpRequest& request = *static_cast<HttpRequest::Watchdog&>(timer).request;
  HttpClient& self = *request.client;
  const uint64_t now_ns = self.home_.ring().now_ns();
  if (request.easy == nullptr) {
    request.unlink();
    if (now_ns >= request.deadline_ns) return self.finish_failed(request, {Code::timeout, ETIMEDOUT});
    self.wait_for_connection(request);
    return self.start_some();
  }
  const bool late = now_ns >= request.deadline_ns;
  const size_t received = request.body.size();
  const bool moves = request.bytes_done >= request.bytes_at_last_look + progress_bytes_min ||
                     received >= request.received_at_last_look + progress_bytes_min;
  if (!late && moves) {
    request.bytes_at_last_look = request.bytes_done;
    request.received_at_last_look = received;
    self.home_.arm_at(request.timer, std::min(now_ns + self.options_.attempt_timeout_ns, request.deadline_ns));
    return;
  }
  self.loop_.remove(request.easy);
  self.end_attempt(request);
  if (request.to != nullptr && request.bytes_done == request.bytes && !request.refused) {
    self.finish(request);
  } else if (late) {
    self.finish_failed(request, {Code::timeout, ETIMEDOUT});
  } else {
    self.retry_or_fail(request, {Code::timeout, ETIMEDOUT});
  }
  self.start_some();
}

void HttpClient::finish(HttpRequest& request) {
  if (request.timer.armed()) home_.cancel(request.timer);
  settle_bandwidth(request, 0);
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
  while (HttpRequest* request = running_.front()) {
    loop_.remove(request->easy);
    end_attempt(*request);
    finish_failed(*request, why);
  }
  if (pace_timer_.armed()) home_.cancel(pace_timer_);
  for (List<HttpRequest>* list : {&waiting_, &waiting_background_, &pausing_, &paced_, &paced_background_}) {
    while (HttpRequest* request = list->pop_front()) finish_failed(*request, why);
  }
}

}  // namespace blobcache
