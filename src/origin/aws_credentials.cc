// Each source says "not mine" (not_found) or gives its answer, good or bad; the first that is responsible is the last that
// is asked: wrong keys in the environment should not be hidden by an instance's role with other rights.
#include "origin/aws_credentials.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "origin/aws_profile.h"
#include "origin/http_blocking.h"
#include "origin/http_text.h"

namespace blobcache {
namespace {

using Json = nlohmann::json;

constexpr long metadata_timeout_ms = 1000;
constexpr const char* container_host = "http://169.254.170.2";
constexpr const char* instance_host = "http://169.254.169.254";

Result<AwsCredentials> from_environment(std::string* why) {
  const std::string key = environment("AWS_ACCESS_KEY_ID");
  const std::string secret = environment("AWS_SECRET_ACCESS_KEY");
  if (key.empty() && secret.empty()) return fail(Code::not_found);
  if (key.empty() || secret.empty()) {
    return refuse_credentials(why, "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set");
  }
  return AwsCredentials{.access_key = key, .secret_key = secret, .session_token = environment("AWS_SESSION_TOKEN")};
}

Result<AwsCredentials> from_web_identity(const CredentialOptions& options, std::string* why) {
  const WebIdentity identity{.role = environment("AWS_ROLE_ARN"),
                             .token_file = environment("AWS_WEB_IDENTITY_TOKEN_FILE"),
                             .session = environment("AWS_ROLE_SESSION_NAME")};
  if (identity.token_file.empty() || identity.role.empty()) return fail(Code::not_found);
  return assume_with_web_identity(options, identity, why);
}

// What is found goes into headers.
Result<AwsCredentials> sendable(Result<AwsCredentials> found, std::string* why) {
  if (!found ||
      (is_one_line(found->access_key) && is_one_line(found->secret_key) && is_one_line(found->session_token))) {
    return found;
  }
  return refuse_credentials(why, "the credentials that were found have control characters in them: write them anew");
}

}  // namespace

Result<AwsCredentials> aws_container_credentials(std::string* why) {
  const std::string relative = environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
  const std::string full = environment("AWS_CONTAINER_CREDENTIALS_FULL_URI");
  if (relative.empty() && full.empty()) return fail(Code::not_found);
  BlockingHttp request{.url = relative.empty() ? full : container_host + relative,
                       .headers = {},
                       .timeout_ms = metadata_timeout_ms,
                       .through_proxy = false,
                       .ca_file = ""};
  std::string token = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN");
  const std::string token_file = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
  if (!token_file.empty()) token = read_small_file(token_file).value_or("");
  if (!token.empty()) request.headers.push_back(fmt::format("Authorization: {}", trim(token)));
  const BlockingAnswer answer = ask_blocking(request);
  const Result<AwsCredentials> found = parse_service_credentials(answer.body);
  if (answer.status != 200 || !found) {
    return refuse_credentials(
        why, fmt::format("the container's credential service {} gave none (status {})", request.url, answer.status));
  }
  return found;
}

Result<AwsCredentials> aws_instance_credentials(std::string* why) {
  if (equals_ignoring_case(environment("AWS_EC2_METADATA_DISABLED"), "true")) return fail(Code::not_found);
  std::string host = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");
  if (host.empty()) host = instance_host;
  while (host.ends_with('/')) host.pop_back();
  const auto ask = [&](std::string verb, std::string path, std::string header) {
    return ask_blocking({.verb = std::move(verb),
                         .url = host + path,
                         .headers = {std::move(header)},
                         .timeout_ms = metadata_timeout_ms,
                         .through_proxy = false,
                         .ca_file = ""});
  };
  const BlockingAnswer token = ask("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 21600");
  if (token.status != 200) return fail(Code::not_found);
  const std::string proof = "X-aws-ec2-metadata-token: " + std::string(trim(token.body));
  const std::string base = "/latest/meta-data/iam/security-credentials/";
  const BlockingAnswer role = ask("GET", base, proof);
  if (role.status != 200) return fail(Code::not_found);  // an instance without a role
  const std::string name(trim(std::string_view(role.body).substr(0, role.body.find('\n'))));
  const BlockingAnswer answer = ask("GET", base + percent_encode(name), proof);
  const Result<AwsCredentials> found = parse_service_credentials(answer.body);
  if (answer.status != 200 || !found) {
    return refuse_credentials(
        why, fmt::format("the instance's metadata service gave no credentials of its role {} (status {})", name,
                         answer.status));
  }
  return found;
}

Result<AwsCredentials> aws_environment_credentials(std::string* why) { return from_environment(why); }

Result<AwsCredentials> parse_service_credentials(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  const auto field = [&](const char* name) -> std::string {
    if (!json.is_object()) return {};
    const auto found = json.find(name);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  AwsCredentials credentials{.access_key = field("AccessKeyId"),
                             .secret_key = field("SecretAccessKey"),
                             .session_token = field(json.contains("Token") ? "Token" : "SessionToken"),
                             .expires_s = parse_iso_date(field("Expiration")).value_or(0)};
  if (credentials.access_key.empty() || credentials.secret_key.empty()) return fail(Code::protocol);
  return credentials;
}

Result<AwsCredentials> find_aws_credentials(const CredentialOptions& options, std::string* why) {
  if (options.setting == "anonymous") return AwsCredentials{};
  if (!options.setting.empty() && options.setting != "auto") {
    return sendable(from_profile(options, {.credentials_file = options.setting, .config_file = ""}, why), why);
  }
  Result<AwsCredentials> found = from_environment(why);
  const auto missing = [&] { return !found && found.error().code == Code::not_found; };
  if (missing()) found = from_web_identity(options, why);
  if (missing()) found = from_profile(options, default_profile_files(), why);
  if (missing()) found = aws_container_credentials(why);
  if (missing()) found = aws_instance_credentials(why);
  if (missing()) {
    *why =
        "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, write ~/.aws/credentials, or say "
        "volume.s3.credentials = \"anonymous\" for a public bucket";
  }
  return sendable(std::move(found), why);
}

}  // namespace blobcache
