// Each source says "not mine" (not_found) or gives its answer, good or bad; the first that is responsible is the last that
// is asked: wrong keys in the environment should not be hidden by an instance's role with other rights.
#include "origin/aws_credentials.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <pugixml.hpp>

#include "origin/http_blocking.h"
#include "origin/http_text.h"

namespace blobcache {
namespace {

using Json = nlohmann::json;

constexpr long metadata_timeout_ms = 1000;
constexpr const char* container_host = "http://169.254.170.2";
constexpr const char* instance_host = "http://169.254.169.254";

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(Code::not_found);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string aws_file(const char* variable, const char* name) {
  const std::string named = environment(variable);
  return named.empty() ? environment("HOME") + "/.aws/" + name : named;
}

std::unexpected<Error> refuse(std::string* why, std::string text) {
  *why = std::move(text);
  return fail(Code::denied);
}

Result<AwsCredentials> from_profile(const AwsProfile& profile, const std::string& place, std::string* why) {
  if (profile.access_key.empty() || profile.secret_key.empty()) {
    return refuse(why, fmt::format("{} has no aws_access_key_id and aws_secret_access_key", place));
  }
  return AwsCredentials{
      .access_key = profile.access_key, .secret_key = profile.secret_key, .session_token = profile.session_token};
}

std::string profile_name() {
  const std::string name = environment("AWS_PROFILE");
  return name.empty() ? "default" : name;
}

Result<AwsCredentials> from_named_file(const std::string& path, std::string* why) {
  const Result<std::string> text = read_file(path);
  if (!text) return refuse(why, fmt::format("the credentials file {} cannot be read", path));
  return from_profile(parse_aws_profile(*text, profile_name()), fmt::format("[{}] of {}", profile_name(), path), why);
}

Result<AwsCredentials> from_environment(std::string* why) {
  const std::string key = environment("AWS_ACCESS_KEY_ID");
  const std::string secret = environment("AWS_SECRET_ACCESS_KEY");
  if (key.empty() && secret.empty()) return fail(Code::not_found);
  if (key.empty() || secret.empty()) {
    return refuse(why, "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set");
  }
  return AwsCredentials{.access_key = key, .secret_key = secret, .session_token = environment("AWS_SESSION_TOKEN")};
}

Result<AwsCredentials> from_web_identity(const CredentialOptions& options, std::string* why) {
  const std::string token_file = environment("AWS_WEB_IDENTITY_TOKEN_FILE");
  const std::string role = environment("AWS_ROLE_ARN");
  if (token_file.empty() || role.empty()) return fail(Code::not_found);
  const Result<std::string> token = read_file(token_file);
  if (!token) return refuse(why, fmt::format("the web identity token {} cannot be read", token_file));
  std::string endpoint = environment("AWS_ENDPOINT_URL_STS");
  if (endpoint.empty()) endpoint = fmt::format("https://sts.{}.amazonaws.com", options.region);
  std::string session = environment("AWS_ROLE_SESSION_NAME");
  if (session.empty()) session = "blobcache";
  const BlockingAnswer answer = ask_blocking(
      {.url = fmt::format("{}/?Action=AssumeRoleWithWebIdentity&RoleArn={}&RoleSessionName={}&Version=2011-06-15"
                          "&WebIdentityToken={}",
                          endpoint, percent_encode(role), percent_encode(session), percent_encode(trim(*token))),
       .headers = {},
       .ca_file = options.ca_file});
  pugi::xml_document document;
  const bool parsed = document.load_buffer(answer.body.data(), answer.body.size());
  const pugi::xml_node given =
      document.child("AssumeRoleWithWebIdentityResponse").child("AssumeRoleWithWebIdentityResult").child("Credentials");
  if (answer.status != 200 || !parsed || !given) {
    return refuse(why, fmt::format("{} did not take the web identity for the role {} (status {})", endpoint, role,
                                   answer.status));
  }
  return AwsCredentials{.access_key = given.child_value("AccessKeyId"),
                        .secret_key = given.child_value("SecretAccessKey"),
                        .session_token = given.child_value("SessionToken"),
                        .expires_s = parse_iso_date(given.child_value("Expiration")).value_or(0)};
}

Result<AwsCredentials> from_shared_files(std::string* why) {
  const std::string name = profile_name();
  const std::string credentials_file = aws_file("AWS_SHARED_CREDENTIALS_FILE", "credentials");
  const std::string config_file = aws_file("AWS_CONFIG_FILE", "config");
  if (const Result<std::string> text = read_file(credentials_file)) {
    const AwsProfile profile = parse_aws_profile(*text, name);
    if (profile.found && !profile.access_key.empty()) {
      return from_profile(profile, fmt::format("[{}] of {}", name, credentials_file), why);
    }
  }
  if (const Result<std::string> text = read_file(config_file)) {
    const AwsProfile profile = parse_aws_profile(*text, name == "default" ? name : "profile " + name);
    if (profile.found && !profile.access_key.empty()) {
      return from_profile(profile, fmt::format("[{}] of {}", name, config_file), why);
    }
  }
  // Who names a profile means it.
  if (!environment("AWS_PROFILE").empty()) {
    return refuse(
        why, fmt::format("the profile {} (AWS_PROFILE) has no keys in {} or {}", name, credentials_file, config_file));
  }
  return fail(Code::not_found);
}

Result<AwsCredentials> from_container(std::string* why) {
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
  if (!token_file.empty()) token = read_file(token_file).value_or("");
  if (!token.empty()) request.headers.push_back(fmt::format("Authorization: {}", trim(token)));
  const BlockingAnswer answer = ask_blocking(request);
  const Result<AwsCredentials> found = parse_service_credentials(answer.body);
  if (answer.status != 200 || !found) {
    return refuse(
        why, fmt::format("the container's credential service {} gave none (status {})", request.url, answer.status));
  }
  return found;
}

Result<AwsCredentials> from_instance(std::string* why) {
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
    return refuse(why, fmt::format("the instance's metadata service gave no credentials of its role {} (status {})",
                                   name, answer.status));
  }
  return found;
}

}  // namespace

AwsProfile parse_aws_profile(std::string_view text, std::string_view section) {
  AwsProfile profile;
  bool inside = false;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = trim(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (line.empty() || line[0] == '#' || line[0] == ';') continue;
    if (line[0] == '[') {
      inside = line.ends_with(']') && trim(line.substr(1, line.size() - 2)) == section;
      profile.found |= inside;
      continue;
    }
    const size_t equals = line.find('=');
    if (!inside || equals == std::string_view::npos) continue;
    const std::string_view name = trim(line.substr(0, equals));
    const std::string value(trim(line.substr(equals + 1)));
    if (name == "aws_access_key_id") profile.access_key = value;
    if (name == "aws_secret_access_key") profile.secret_key = value;
    if (name == "aws_session_token") profile.session_token = value;
  }
  return profile;
}

Result<AwsCredentials> parse_service_credentials(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  const auto field = [&](const char* name) -> std::string {
    if (!json.is_object()) return {};
    const auto found = json.find(name);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  AwsCredentials credentials{.access_key = field("AccessKeyId"),
                             .secret_key = field("SecretAccessKey"),
                             .session_token = field("Token"),
                             .expires_s = parse_iso_date(field("Expiration")).value_or(0)};
  if (credentials.access_key.empty() || credentials.secret_key.empty()) return fail(Code::protocol);
  return credentials;
}

Result<AwsCredentials> find_aws_credentials(const CredentialOptions& options, std::string* why) {
  if (options.setting == "anonymous") return AwsCredentials{};
  if (!options.setting.empty() && options.setting != "auto") return from_named_file(options.setting, why);
  Result<AwsCredentials> found = from_environment(why);
  const auto missing = [&] { return !found && found.error().code == Code::not_found; };
  if (missing()) found = from_web_identity(options, why);
  if (missing()) found = from_shared_files(why);
  if (missing()) found = from_container(why);
  if (missing()) found = from_instance(why);
  if (missing()) {
    *why =
        "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, write ~/.aws/credentials, or say "
        "volume.s3.credentials = \"anonymous\" for a public bucket";
  }
  return found;
}

}  // namespace blobcache
