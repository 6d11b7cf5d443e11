// Where a bucket is, what is asked of it, and who asks.
//
// A look-up is two requests side by side: one cannot be spared. HEAD knows nothing of directories, and a listing with the
// key as prefix and the delimiter has any number of names ("a-1", "a.b") between "a" and "a/".
//
// Credentials that expire are fetched anew by a helper thread once less than five minutes are left; requests go on with the
// old ones until then. A server that says that ours are old, or that our clock is wrong (its Date tells by how much), is
// asked again once, with what is right.
#include "origin/s3.h"

#include <cctype>
#include <cerrno>
#include <ctime>
#include <utility>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "origin/http_text.h"
#include "origin/s3_origin.h"

namespace blobcache {
namespace {

constexpr int64_t refresh_before_s = 300;
constexpr int64_t refresh_pause_s = 1;  // services give the old ones until shortly before their end
constexpr int64_t reload_pause_s = 10;  // between two looks for other credentials because the server refused ours
constexpr int64_t clock_wrong_s = 240;  // S3 refuses from 15 minutes on
constexpr size_t small_page_bytes_max = 64 * limits::KiB;

bool is_plain_host_label(std::string_view bucket) {
  for (const char c : bucket) {
    if (!(std::islower(static_cast<unsigned char>(c)) || std::isdigit(static_cast<unsigned char>(c)) || c == '-'))
      return false;
  }
  return bucket.size() >= 3 && bucket.size() <= 63;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

int64_t now_s() { return static_cast<int64_t>(std::time(nullptr)); }

bool is_credential_trouble(std::string_view code) {
  return code == "ExpiredToken" || code == "TokenRefreshRequired" || code == "InvalidToken" ||
         code == "InvalidAccessKeyId" || code == "SignatureDoesNotMatch";
}

}  // namespace

// Places.

std::string S3Place::host() const {
  std::string authority = fmt::format("s3.{}.amazonaws.com", region);
  if (!endpoint.empty()) authority = endpoint.substr(endpoint.find("://") + 3);
  return bucket_in_host ? bucket + "." + authority : authority;
}

std::string S3Place::scheme_and_host() const {
  const std::string scheme = endpoint.empty() ? "https" : endpoint.substr(0, endpoint.find("://"));
  return scheme + "://" + host();
}

std::string S3Place::path(std::string_view key) const {
  return (bucket_in_host ? "/" : "/" + bucket + "/") + percent_encode_path(key);
}

// The names of AWS's buckets are unique in the world, whatever the region.
std::string S3Place::canonical_source() const {
  return fmt::format("s3://{}/{}/{}", endpoint.empty() ? "aws" : endpoint, bucket, prefix);
}

Result<S3Place> parse_s3_place(const VolumeConfig& volume, std::string* why) {
  const auto refuse = [&](std::string text) {
    *why = std::move(text);
    return fail(Code::invalid, EINVAL);
  };
  constexpr std::string_view scheme = "s3://";
  BC_ASSERT(volume.source.starts_with(scheme));
  const std::string_view rest = std::string_view(volume.source).substr(scheme.size());
  const size_t slash = rest.find('/');
  S3Place place;
  place.bucket = rest.substr(0, slash);
  if (slash != std::string_view::npos) place.prefix = rest.substr(slash + 1);
  while (place.prefix.ends_with('/')) place.prefix.pop_back();
  if (!place.prefix.empty()) place.prefix += '/';
  if (place.bucket.empty() || place.bucket.find_first_of("?#@:% ") != std::string::npos) {
    return refuse(fmt::format("the source {} names no bucket; write it as s3://BUCKET/PREFIX", volume.source));
  }
  place.region = volume.s3.region;
  place.endpoint = volume.s3.endpoint;
  if (place.endpoint.empty()) place.endpoint = environment("AWS_ENDPOINT_URL_S3");
  if (place.endpoint.empty()) place.endpoint = environment("AWS_ENDPOINT_URL");
  while (place.endpoint.ends_with('/')) place.endpoint.pop_back();
  const bool has_scheme = place.endpoint.starts_with("http://") || place.endpoint.starts_with("https://");
  if (!place.endpoint.empty() &&
      (!has_scheme || place.endpoint.find_first_of("/?#@ ", place.endpoint.find("://") + 3) != std::string::npos)) {
    return refuse(
        fmt::format("volume.s3.endpoint = \"{}\" is no http(s)://HOST[:PORT]; leave out any path", place.endpoint));
  }
  place.bucket_in_host =
      volume.s3.addressing == Addressing::virtual_host ||
      (volume.s3.addressing == Addressing::automatic && place.endpoint.empty() && is_plain_host_label(place.bucket));
  return place;
}

// Requests.

S3Origin::S3Origin(RemoteOptions options, S3Place place, CredentialOptions credential_options,
                   AwsCredentials credentials)
    : RemoteOrigin(std::move(options)),
      place_(std::move(place)),
      canonical_source_(place_.canonical_source()),
      credential_options_(std::move(credential_options)),
      credentials_(std::move(credentials)),
      loaded_s_(now_s()),
      blocking_(1) {
  http_options().authorizer = this;
}

S3Origin::~S3Origin() = default;

void S3Origin::address_read(const ReadCall& call, HttpRequest& request) {
  request.scheme_and_host = place_.scheme_and_host();
  request.path = place_.path(place_.prefix + call.key);
  request.whole = call.offset == 0 && call.bytes == call.object_bytes;
}

// Sorted by name, as the signature wants it.
void S3Origin::address_listing(HttpRequest& request, const ListingOptions& listing) const {
  request.scheme_and_host = place_.scheme_and_host();
  request.path = place_.path("");
  // A bucket in the path is "/bucket", without the slash that keys follow.
  if (!place_.bucket_in_host) request.path.pop_back();
  request.query.clear();
  if (!listing.token.empty()) request.query += fmt::format("continuation-token={}&", percent_encode(listing.token));
  if (listing.delimited) request.query += "delimiter=%2F&";
  request.query += fmt::format("encoding-type=url&list-type=2&max-keys={}&prefix={}", listing.keys_max,
                               percent_encode(listing.prefix));
}

void S3Origin::look(HttpClient& client, LookJob& job) {
  HttpRequest& head = job.requests[0];
  HttpRequest& list = job.requests[1];
  const std::string key = place_.prefix + job.key;
  head.verb = HttpVerb::head;
  head.scheme_and_host = place_.scheme_and_host();
  head.path = place_.path(key);
  address_listing(list, {.prefix = key + "/", .token = "", .keys_max = 1, .delimited = false});
  list.body_bytes_max = small_page_bytes_max;
  job.requests_left = 2;
  for (HttpRequest& request : job.requests) {
    request.context = &job;
    request.on_done = &S3Origin::on_looked;
  }
  // The first may end the moment it is begun (stopping), but never both of them.
  client.begin(head);
  client.begin(list);
}

void S3Origin::on_looked(HttpRequest& request) {
  auto& job = *static_cast<LookJob*>(request.context);
  if (!one_request_less(job)) return;
  auto& self = static_cast<S3Origin&>(*job.origin);
  const Result<KnownName> found = self.judge_look(job);
  if (!found) {
    const bool head_failed = job.requests[0].failed && job.requests[0].error.code != Code::not_found;
    self.tell_failure("looking up", job.key, job.requests[head_failed ? 0 : 1]);
  }
  self.end_look(job, found);
}

Result<KnownName> S3Origin::judge_look(const LookJob& job) const {
  const HttpRequest& head = job.requests[0];
  const HttpRequest& list = job.requests[1];
  Result<S3Page> page = S3Page{};
  if (list.failed) {
    page = std::unexpected(list.error);
  } else {
    page = parse_s3_page(list.body);
  }
  if (page && (!page->objects.empty() || !page->prefixes.empty())) {
    return KnownName{.exists = true, .info = directory_info(job.key)};
  }
  const bool absent = head.failed && head.error.code == Code::not_found;
  if (head.failed && !absent) return std::unexpected(head.error);
  // Who may read but not list has no directories; what is there can still be opened by its name.
  if (!page && page.error().code != Code::denied) return std::unexpected(page.error());
  if (absent) return KnownName{};
  const std::optional<uint64_t> size = parse_count(head.head.content_length);
  const std::string version = version_of(head.head);
  if (!size || version.empty()) return fail(Code::protocol, EPROTO);
  return KnownName{.exists = true,
                   .info = file_info(job.key, {.size = *size,
                                               .mtime_s = parse_http_date(head.head.last_modified).value_or(0),
                                               .version = version})};
}

// Credentials.

Result<void> S3Origin::authorize(const HttpRequest& request, std::vector<std::string>& headers) {
  AwsCredentials credentials;
  {
    const std::lock_guard lock(mutex_);
    const int64_t left_s = credentials_.expires_s == 0 ? INT64_MAX : credentials_.expires_s - now_s();
    const bool soon = left_s < refresh_before_s && now_s() - loaded_s_ >= refresh_pause_s;
    if ((must_refresh_ || left_s <= 0 || soon) && !refreshing_) begin_refresh(request.client->home());
    if (must_refresh_ || left_s <= 0) return fail(Code::again, EAGAIN);
    credentials = credentials_;
  }
  // Signed with the rest.
  if (request.whole) headers.push_back("x-amz-checksum-mode: ENABLED");
  if (options().volume.s3.requester_pays) headers.push_back("x-amz-request-payer: requester");
  if (credentials.access_key.empty()) return {};
  sign_request({.verb = request.verb == HttpVerb::head ? "HEAD" : "GET",
                .host = place_.host(),
                .path = request.path,
                .query = request.query,
                .region = place_.region,
                .time_s = now_s() + clock_offset_s_.load(std::memory_order_relaxed)},
               credentials, headers);
  return {};
}

bool S3Origin::may_ask_again(const HttpRequest& request) {
  if (const std::optional<int64_t> server_s = parse_http_date(request.head.date)) {
    const int64_t offset_s = *server_s - now_s();
    if (std::abs(offset_s - clock_offset_s_.load(std::memory_order_relaxed)) > clock_wrong_s) {
      clock_offset_s_.store(offset_s, std::memory_order_relaxed);
      BC_LOG(warn,
             "this machine's clock is {} s away from the clock of {}: requests are signed with the server's time; "
             "set the clock",
             offset_s, place_.host());
      return true;
    }
  }
  // The answer to a HEAD does not say why.
  const bool ours = request.verb == HttpVerb::head || is_credential_trouble(parse_s3_failure(request.body).code);
  const std::lock_guard lock(mutex_);
  if (!ours || credentials_.access_key.empty() || now_s() - loaded_s_ < reload_pause_s) return false;
  must_refresh_ = true;
  return true;
}

void S3Origin::begin_refresh(Reactor& home) {
  refresh_.origin = this;
  refresh_.run = &S3Origin::run_refresh;
  refresh_.handler = [](Op& op, int32_t, uint32_t) {
    S3Origin& self = *static_cast<Refresh&>(op).origin;
    const std::lock_guard lock(self.mutex_);
    self.refreshing_ = false;
  };
  refreshing_ = blocking_.begin(home, refresh_).has_value();
}

void S3Origin::run_refresh(BlockingCall& call) {
  S3Origin& self = *static_cast<Refresh&>(call).origin;
  std::string why;
  const Result<AwsCredentials> found = find_aws_credentials(self.credential_options_, &why);
  const std::lock_guard lock(self.mutex_);
  self.loaded_s_ = now_s();
  self.must_refresh_ = false;  // if they are no better, the server will say so
  if (found) {
    self.credentials_ = *found;
  } else {
    BC_LOG(error, "the credentials for {} could not be refreshed: {}", self.options().volume.source, why);
  }
}

void S3Origin::stop() {
  RemoteOrigin::stop();
  blocking_.stop();
}

bool S3Origin::join(unsigned patience_ms) {
  const bool clients_ended = RemoteOrigin::join(patience_ms);
  return blocking_.join(patience_ms) && clients_ended;
}

std::string S3Origin::said_by(const HttpRequest& request) const { return parse_s3_failure(request.body).code; }

// The question at the start.

std::string S3Origin::failure_sentence(const HttpRequest& request) const {
  const S3Failure failure = parse_s3_failure(request.body);
  const std::string& source = options().volume.source;
  const std::string host = place_.host();
  if (request.head.status == 0) {
    return fmt::format(
        "cannot reach {} for {}: {}; check volume.s3.endpoint, the network and the certificates "
        "(volume.s3.ca_file)",
        host, source, request.sentence.empty() ? "no answer" : request.sentence);
  }
  if (failure.code == "NoSuchBucket" || (failure.code.empty() && request.head.status == 404)) {
    return fmt::format("there is no bucket {} at {}; check the source and volume.s3.endpoint", place_.bucket, host);
  }
  if (failure.code == "SignatureDoesNotMatch" || failure.code == "InvalidAccessKeyId") {
    return fmt::format("{} does not take the credentials for {} ({}): the access key or its secret is wrong", host,
                       source, failure.code);
  }
  if (failure.code == "ExpiredToken" || failure.code == "InvalidToken") {
    return fmt::format("the session token for {} is expired or invalid ({}): get new credentials", source,
                       failure.code);
  }
  if (failure.code == "RequestTimeTooSkewed") {
    return fmt::format("this machine's clock is wrong, {} refuses its requests: set the clock", host);
  }
  if (request.head.status == 401 || request.head.status == 403) {
    return fmt::format("{} denies listing {}{}: the credentials need s3:ListBucket and s3:GetObject{}", host, source,
                       failure.code.empty() ? "" : " (" + failure.code + ")",
                       credentials_.access_key.empty() ? ", and none were given" : "");
  }
  if (request.head.status >= 300 && request.head.status < 400) {
    return fmt::format("the bucket {} is in another region{}; set volume.s3.region", place_.bucket,
                       request.head.bucket_region.empty() ? "" : " (" + request.head.bucket_region + ")");
  }
  return fmt::format("{} answered the listing of {} with status {}{}", host, source, request.head.status,
                     failure.code.empty() ? ", which is no answer of S3; check volume.s3.endpoint"
                                          : fmt::format(" ({}: {})", failure.code, failure.message));
}

bool S3Origin::check(std::string* why) {
  for (int attempt = 0;; ++attempt) {
    HttpRequest request;
    address_listing(request, {.prefix = place_.prefix, .token = "", .keys_max = 1, .delimited = false});
    request.body_bytes_max = small_page_bytes_max;
    if (!ask_now(request, why)) return false;
    if (!request.failed) {
      const Result<S3Page> page = parse_s3_page(request.body);
      if (!page) {
        *why = fmt::format("{} does not speak S3: its answer is no listing; check volume.s3.endpoint", place_.host());
      } else if (!place_.prefix.empty() && page->objects.empty()) {
        *why = fmt::format("there is nothing under {}; check the prefix", options().volume.source);
      } else {
        return true;
      }
      return false;
    }
    // AWS says where the bucket is: then we know.
    std::string region = parse_s3_failure(request.body).region;
    if (region.empty()) region = request.head.bucket_region;
    if (attempt > 0 || !place_.endpoint.empty() || region.empty() || region == place_.region) {
      *why = failure_sentence(request);
      return false;
    }
    place_.region = region;
  }
}

namespace {

Result<std::optional<TreeIndex::Options>> index_options(const VolumeConfig& volume, const S3Place& place,
                                                        const std::string& names_directory, std::string* why) {
  if (volume.index == Indexing::off) return std::nullopt;
  if (names_directory.empty()) {
    *why = fmt::format("volume.index = on for {} needs a disk to keep the index on; give --cache-dir", volume.source);
    return fail(Code::invalid, EINVAL);
  }
  const ObjectId identity = object_id(place.canonical_source(), "", "names");
  return TreeIndex::Options{.path = fmt::format("{}/{}", names_directory, to_hex(identity)),
                            .identity = identity,
                            .trusted_ns = volume.revalidate_ns};
}

}  // namespace

Result<std::unique_ptr<Origin>> create_s3_origin(const VolumeConfig& volume, const OriginConfig& origin,
                                                 std::string* why, const std::string& names_directory) {
  Result<S3Place> place = parse_s3_place(volume, why);
  if (!place) return std::unexpected(place.error());
  std::string ca_file = volume.s3.ca_file;
  if (ca_file.empty()) ca_file = environment("AWS_CA_BUNDLE");
  const CredentialOptions credential_options{
      .setting = volume.s3.credentials, .region = place->region, .ca_file = ca_file};
  Result<AwsCredentials> credentials = find_aws_credentials(credential_options, why);
  if (!credentials) {
    *why = fmt::format("cannot open {}: {}", volume.source, *why);
    return std::unexpected(credentials.error());
  }
  Result<std::optional<TreeIndex::Options>> index = index_options(volume, *place, names_directory, why);
  if (!index) return std::unexpected(index.error());
  auto created = std::make_unique<S3Origin>(
      RemoteOptions{
          .volume = volume, .origin = origin, .http1_only = true, .ca_file = ca_file, .index = std::move(*index)},
      std::move(*place), credential_options, std::move(*credentials));
  if (!created->check(why)) {
    created->stop();
    created->join(1000);
    return fail(Code::denied, EACCES);
  }
  return created;
}

}  // namespace blobcache
