// HttpAttempt: one attempt of a request: one transfer of libcurl, what its answer says, how far it is, and its timers.
//   Owner     its HttpClient, which uses it again for another request
//   Thread    the reactor's
//   Invariant while a request has two attempts, none of them has written a byte since the second was begun; the first that
//             is about to makes the other one `lost`, and what has lost writes nothing any more
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <curl/curl.h>

#include "base/list.h"
#include "base/result.h"
#include "ring/timer.h"

namespace blobcache {

struct HttpRequest;

// What came before the body, of the last answer in a row of redirects.
struct HttpHead {
  long status = 0;
  std::string content_length;
  std::string content_range;
  std::string content_type;
  std::string content_encoding;
  std::string etag;
  std::string last_modified;
  std::string retry_after;
  std::string date;
  std::string bucket_region;  // x-amz-bucket-region
  // x-amz-checksum-*, of the whole object
  std::string checksum_crc64nvme;
  std::string checksum_crc32c;
  std::string checksum_crc32;
  std::string checksum_sha256;
  std::string checksum_sha1;
  std::string encryption;           // x-amz-server-side-encryption
  std::string customer_encryption;  // x-amz-server-side-encryption-customer-algorithm
};

struct HttpAttempt : ListNode {
  HttpAttempt() { watchdog.attempt = impatience.attempt = this; }
  ~HttpAttempt() { curl_easy_cleanup(easy); }

  CURL* const easy = curl_easy_init();  // null: memory is short
  curl_slist* header_list = nullptr;
  HttpRequest* request = nullptr;  // null: idle
  bool is_hedge = false;
  bool lost = false;

  // The answer so far.
  HttpHead head;
  std::string body;  // without HttpRequest::to, or what the server said with an error
  bool body_checked = false;
  bool refused = false;  // we ended it: `error` says why
  bool refusal_is_final = false;
  Error error{};
  char curl_says[CURL_ERROR_SIZE] = {};

  uint64_t bytes_received = 0;  // of bodies
  uint64_t begun_ns = 0;
  uint64_t heard_ns = 0;               // the last byte of the body; before that, the start
  uint64_t received_at_last_look = 0;  // of the watchdog

  struct AttemptTimer : Timer {
    HttpAttempt* attempt = nullptr;
  };
  AttemptTimer watchdog;    // ends it
  AttemptTimer impatience;  // begins another one beside it
};

}  // namespace blobcache
