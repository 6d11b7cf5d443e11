// One attempt of a request as libcurl sees it: its options, and the callbacks that look at the answer as it arrives.
//
// An answer is looked at before its first byte is taken: status, Content-Range, version, encoding. So bytes of another
// range or version never reach the frame, and a server that sends the whole object for a range is cut off at once.
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "origin/http_client.h"
#include "origin/http_text.h"
#include "origin/receive_buffers.h"

namespace blobcache {
namespace {

constexpr size_t said_bytes_max = 16 * limits::KiB;  // kept of an answer that is an error
constexpr long redirects_max = 5;
constexpr size_t header_bytes_max = 4 * limits::KiB;

struct KnownHeader {
  std::string_view name;
  std::string HttpHead::* place;
};
constexpr std::array known_headers{
    KnownHeader{"content-length", &HttpHead::content_length},
    KnownHeader{"content-range", &HttpHead::content_range},
    KnownHeader{"content-type", &HttpHead::content_type},
    KnownHeader{"content-encoding", &HttpHead::content_encoding},
    KnownHeader{"etag", &HttpHead::etag},
    KnownHeader{"last-modified", &HttpHead::last_modified},
    KnownHeader{"retry-after", &HttpHead::retry_after},
    KnownHeader{"date", &HttpHead::date},
    KnownHeader{"x-amz-bucket-region", &HttpHead::bucket_region},
    KnownHeader{"x-amz-checksum-crc64nvme", &HttpHead::checksum_crc64nvme},
    KnownHeader{"x-amz-checksum-crc32c", &HttpHead::checksum_crc32c},
    KnownHeader{"x-amz-checksum-crc32", &HttpHead::checksum_crc32},
    KnownHeader{"x-amz-checksum-sha256", &HttpHead::checksum_sha256},
    KnownHeader{"x-amz-checksum-sha1", &HttpHead::checksum_sha1},
    KnownHeader{"x-amz-server-side-encryption", &HttpHead::encryption},
    KnownHeader{"x-amz-server-side-encryption-customer-algorithm", &HttpHead::customer_encryption},
};

constexpr size_t idle_attempts_max = 64;

// Versions and tokens come from elsewhere: what would end its line, and begin another, is left out.
void set_headers(HttpAttempt& attempt, const std::vector<std::string>& lines) {
  for (const std::string& line : lines) {
    if (is_one_line(line)) attempt.header_list = curl_slist_append(attempt.header_list, line.c_str());
  }
  curl_easy_setopt(attempt.easy, CURLOPT_HTTPHEADER, attempt.header_list);
}

}  // namespace

HttpAttempt* HttpClient::acquire_attempt() {
  std::unique_ptr<HttpAttempt> attempt;
  if (idle_.empty()) {
    attempt = std::make_unique<HttpAttempt>();
    if (attempt->easy == nullptr) return nullptr;
  } else {
    attempt = std::move(idle_.back());
    idle_.pop_back();
  }
  attempt->head = {};
  attempt->body.clear();
  attempt->curl_says[0] = '\0';
  attempt->is_hedge = attempt->lost = false;
  attempt->body_checked = attempt->refused = attempt->refusal_is_final = false;
  attempt->bytes_received = attempt->received_at_last_look = 0;
  attempt->watchdog.handler = &HttpClient::on_watchdog;
  attempt->impatience.handler = &HttpClient::on_impatience;
  return attempt.release();
}

void HttpClient::release_attempt(HttpAttempt& attempt) {
  std::unique_ptr<HttpAttempt> owned(&attempt);
  curl_slist_free_all(std::exchange(attempt.header_list, nullptr));
  attempt.request = nullptr;
  if (idle_.size() < idle_attempts_max) idle_.push_back(std::move(owned));
}

Result<HttpAttempt*> HttpClient::set_up(HttpRequest& request) {
  std::vector<std::string> headers;
  if (request.to != nullptr) {
    if (!request.whole || request.bytes_done > 0) {
      headers.push_back(
          fmt::format("Range: bytes={}-{}", request.offset + request.bytes_done, request.offset + request.bytes - 1));
    }
    // If-Match compares strongly: a weak ETag never matches (RFC 9110 13.1.1). Ours is compared with the answer's anyway.
    if (request.expected_version.starts_with('"')) headers.push_back("If-Match: " + request.expected_version);
  }
  if (options_.authorizer != nullptr) {
    if (const Result<void> done = options_.authorizer->authorize(request, headers); !done) {
      return std::unexpected(done.error());
    }
  }

  HttpAttempt* const attempt = acquire_attempt();
  if (attempt == nullptr) return fail(Code::again, ENOMEM);
  attempt->request = &request;
  CURL* const easy = attempt->easy;
  std::string url = request.scheme_and_host + request.path;
  if (!request.query.empty()) url += "?" + request.query;
  curl_easy_reset(easy);
  curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
  curl_easy_setopt(easy, CURLOPT_PRIVATE, attempt);
  curl_easy_setopt(easy, CURLOPT_NOBODY, request.verb == HttpVerb::head ? 1L : 0L);
  set_headers(*attempt, headers);
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &HttpClient::on_header);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, attempt);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &HttpClient::on_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, attempt);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, attempt->curl_says);
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, static_cast<long>(http_receive_buffer_bytes));
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, request.may_follow ? 1L : 0L);
  curl_easy_setopt(easy, CURLOPT_MAXREDIRS, redirects_max);
  curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, options_.http1_only ? CURL_HTTP_VERSION_1_1 : CURL_HTTP_VERSION_2TLS);
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "blobcache/" BLOBCACHE_VERSION);
  // Timeouts are the watchdog's; libcurl's own for connections is only made no longer than it.
  const uint64_t connect_ms = std::max<uint64_t>(options_.attempt_timeout_ns / 1'000'000, 1);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(connect_ms));
  // A resolver thread that hangs is left behind, never waited for; and no signal interrupts it.
  curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  if (!options_.ca_file.empty()) curl_easy_setopt(easy, CURLOPT_CAINFO, options_.ca_file.c_str());
  return attempt;
}

size_t HttpClient::on_header(char* line, size_t size, size_t count, void* attempt_pointer) {
  auto& attempt = *static_cast<HttpAttempt*>(attempt_pointer);
  const std::string_view text(line, size * count);
  if (text.starts_with("HTTP/")) {
    // The next answer in a row: after 100 Continue, or after a redirect.
    attempt.head = {};
    const size_t space = text.find(' ');
    const std::optional<uint64_t> status =
        space == std::string_view::npos ? std::nullopt : parse_count(trim(text.substr(space)).substr(0, 3));
    attempt.head.status = static_cast<long>(status.value_or(0));
    return text.size();
  }
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos || text.size() > header_bytes_max) return text.size();
  for (const KnownHeader& known : known_headers) {
    if (!equals_ignoring_case(text.substr(0, colon), known.name)) continue;
    attempt.head.*known.place = trim(text.substr(colon + 1));
    break;
  }
  return text.size();
}

void HttpClient::refuse(HttpAttempt& attempt, Error why, bool final) {
  attempt.refused = true;
  attempt.refusal_is_final = final;
  attempt.error = why;
}

// False: these bytes are not what was asked for, and none of them is taken.
bool HttpClient::check_body(HttpAttempt& attempt) {
  const HttpRequest& request = *attempt.request;
  const HttpHead& head = attempt.head;
  if (request.to == nullptr || head.status < 200 || head.status >= 300) return true;
  if (!head.content_encoding.empty() && !equals_ignoring_case(head.content_encoding, "identity")) {
    refuse(attempt, {Code::protocol}, true);
    return false;
  }
  const uint64_t first = request.offset + request.bytes_done;
  const uint64_t last = request.offset + request.bytes - 1;
  if (head.status == 206) {
    const std::optional<ContentRange> range = parse_content_range(head.content_range);
    // The length too: a body that goes on behind its range is of something else.
    const std::optional<uint64_t> length = parse_count(head.content_length);
    const bool fits = head.content_length.empty() || length == last - first + 1;
    if (!range || range->first != first || range->last != last || !fits) {
      refuse(attempt, {Code::protocol}, false);
      return false;
    }
  } else if (head.status != 200 || first != 0 || parse_count(head.content_length) != request.bytes) {
    // The whole object for a part of it: such a server would send all of it again for every block. Without the version that
    // was asked for it is an error page, which may be gone the next time.
    const bool ignores_ranges = head.status == 200 && version_of(head) == request.expected_version;
    // Asked for all of it: another version is another length.
    const bool replaced = request.whole && first == 0 && !ignores_ranges && !version_of(head).empty();
    if (replaced) {
      refuse(attempt, {Code::stale, ESTALE}, true);
    } else {
      refuse(attempt, {Code::protocol, EPROTO}, ignores_ranges && !request.whole);
    }
    return false;
  }
  if (!request.expected_version.empty() && version_of(head) != request.expected_version) {
    const bool unnamed = version_of(head).empty();  // an error page, or a proxy between
    refuse(attempt, {unnamed ? Code::protocol : Code::stale}, !unnamed);
    return false;
  }
  return true;
}

namespace {

// Behind the bytes_done that are there.
void place_bytes(const HttpRequest& request, std::string_view bytes) {
  if (request.pieces.empty()) {
    std::memcpy(request.to + request.bytes_done, bytes.data(), bytes.size());
    return;
  }
  size_t skip = request.bytes_done;
  for (const ReadPiece& piece : request.pieces) {
    if (bytes.empty()) return;
    if (skip >= piece.bytes) {
      skip -= piece.bytes;
      continue;
    }
    const size_t here = std::min(bytes.size(), piece.bytes - skip);
    std::memcpy(piece.to + skip, bytes.data(), here);
    bytes.remove_prefix(here);
    skip = 0;
  }
  BC_ASSERT(bytes.empty());  // the pieces are `bytes` in all
}

}  // namespace

// The next bytes of a range. False: it ends here.
bool HttpClient::take_bytes(HttpAttempt& attempt, const char* bytes, size_t length) {
  HttpRequest& request = *attempt.request;
  HttpClient& self = *request.client;
  if (length > request.bytes - request.bytes_done) {
    // Some of it may have been told of already. Its place and version were right as far as anyone can see.
    refuse(attempt, {Code::protocol}, true);
    return false;
  }
  if (request.rival != nullptr) {
    // libcurl hands out what it has received in several pieces before the loser can be removed.
    HttpAttempt& other = &attempt == request.rival ? *request.attempt : *request.rival;
    if (!other.lost) self.lose(other);
  }
  if (request.linked()) {  // it stalled, and does no more
    self.settle_hedge(request);
    self.arm_impatience(attempt);
  }
  if (request.whole && request.bytes_done == 0) {
    request.checksum =
        attempt.head.status == 200
            ? Checksum::offered_by(attempt.head, !self.counters_.etags_are_no_md5.load(std::memory_order_relaxed))
            : nullptr;
  }
  if (request.checksum != nullptr) request.checksum->add(bytes, length);
  place_bytes(request, {bytes, length});
  request.bytes_done += static_cast<uint32_t>(length);
  // Without a length nothing is known of what is still to come: nobody is told of it early. Nor of what can be verified.
  if (request.on_bytes != nullptr && request.checksum == nullptr && !request.has_news &&
      !attempt.head.content_length.empty()) {
    request.has_news = true;
    self.news_.push_back(&request);
  }
  return true;
}

size_t HttpClient::on_body(char* bytes, size_t size, size_t count, void* attempt_pointer) {
  constexpr size_t stop = 0;
  auto& attempt = *static_cast<HttpAttempt*>(attempt_pointer);
  if (attempt.lost) return stop;
  const HttpRequest& request = *attempt.request;
  const size_t length = size * count;
  attempt.heard_ns = request.client->home_.now_ns();
  if (!attempt.body_checked) {
    attempt.body_checked = true;
    if (!check_body(attempt)) return stop;
  }
  attempt.bytes_received += length;
  const bool good = attempt.head.status >= 200 && attempt.head.status < 300;
  if (request.to != nullptr && good) return take_bytes(attempt, bytes, length) ? length : stop;
  const size_t room = (good ? request.body_bytes_max : said_bytes_max) - attempt.body.size();
  if (length > room && good) {
    refuse(attempt, {Code::protocol}, true);
    return stop;
  }
  attempt.body.append(bytes, std::min(length, room));
  return length;
}

}  // namespace blobcache
