// Signatures against the examples that AWS publishes with the algorithm.
#include <doctest/doctest.h>

#include "origin/sigv4.h"

using namespace blobcache;

namespace {

// The keys of AWS's documentation, which open nothing.
const AwsCredentials example{.access_key = "AKIAIOSFODNN7EXAMPLE",
                             .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"};
constexpr int64_t example_s = 1369353600;  // 2013-05-24T00:00:00Z

std::string signature_of(const SignedRequest& request, const AwsCredentials& credentials,
                         std::vector<std::string> headers) {
  sign_request(request, credentials, headers);
  const std::string& line = headers.back();
  return line.substr(line.find("Signature=") + 10);
}

}  // namespace

TEST_CASE("GET of an object with a range: the signature of AWS's example") {
  CHECK(signature_of({.verb = "GET",
                      .host = "examplebucket.s3.amazonaws.com",
                      .path = "/test.txt",
                      .query = "",
                      .region = "us-east-1",
                      .time_s = example_s},
                     example,
                     {"Range: bytes=0-9"}) == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST_CASE("a listing with a query: the signature of AWS's example") {
  CHECK(signature_of({.verb = "GET",
                      .host = "examplebucket.s3.amazonaws.com",
                      .path = "/",
                      .query = "max-keys=2&prefix=J",
                      .region = "us-east-1",
                      .time_s = example_s},
                     example, {}) == "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

TEST_CASE("the session token is sent and signed; the secret is nowhere") {
  AwsCredentials credentials = example;
  credentials.session_token = "TOKEN";
  std::vector<std::string> headers;
  sign_request({.verb = "GET", .host = "h", .path = "/", .query = "", .region = "r", .time_s = example_s}, credentials,
               headers);
  std::string all;
  for (const std::string& line : headers) all += line + "\n";
  CHECK(all.find("x-amz-security-token: TOKEN\n") != std::string::npos);
  CHECK(all.find("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,") != std::string::npos);
  CHECK(all.find(credentials.secret_key) == std::string::npos);
  CHECK(signature_of({.verb = "GET", .host = "h", .path = "/", .query = "", .region = "r", .time_s = example_s},
                     example, {}) != all.substr(all.find("Signature=") + 10, 64));
}
