// The profiles of AWS's shared files, and what they lead to: keys, a role, a program, a sign-in (SSO). Private to aws_*.cc.
//   Thread    one that may block
//   Secrets   never logged, and in no error text
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "origin/aws_credentials.h"

namespace blobcache {

// aws_profile.cc

// One section of an INI text as AWS's tools write it; nothing in it is also an answer.
struct AwsProfile {
  bool found = false;  // the section is there
  std::map<std::string, std::string> values;
  std::string operator[](const std::string& name) const {
    const auto value = values.find(name);
    return value == values.end() ? std::string() : value->second;
  }
};
AwsProfile parse_aws_profile(std::string_view text, std::string_view section);

struct ProfileFiles {
  std::string credentials_file;
  std::string config_file;  // empty: none
};
ProfileFiles default_profile_files();
// Of AWS_PROFILE, else of "default". Errors: not_found (there is no such profile, and nobody named one), denied.
Result<AwsCredentials> from_profile(const CredentialOptions& options, const ProfileFiles& files, std::string* why);

// aws_role.cc, all by the session token service

struct AssumedRole {
  std::string role;
  std::string session;  // empty: "blobcache"
  std::string external_id;
  std::string duration_s;  // empty: the service's
};
Result<AwsCredentials> assume_role(const CredentialOptions& options, const AssumedRole& role,
                                   const AwsCredentials& source, std::string* why);
struct WebIdentity {
  std::string role;
  std::string token_file;
  std::string session;
};
Result<AwsCredentials> assume_with_web_identity(const CredentialOptions& options, const WebIdentity& identity,
                                                std::string* why);

// aws_program.cc

// What a program writes on its standard output, within a time.
Result<AwsCredentials> from_program(const std::string& command, std::string* why);

// aws_credentials.cc

Result<AwsCredentials> aws_environment_credentials(std::string* why);
Result<AwsCredentials> aws_container_credentials(std::string* why);
Result<AwsCredentials> aws_instance_credentials(std::string* why);

std::string environment(const char* name);
Result<std::string> read_small_file(const std::string& path);
// Sets *why.
std::unexpected<Error> refuse_credentials(std::string* why, std::string text);

}  // namespace blobcache
