// Roles, by the session token service: a signed GET with everything in its query, or an unsigned one with a web identity.
#include <ctime>

#include <fmt/format.h>
#include <pugixml.hpp>

#include "origin/aws_profile.h"
#include "origin/http_blocking.h"
#include "origin/http_text.h"
#include "origin/sigv4.h"

namespace blobcache {
namespace {

std::string endpoint_of(const CredentialOptions& options) {
  std::string endpoint = environment("AWS_ENDPOINT_URL_STS");
  if (endpoint.empty()) endpoint = fmt::format("https://sts.{}.amazonaws.com", options.region);
  while (endpoint.ends_with('/')) endpoint.pop_back();
  return endpoint;
}

std::string session_name(const std::string& session) { return percent_encode(session.empty() ? "blobcache" : session); }

Result<AwsCredentials> parse_answer(const BlockingAnswer& answer, const std::string& action) {
  pugi::xml_document document;
  if (answer.status != 200 || !document.load_buffer(answer.body.data(), answer.body.size())) return fail(Code::denied);
  const pugi::xml_node given =
      document.child((action + "Response").c_str()).child((action + "Result").c_str()).child("Credentials");
  if (!given) return fail(Code::denied);
  return AwsCredentials{.access_key = given.child_value("AccessKeyId"),
                        .secret_key = given.child_value("SecretAccessKey"),
                        .session_token = given.child_value("SessionToken"),
                        .expires_s = parse_iso_date(given.child_value("Expiration")).value_or(0)};
}

}  // namespace

Result<AwsCredentials> assume_role(const CredentialOptions& options, const AssumedRole& role,
                                   const AwsCredentials& source, std::string* why) {
  const std::string endpoint = endpoint_of(options);
  std::string query = "Action=AssumeRole";
  if (!role.duration_s.empty()) query += "&DurationSeconds=" + percent_encode(role.duration_s);
  if (!role.external_id.empty()) query += "&ExternalId=" + percent_encode(role.external_id);
  query += fmt::format("&RoleArn={}&RoleSessionName={}&Version=2011-06-15", percent_encode(role.role),
                       session_name(role.session));
  std::vector<std::string> headers;
  sign_request({.verb = "GET",
                .host = std::string_view(endpoint).substr(endpoint.find("://") + 3),
                .path = "/",
                .query = query,
                .region = options.region,
                .service = "sts",
                .time_s = static_cast<int64_t>(std::time(nullptr))},
               source, headers);
  const BlockingAnswer answer =
      ask_blocking({.url = endpoint + "/?" + query, .headers = headers, .ca_file = options.ca_file});
  const Result<AwsCredentials> given = parse_answer(answer, "AssumeRole");
  if (given) return given;
  return refuse_credentials(why,
                            fmt::format("{} did not let the role {} be assumed (status {}): check sts:AssumeRole and "
                                        "whom the role trusts",
                                        endpoint, role.role, answer.status));
}

Result<AwsCredentials> assume_with_web_identity(const CredentialOptions& options, const WebIdentity& identity,
                                                std::string* why) {
  const Result<std::string> token = read_small_file(identity.token_file);
  if (!token) {
    return refuse_credentials(why, fmt::format("the web identity token {} cannot be read", identity.token_file));
  }
  const std::string endpoint = endpoint_of(options);
  const BlockingAnswer answer = ask_blocking(
      {.url = fmt::format("{}/?Action=AssumeRoleWithWebIdentity&RoleArn={}&RoleSessionName={}&Version=2011-06-15"
                          "&WebIdentityToken={}",
                          endpoint, percent_encode(identity.role), session_name(identity.session),
                          percent_encode(trim(*token))),
       .headers = {},
       .ca_file = options.ca_file});
  const Result<AwsCredentials> given = parse_answer(answer, "AssumeRoleWithWebIdentity");
  if (given) return given;
  return refuse_credentials(why, fmt::format("{} did not take the web identity for the role {} (status {})", endpoint,
                                             identity.role, answer.status));
}

}  // namespace blobcache
