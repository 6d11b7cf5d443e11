// A profile's keys may stand in both files; those of the credentials file win. It leads to credentials in the order of AWS's
// own tools: a role, a sign-in, keys, a program. A role is assumed with the credentials of another profile, which may be a role
// again: a chain that comes back to itself is refused.
//
// The token of a sign-in is what `aws sso login` left in its cache; it is not renewed here, since that is for a person.
#include "origin/aws_profile.h"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <fstream>

#include <fmt/format.h>
#include <openssl/evp.h>
#include <nlohmann/json.hpp>

#include "origin/http_blocking.h"
#include "origin/http_text.h"

namespace blobcache {
namespace {

using Json = nlohmann::json;

constexpr unsigned chain_length_max = 5;
constexpr size_t small_file_bytes_max = 1 << 20;

struct Search {
  const CredentialOptions& options;
  const ProfileFiles& files;
  std::string* why;
};

std::string profile_name() {
  const std::string name = environment("AWS_PROFILE");
  return name.empty() ? "default" : name;
}

AwsProfile load_profile(const ProfileFiles& files, const std::string& name) {
  AwsProfile profile;
  if (!files.config_file.empty()) {
    const std::string section = name == "default" ? name : "profile " + name;
    profile = parse_aws_profile(read_small_file(files.config_file).value_or(""), section);
  }
  const AwsProfile keys = parse_aws_profile(read_small_file(files.credentials_file).value_or(""), name);
  profile.found |= keys.found;
  for (const auto& [key, value] : keys.values) profile.values[key] = value;
  return profile;
}

std::string where(const ProfileFiles& files, const std::string& name) {
  return fmt::format("[{}] of {}{}", name, files.credentials_file,
                     files.config_file.empty() ? "" : " or " + files.config_file);
}

std::string text_field(const Json& json, const char* name) {
  if (!json.is_object()) return {};
  const auto found = json.find(name);
  return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::string sha1_hex(std::string_view text) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  EVP_Digest(text.data(), text.size(), digest, &length, EVP_sha1(), nullptr);
  std::string hex;
  for (unsigned i = 0; i < length; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

Result<AwsCredentials> from_sign_in(const Search& search, const std::string& name, const AwsProfile& profile) {
  const std::string session = profile["sso_session"];
  std::string region = profile["sso_region"];
  if (!session.empty()) {
    const std::string text = read_small_file(search.files.config_file).value_or("");
    region = parse_aws_profile(text, "sso-session " + session)["sso_region"];
  }
  const std::string key = session.empty() ? profile["sso_start_url"] : session;
  const std::string cache = fmt::format("{}/.aws/sso/cache/{}.json", environment("HOME"), sha1_hex(key));
  const Json token = Json::parse(read_small_file(cache).value_or(""), nullptr, false);
  const std::string sign_in = fmt::format("sign in with `aws sso login --profile {}`", name);
  if (text_field(token, "accessToken").empty()) {
    return refuse_credentials(search.why, fmt::format("nobody has signed in for the profile {}: {}", name, sign_in));
  }
  const int64_t until_s = parse_iso_date(text_field(token, "expiresAt")).value_or(0);
  if (until_s <= static_cast<int64_t>(std::time(nullptr))) {
    return refuse_credentials(search.why, fmt::format("the sign-in of the profile {} has expired: {}", name, sign_in));
  }
  std::string endpoint = environment("AWS_ENDPOINT_URL_SSO");
  if (endpoint.empty()) endpoint = fmt::format("https://portal.sso.{}.amazonaws.com", region);
  const BlockingAnswer answer = ask_blocking(
      {.url = fmt::format("{}/federation/credentials?account_id={}&role_name={}", endpoint,
                          percent_encode(profile["sso_account_id"]), percent_encode(profile["sso_role_name"])),
       .headers = {"x-amz-sso_bearer_token: " + text_field(token, "accessToken")},
       .ca_file = search.options.ca_file});
  const Json json = Json::parse(answer.body, nullptr, false);
  const Json given = json.is_object() && json.contains("roleCredentials") ? json["roleCredentials"] : Json();
  AwsCredentials credentials{.access_key = text_field(given, "accessKeyId"),
                             .secret_key = text_field(given, "secretAccessKey"),
                             .session_token = text_field(given, "sessionToken")};
  if (answer.status != 200 || credentials.access_key.empty() || credentials.secret_key.empty()) {
    return refuse_credentials(search.why, fmt::format("{} gave no credentials to the profile {} (status {}): {}",
                                                      endpoint, name, answer.status, sign_in));
  }
  if (given.contains("expiration") && given["expiration"].is_number_integer()) {
    credentials.expires_s = given["expiration"].get<int64_t>() / 1000;
  }
  return credentials;
}

Result<AwsCredentials> find_in(const Search& search, const std::string& name, unsigned chain_length);

Result<AwsCredentials> from_role(const Search& search, const std::string& name, const AwsProfile& profile,
                                 unsigned chain_length) {
  const AssumedRole role{.role = profile["role_arn"],
                         .session = profile["role_session_name"],
                         .external_id = profile["external_id"],
                         .duration_s = profile["duration_seconds"]};
  if (!profile["web_identity_token_file"].empty()) {
    return assume_with_web_identity(
        search.options, {.role = role.role, .token_file = profile["web_identity_token_file"], .session = role.session},
        search.why);
  }
  if (!profile["mfa_serial"].empty()) {
    return refuse_credentials(search.why,
                              fmt::format("the role of the profile {} wants a code of a device (mfa_serial), "
                                          "which a daemon cannot be asked for: use another profile",
                                          name));
  }
  const std::string source_name = profile["source_profile"];
  const std::string source_kind = profile["credential_source"];
  Result<AwsCredentials> source = fail(Code::not_found);
  if (!source_name.empty()) {
    if (chain_length >= chain_length_max) {
      return refuse_credentials(
          search.why, fmt::format("the source_profile of {} leads to itself or too far: name one with keys", name));
    }
    source = find_in(search, source_name, chain_length + 1);
  } else if (source_kind == "Environment") {
    source = aws_environment_credentials(search.why);
  } else if (source_kind == "EcsContainer") {
    source = aws_container_credentials(search.why);
  } else if (source_kind == "Ec2InstanceMetadata") {
    source = aws_instance_credentials(search.why);
  }
  if (!source && source.error().code != Code::not_found) return source;
  if (!source) {
    return refuse_credentials(
        search.why, fmt::format("the profile {} has a role_arn, but its source_profile or credential_source gives no "
                                "credentials to assume it with",
                                name));
  }
  CredentialOptions options = search.options;
  if (!profile["region"].empty()) options.region = profile["region"];
  return assume_role(options, role, *source, search.why);
}

Result<AwsCredentials> find_in(const Search& search, const std::string& name, unsigned chain_length) {
  const AwsProfile profile = load_profile(search.files, name);
  const AwsCredentials keys{.access_key = profile["aws_access_key_id"],
                            .secret_key = profile["aws_secret_access_key"],
                            .session_token = profile["aws_session_token"]};
  // A role whose source is its own profile is assumed with the keys beside it.
  const bool has_keys = !keys.access_key.empty() && !keys.secret_key.empty();
  const bool own_source = chain_length > 0 && profile["source_profile"] == name && has_keys;
  if (!profile["role_arn"].empty() && !own_source) return from_role(search, name, profile, chain_length);
  if (!profile["sso_account_id"].empty() && !profile["sso_role_name"].empty())
    return from_sign_in(search, name, profile);
  if (has_keys) return keys;
  if (!profile["credential_process"].empty()) return from_program(profile["credential_process"], search.why);
  if (keys.access_key.empty() && keys.secret_key.empty()) return fail(Code::not_found);
  return refuse_credentials(search.why, fmt::format("{} has only one of aws_access_key_id and aws_secret_access_key",
                                                    where(search.files, name)));
}

}  // namespace

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

Result<std::string> read_small_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(Code::not_found);
  std::string text;
  std::array<char, 4096> buffer;
  while (file.read(buffer.data(), buffer.size()), file.gcount() > 0) {
    text.append(buffer.data(), static_cast<size_t>(file.gcount()));
    if (text.size() > small_file_bytes_max) return fail(Code::invalid, EFBIG);  // a device may have no end
  }
  return text;
}

std::unexpected<Error> refuse_credentials(std::string* why, std::string text) {
  *why = std::move(text);
  return fail(Code::denied);
}

ProfileFiles default_profile_files() {
  const auto file = [](const char* variable, const char* name) {
    const std::string named = environment(variable);
    return named.empty() ? environment("HOME") + "/.aws/" + name : named;
  };
  return {.credentials_file = file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
          .config_file = file("AWS_CONFIG_FILE", "config")};
}

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
    profile.values[std::string(trim(line.substr(0, equals)))] = trim(line.substr(equals + 1));
  }
  return profile;
}

Result<AwsCredentials> from_profile(const CredentialOptions& options, const ProfileFiles& files, std::string* why) {
  const bool named_file = files.config_file.empty();
  if (named_file && !read_small_file(files.credentials_file)) {
    return refuse_credentials(why, fmt::format("the credentials file {} cannot be read", files.credentials_file));
  }
  const std::string name = profile_name();
  const Result<AwsCredentials> found = find_in({.options = options, .files = files, .why = why}, name, 0);
  if (found || found.error().code != Code::not_found) return found;
  if (named_file) {
    return refuse_credentials(why,
                              fmt::format("{} has no aws_access_key_id and aws_secret_access_key", where(files, name)));
  }
  // Who names a profile means it.
  if (environment("AWS_PROFILE").empty()) return found;
  return refuse_credentials(why, fmt::format("the profile {} (AWS_PROFILE) has no credentials in {} or {}", name,
                                             files.credentials_file, files.config_file));
}

}  // namespace blobcache
