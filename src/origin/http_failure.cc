#include "origin/http_failure.h"

#include <cerrno>

#include <fmt/format.h>

#include "base/units.h"

namespace blobcache {
namespace {

constexpr uint64_t s_ns = 1'000'000'000;

struct Words {
  std::string cause;
  std::string_view remedy;
};

Words words_of_status(const HttpRequest& request, std::string_view said) {
  const long status = request.head.status;
  const std::string answer =
      fmt::format("the answer was status {}{}", status, said.empty() ? "" : fmt::format(" ({})", said));
  if (status == 401 || status == 403) {
    return {answer, "check the credentials and their right to read (S3: s3:GetObject, s3:ListBucket)"};
  }
  if (status == 429 || status == 503) {
    return {answer, "the server is overloaded: lower origin.connections, or ask for a higher limit there"};
  }
  if (status >= 500) return {answer, "look into the server's log"};
  if (status >= 300 && status < 400) return {answer, "the server moved: set its new address or volume.s3.region"};
  return {answer, "check the source, and what stands between this machine and the server"};
}

Words words_of(const HttpRequest& request, std::string_view said) {
  const Error& error = request.error;
  const bool good_status = request.head.status >= 200 && request.head.status < 300;
  if (error.code == Code::timeout && (request.head.status == 0 || good_status)) {
    const std::string_view how = request.bytes_done > 0 ? "the server stopped sending" : "the server did not answer";
    return {std::string(how), "check the server and the network, or raise origin.attempt_timeout and origin.deadline"};
  }
  if (error.code == Code::corrupt) {
    return {request.sentence, "compare the object with its source, or look for what changes bytes on the way"};
  }
  if (error.code == Code::protocol && good_status) {
    return {"the answer is something else than what was asked for",
            "the server ignores ranges, or a proxy answers in its place: ask it directly"};
  }
  if (error.os_errno == ENOMEM) return {"memory is short", "raise the limit of the service"};
  if (request.head.status == 0 || good_status) {
    const std::string cause = request.sentence.empty() ? "the connection broke" : request.sentence;
    if (error.code == Code::denied) return {cause, "check the server's certificate and volume.s3.ca_file"};
    return {cause, "check that the server runs, and the network to it"};
  }
  return words_of_status(request, said);
}

}  // namespace

std::string failure_sentence(const HttpRequest& request, const HttpOptions& options, std::string_view doing,
                             std::string_view said) {
  if (!request.failed) return {};
  const Code code = request.error.code;
  if (code == Code::not_found || code == Code::stale || code == Code::stopping) return {};
  const Words words = words_of(request, said);
  const std::string tried = request.attempts > 1 ? fmt::format(" ({} attempts within {})", request.attempts,
                                                               format_duration_ns(options.deadline_ns))
                                                 : "";
  return fmt::format("{} from {} failed: {}{}; {}", doing, request.scheme_and_host, words.cause, tried, words.remedy);
}

bool LinePerSecond::may_say(uint64_t now_ns, uint64_t* left_unsaid) {
  uint64_t next_ns = next_ns_.load(std::memory_order_relaxed);
  if (now_ns < next_ns || !next_ns_.compare_exchange_strong(next_ns, now_ns + s_ns, std::memory_order_relaxed)) {
    left_unsaid_.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  *left_unsaid = left_unsaid_.exchange(0, std::memory_order_relaxed);
  return true;
}

}  // namespace blobcache
