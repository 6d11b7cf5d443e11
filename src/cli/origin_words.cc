// The origins say what failed in one sentence: to the operator who mounts, or to the log. The words are theirs and
// libcurl's; here they only get the name of the thing to look at, and a remedy of one clause where the sentence names several.
// Ours come first in the table: libcurl's words could be part of a name in one of ours, hardly the other way round.
#include "cli/origin_words.h"

#include <algorithm>
#include <array>
#include <string>

namespace blobcache::cli {
namespace {

struct Words {
  std::string_view part;  // of the cause
  std::string_view name;
  State state;
  std::string_view remedy;  // empty: what the sentence itself says
  bool ends_cause = false;  // what the sentence says behind it is left out
};

constexpr std::string_view credentials_remedy =
    "correct the access key and its secret (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, "
    "volume.s3.credentials)";
constexpr std::string_view rights_remedy =
    "let this machine read the files: S3 credentials need s3:ListBucket and s3:GetObject, a web server asks for none";
constexpr std::string_view dns_remedy =
    "correct the host in the source or volume.s3.endpoint, or this machine's resolver (/etc/resolv.conf)";
constexpr std::string_view connect_remedy =
    "see that the server runs and listens there, and that no firewall or proxy is in the way; else correct the source "
    "or "
    "volume.s3.endpoint";
constexpr std::string_view tls_remedy =
    "give the authority that signed the server's certificate as volume.s3.ca_file, and the host by the name in the "
    "certificate";
constexpr std::string_view etag_remedy = "let the server send ETag or Last-Modified with each file (nginx: etag on)";
constexpr std::string_view length_remedy = "let the server send Content-Length with each file (nginx: gzip off)";
constexpr std::string_view listing_remedy =
    "switch the server's listing on (nginx: autoindex on; autoindex_format json); until then files are found by name "
    "only";
constexpr std::string_view ranges_remedy =
    "let the server answer ranges (nginx: leave out max_ranges 0), or ask it without the proxy between";

constexpr std::array words{
    Words{"this machine's clock is", "clock", State::missing, ""},
    Words{"no credentials were found", "credentials", State::missing, ""},
    Words{"does not take the credentials", "credentials", State::missing, credentials_remedy},
    Words{"the session token for", "credentials", State::missing, ""},
    Words{"cannot open s3://", "credentials", State::missing, credentials_remedy},
    Words{"asks for a password", "credentials", State::missing, ""},
    Words{"is in another region", "region", State::missing, ""},
    Words{"there is no bucket", "bucket", State::missing, ""},
    Words{"there is nothing", "prefix", State::missing, ""},
    Words{"denies listing", "rights", State::missing, ""},
    Words{"answered with no listing", "listing", State::off, listing_remedy, true},
    Words{"ETag and no Last-Modified", "etag", State::missing, etag_remedy, true},
    Words{"has no Content-Length", "length", State::missing, length_remedy, true},
    Words{"something else than what was asked for", "ranges", State::missing, ranges_remedy},
    Words{"the answer was status 401", "rights", State::missing, rights_remedy},
    Words{"the answer was status 403", "rights", State::missing, rights_remedy},
    Words{"Could not resolve", "dns", State::missing, dns_remedy},
    Words{"Resolving timed out", "dns", State::missing, dns_remedy},
    Words{"Failed to connect", "connect", State::missing, connect_remedy},
    Words{"Couldn't connect", "connect", State::missing, connect_remedy},
    Words{"Connection timed out", "connect", State::missing, connect_remedy},
    Words{"Connection timeout", "connect", State::missing, connect_remedy},
    Words{": no answer", "connect", State::missing, connect_remedy},
    Words{"certificate", "tls", State::missing, tls_remedy},
    Words{"SSL", "tls", State::missing, tls_remedy},
    Words{"TLS", "tls", State::missing, tls_remedy},
};

// A web server that does not list says so in a status, too.
bool is_refused_web_listing(std::string_view cause) {
  const auto has = [&](std::string_view part) { return cause.find(part) != std::string_view::npos; };
  return cause.starts_with("listing '") && has("' of http") &&
         (has("was status 403") || has("was status 404") || has("was status 405"));
}

}  // namespace

Check check_origin_failure(std::string_view sentence) {
  // "cause; remedy". The remedies name certificates and rights whatever the cause: only the cause is looked at.
  const size_t cut = sentence.rfind("; ");
  std::string_view cause = sentence.substr(0, cut);
  std::string_view remedy = cut == std::string_view::npos ? std::string_view() : sentence.substr(cut + 2);
  if (is_refused_web_listing(cause)) return {"listing", State::off, std::string(cause), std::string(listing_remedy)};
  const auto known =
      std::ranges::find_if(words, [&](const Words& row) { return cause.find(row.part) != std::string_view::npos; });
  if (known != words.end() && !known->remedy.empty()) {
    if (known->ends_cause) cause = cause.substr(0, cause.find(known->part) + known->part.size());
    remedy = known->remedy;
  } else if (const size_t colon = cause.rfind(": "); remedy.empty() && colon != std::string_view::npos) {
    remedy = cause.substr(colon + 2);
    cause = cause.substr(0, colon);
  }
  if (known == words.end()) return {"source", State::missing, std::string(cause), std::string(remedy)};
  return {known->name, known->state, std::string(cause), std::string(remedy)};
}

}  // namespace blobcache::cli
