#include "origin/http_blocking.h"

#include <memory>

#include <curl/curl.h>

#include "origin/http_client.h"
#include "origin/http_text.h"
#include "origin/receive_buffers.h"

namespace blobcache {
namespace {

constexpr size_t answer_bytes_max = 1 << 20;

size_t on_body(char* bytes, size_t size, size_t count, void* body_pointer) {
  auto& body = *static_cast<std::string*>(body_pointer);
  if (body.size() + size * count > answer_bytes_max) return 0;
  body.append(bytes, size * count);
  return size * count;
}

}  // namespace

BlockingAnswer ask_blocking(const BlockingHttp& request) {
  set_up_libcurl();
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> easy(curl_easy_init(), &curl_easy_cleanup);
  BlockingAnswer answer;
  if (easy == nullptr) return answer;
  curl_slist* list = nullptr;
  for (const std::string& line : request.headers) {
    if (is_one_line(line)) list = curl_slist_append(list, line.c_str());  // tokens come from files and services
  }
  const std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> headers(list, &curl_slist_free_all);
  curl_easy_setopt(easy.get(), CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(easy.get(), CURLOPT_CUSTOMREQUEST, request.verb.c_str());
  curl_easy_setopt(easy.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(easy.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy.get(), CURLOPT_WRITEFUNCTION, &on_body);
  curl_easy_setopt(easy.get(), CURLOPT_WRITEDATA, &answer.body);
  curl_easy_setopt(easy.get(), CURLOPT_TIMEOUT_MS, request.timeout_ms);
  curl_easy_setopt(easy.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy.get(), CURLOPT_QUICK_EXIT, 1L);
  if (!request.through_proxy) curl_easy_setopt(easy.get(), CURLOPT_NOPROXY, "*");
  if (!request.ca_file.empty()) curl_easy_setopt(easy.get(), CURLOPT_CAINFO, request.ca_file.c_str());
  if (curl_easy_perform(easy.get()) != CURLE_OK) return answer;
  curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &answer.status);
  return answer;
}

}  // namespace blobcache
