// AWS Signature Version 4 of a request without a body.
//   Thread    any; pure functions
//   Source    docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace blobcache {

struct AwsCredentials {
  std::string access_key;  // empty: anonymous, nothing is signed
  std::string secret_key;
  std::string session_token;
  int64_t expires_s = 0;  // seconds since 1970; 0: never
};

struct SignedRequest {
  std::string_view verb;
  std::string_view host;   // with the port where it is not the scheme's
  std::string_view path;   // percent-encoded once
  std::string_view query;  // percent-encoded, sorted by name
  std::string_view region;
  std::string_view service = "s3";
  int64_t time_s = 0;
};

// Adds x-amz-date, x-amz-content-sha256, x-amz-security-token and Authorization. Every line that is in `headers` before
// ("Name: value") is signed too. The secret is in none of them.
void sign_request(const SignedRequest& request, const AwsCredentials& credentials, std::vector<std::string>& headers);

}  // namespace blobcache
