// Where AWS credentials come from, in the order of AWS's own tools: the file that the configuration names; or the
// environment, a web identity, the shared files and their profile, the container's service, the instance's (IMDSv2).
//   Thread    one that may block: files are read and services asked
//   Secrets   never logged, and in no error text
#pragma once

#include <string>

#include "base/result.h"
#include "origin/sigv4.h"

namespace blobcache {

struct CredentialOptions {
  std::string setting = "auto";  // "auto", "anonymous", or a file in the form of ~/.aws/credentials
  std::string region;
  std::string ca_file;
};

// Errors: not_found, denied; *why is what to tell the operator, a part of a sentence.
Result<AwsCredentials> find_aws_credentials(const CredentialOptions& options, std::string* why);

// What a container's or an instance's service answers, or a program that is asked. Errors: protocol.
Result<AwsCredentials> parse_service_credentials(std::string_view json);

}  // namespace blobcache
