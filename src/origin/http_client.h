// HttpClient: HTTP requests of one origin on one core: queue, attempts, retries, deadlines, and what an answer must be.
//   Owner     an origin, one for each reactor that ever asked it
//   Thread    the reactor's
//   Lifetime  a request is the caller's and lives until on_done; stop() ends all of them with Code::stopping
//   Limits    connections_max attempts in flight, counted over all cores of the origin; a core that has none in flight may
//             always begin one, so at most cores - 1 more
//             with a Bandwidth, ranges and second attempts wait for it; the ranges' deadlines stand still meanwhile
//   Promises  bytes go to `to` only from an answer that is exactly the range asked for, of the version asked for, and never
//             beyond to + bytes. A request ends within its deadline.
//   Errors    not_found (404, 410), denied (401, 403, a certificate that is not trusted), stale (412, 416, another ETag),
//             timeout, protocol (an answer that breaks the rules), corrupt (other bytes than the store's checksum is of),
//             invalid (other 4xx), io (the rest), stopping
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <curl/curl.h>

#include "base/limits.h"
#include "base/list.h"
#include "base/live_value.h"
#include "base/result.h"
#include "origin/bandwidth_queue.h"
#include "origin/checksum.h"
#include "origin/curl_loop.h"
#include "origin/http_attempt.h"
#include "origin/origin.h"
#include "ring/reactor.h"

namespace blobcache {

struct HttpRequest;

// Adds what proves who we are, to each attempt anew.
class HttpAuthorizer {
 public:
  // `headers`: "Name: value" lines to add to. Errors: again (credentials are being fetched), denied (there are none).
  virtual Result<void> authorize(const HttpRequest& request, std::vector<std::string>& headers) = 0;
  // The server answered 400, 401 or 403. True: the reason has been removed, ask once more.
  virtual bool may_ask_again(const HttpRequest& request) = 0;

 protected:
  ~HttpAuthorizer() = default;
};

enum class HttpVerb : uint8_t { get, head };

struct HttpRequest : BandwidthWaiter {
  HttpRequest();
  ~HttpRequest();

  // in
  HttpVerb verb = HttpVerb::get;
  std::string scheme_and_host;  // "https://host:port"
  std::string path;             // encoded, begins with '/'
  std::string query;            // encoded, sorted by name, without '?'
  std::string
      expected_version;     // "" or the ETag (strong or weak) or "@" and the Last-Modified that an answer must have
  std::byte* to = nullptr;  // null: the body is kept in `body`
  std::span<const ReadPiece> pieces;  // as ReadCall::pieces
  uint64_t offset = 0;                // with `to`
  uint32_t bytes = 0;
  // With `to`: `bytes` are all of the object. It is asked for without a range, and verified where the server offers a
  // checksum; then nobody is told of it early.
  bool whole = false;
  size_t body_bytes_max = 0;  // without `to`; a longer body is Code::protocol
  bool may_follow = false;    // redirects
  bool background = false;    // nobody waits for it: begun when nothing else waits for a connection
  void (*on_done)(HttpRequest& request) = nullptr;
  // With `to`, may be null: bytes_done has grown; those bytes are final. Not told of the last byte, which is on_done's.
  void (*on_bytes)(HttpRequest& request, uint32_t bytes_done) = nullptr;
  void* context = nullptr;

  // out
  bool failed = false;
  Error error{};
  HttpHead head;
  std::string body;           // or the beginning of what the server said with an error
  std::string effective_url;  // where the redirects led
  std::string sentence;       // what libcurl says about a failure without a status

  // HttpClient's own
  class HttpClient* client = nullptr;
  HttpAttempt* attempt = nullptr;      // in flight; null: none is
  HttpAttempt* rival = nullptr;        // begun beside it (http_hedge.cc)
  uint32_t bytes_done = 0;             // in `to`, of the version asked for: an attempt goes on where the last one ended
  uint32_t bytes_at_start = 0;         // of the attempt in flight
  std::unique_ptr<Checksum> checksum;  // of the first bytes_done bytes; null: none is known
  std::string digest_before;           // that did not match
  uint32_t attempts = 0;
  uint32_t retries = 0;  // those of them that brought nothing
  uint64_t deadline_ns = 0;
  uint32_t bandwidth_bytes_taken = 0;  // for the attempt that runs or comes next
  uint32_t hedge_bandwidth_bytes_taken = 0;
  bool asked_again = false;
  bool has_news = false;  // in news_
  bool refused = false;   // we ended the last attempt: `error` says why
  bool refusal_is_final = false;
  struct PauseTimer : Timer {
    HttpRequest* request = nullptr;
  } timer;  // while no attempt is in flight
};

struct HttpOptions {
  unsigned connections_max = 16;
  LiveValue<uint64_t> attempt_timeout_ns = 10'000'000'000;  // without progress
  LiveValue<uint64_t> deadline_ns = 60'000'000'000;
  LiveValue<unsigned> retries_max = 5;
  std::string ca_file;                   // empty: the system's
  bool http1_only = false;               // S3: many connections are faster than many streams in one
  HttpAuthorizer* authorizer = nullptr;  // null: nobody asks who we are
  Bandwidth* bandwidth = nullptr;        // of ranges, over all cores; null: no limit
};

class HttpClient {
 public:
  HttpClient(Reactor& home, const HttpOptions& options, OriginCounters& counters, std::atomic<unsigned>& in_flight);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  void begin(HttpRequest& request);
  // Requests in any state. Read by other threads.
  unsigned active() const { return active_.load(std::memory_order_acquire); }
  // On the reactor's thread.
  void stop();
  Reactor& home() { return home_; }

 private:
  // http_attempt.cc
  Result<HttpAttempt*> set_up(HttpRequest& request);
  static size_t on_header(char* line, size_t size, size_t count, void* attempt);
  static size_t on_body(char* bytes, size_t size, size_t count, void* attempt);
  static bool check_body(HttpAttempt& attempt);
  static void refuse(HttpAttempt& attempt, Error why, bool final);
  static bool take_bytes(HttpAttempt& attempt, const char* bytes, size_t length);
  HttpAttempt* acquire_attempt();
  void release_attempt(HttpAttempt& attempt);

  // http_hedge.cc
  uint64_t patience_ns() const;
  void earn_hedge(const HttpRequest& request);
  bool try_spend_credit();
  void give_back_credit();
  void arm_impatience(HttpAttempt& attempt);
  static void on_impatience(Timer& timer);
  void start_hedges();
  void hedge(HttpRequest& request);
  void lose(HttpAttempt& attempt);
  void remove_lost();

  // http_pace.cc
  bool take_bandwidth(HttpRequest& request);
  bool take_hedge_bandwidth(HttpRequest& request);
  static void on_bandwidth(BandwidthWaiter& waiter, void* self);
  void settle_bandwidth(HttpRequest& request);
  void settle_hedge(HttpRequest& request);

  void wait_for_connection(HttpRequest& request);
  void start_some();
  void start_attempt(HttpRequest& request);
  void send(HttpAttempt& attempt);
  static void on_attempt_done(void* attempt, CURLcode result);
  static void on_acted(void* self);
  void tell_news();
  void end_attempt(HttpAttempt& attempt);
  void count_answer(const HttpAttempt& attempt);
  void judge(HttpRequest& request, CURLcode result);
  void judge_status(HttpRequest& request);
  void finish_range(HttpRequest& request);
  bool is_verified(HttpRequest& request);
  void retry_or_fail(HttpRequest& request, Error why);
  void finish(HttpRequest& request);
  void finish_failed(HttpRequest& request, Error why);
  static void on_pause_over(Timer& timer);
  static void on_watchdog(Timer& timer);
  uint64_t backoff_ns(const HttpRequest& request);

  Reactor& home_;
  const HttpOptions& options_;
  OriginCounters& counters_;
  std::atomic<unsigned>& in_flight_;  // of all cores
  std::atomic<unsigned> active_{0};
  bool stopping_ = false;
  CurlLoop loop_;
  std::vector<std::unique_ptr<HttpAttempt>> idle_;
  std::vector<HttpAttempt*> lost_;  // to be ended outside libcurl
  std::vector<HttpRequest*> news_;  // whose bytes have come in this call of libcurl
  List<HttpRequest> waiting_;
  List<HttpRequest> waiting_background_;
  static constexpr unsigned background_share = 4;
  unsigned passed_over_ = 0;   // requests that went before those of the background
  List<HttpRequest> stalled_;  // running, and to be hedged when there is a connection
  List<HttpAttempt> running_;
  List<HttpRequest> pausing_;  // the next attempt has to wait
  std::minstd_rand random_;
  std::optional<BandwidthQueue> bandwidth_queue_;  // none: no limit
};

// The version that an answer is: its ETag, or "@" and its Last-Modified, or "" (it has neither); made compact.
std::string version_of(const HttpHead& head);
// What is longer than a FileVersion (63 bytes) as "#" and a hash of it.
std::string compact_version(std::string version);

}  // namespace blobcache
