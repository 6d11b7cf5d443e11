// Where credentials come from, and in which order; the services are small local servers.
#include <doctest/doctest.h>

#include "origin/aws_credentials.h"
#include "unit/origin/aws_fixture.h"
#include "unit/origin/http_fixture.h"

using namespace blobcache_test;

namespace {

constexpr std::string_view service_answer =
    R"({"AccessKeyId":"K","SecretAccessKey":"S","Token":"T","Expiration":"2030-01-02T03:04:05Z"})";

}  // namespace

TEST_CASE("the order: environment, shared files, then nothing with a remedy") {
  Clean clean;
  CHECK(found_key().starts_with("refused: no credentials were found"));
  CHECK(found_key("anonymous") == "::");
  clean.write(".aws/config", "[default]\naws_access_key_id = C\naws_secret_access_key = CS\n");
  CHECK(found_key() == "C:CS:");
  clean.write(".aws/credentials",
              "# text\n[default]\naws_access_key_id = A\naws_secret_access_key=AS=\n\n[other]\naws_access_key_id=O\n"
              "aws_secret_access_key = OS\naws_session_token = OT\n");
  CHECK(found_key() == "A:AS=:");
  clean.change("AWS_PROFILE", "other");
  CHECK(found_key() == "O:OS:OT");
  clean.change("AWS_PROFILE", "missing");
  CHECK(found_key().starts_with("refused: the profile missing"));
  clean.change("AWS_ACCESS_KEY_ID", "E");
  CHECK(found_key().starts_with("refused: only one of"));
  clean.change("AWS_SECRET_ACCESS_KEY", "ES");
  clean.change("AWS_SESSION_TOKEN", "ET");
  CHECK(found_key() == "E:ES:ET");
}

TEST_CASE("a file that is named is the only source") {
  Clean clean;
  clean.change("AWS_ACCESS_KEY_ID", "E");
  clean.change("AWS_SECRET_ACCESS_KEY", "ES");
  const std::string path = clean.write("keys", "[default]\naws_access_key_id=F\naws_secret_access_key=FS\n");
  CHECK(found_key(path) == "F:FS:");
  CHECK(found_key(path + ".none").starts_with("refused: the credentials file"));
  CHECK(found_key(clean.write("bad", "[default]\nregion=x\n")).starts_with("refused: [default] of"));
}

TEST_CASE("what would end a header's line, or has no end, is not taken for credentials") {
  Clean clean;
  const auto refused_for = [&](std::string_view secret) {
    return found_key(
        clean.write("keys", "[default]\naws_access_key_id=F\naws_secret_access_key=" + std::string(secret)));
  };
  CHECK(refused_for("FS") == "F:FS:");
  CHECK(refused_for("F\rS").starts_with("refused: the credentials that were found have control characters"));
  CHECK(found_key("/dev/zero").starts_with("refused: the credentials file"));
  HttpServer server([](const ServerRequest&) {
    return reply_with("200 OK", "", R"({"AccessKeyId":"K","SecretAccessKey":"S","Token":"T\r\nX-More: 1"})");
  });
  clean.change("AWS_CONTAINER_CREDENTIALS_FULL_URI", (server.url() + "/creds").c_str());
  CHECK(found_key().starts_with("refused: the credentials that were found have control characters"));
}

TEST_CASE("a container's service is asked with its token") {
  Clean clean;
  HttpServer server([](const ServerRequest& request) {
    if (request.header("authorization") != "secret") return reply_with("403 Forbidden", "", "");
    return reply_with("200 OK", "", service_answer);
  });
  clean.change("AWS_CONTAINER_CREDENTIALS_FULL_URI", (server.url() + "/creds").c_str());
  CHECK(found_key().starts_with("refused: the container's credential service"));
  clean.change("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", clean.write("token", "secret\n").c_str());
  std::string why;
  const auto found = find_aws_credentials({.setting = "auto", .region = "r", .ca_file = ""}, &why);
  REQUIRE(found);
  CHECK(found->session_token == "T");
  CHECK(found->expires_s == 1893553445);
}

TEST_CASE("an instance's service: a token first, then the role, then its keys") {
  Clean clean;
  HttpServer server([](const ServerRequest& request) {
    if (request.verb == "PUT" && request.target == "/latest/api/token") return reply_with("200 OK", "", "proof");
    if (request.header("x-aws-ec2-metadata-token") != "proof") return reply_with("401 Unauthorized", "", "");
    if (request.target.ends_with("/security-credentials/")) return reply_with("200 OK", "", "role-1");
    if (request.target.ends_with("/security-credentials/role-1")) return reply_with("200 OK", "", service_answer);
    return reply_with("404 Not Found", "", "");
  });
  clean.change("AWS_EC2_METADATA_DISABLED", nullptr);
  clean.change("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url().c_str());
  CHECK(found_key() == "K:S:T");
}

TEST_CASE("a web identity is changed for keys") {
  Clean clean;
  HttpServer server([](const ServerRequest& request) {
    if (request.target.find("WebIdentityToken=jwt%2Btext") == std::string::npos) return reply_with("400 Bad", "", "");
    return reply_with("200 OK", "",
                      "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
                      "<AccessKeyId>W</AccessKeyId><SecretAccessKey>WS</SecretAccessKey><SessionToken>WT</SessionToken>"
                      "<Expiration>2030-01-02T03:04:05Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
                      "</AssumeRoleWithWebIdentityResponse>");
  });
  clean.change("AWS_ROLE_ARN", "arn:aws:iam::1:role/x");
  clean.change("AWS_WEB_IDENTITY_TOKEN_FILE", clean.write("jwt", "jwt+text\n").c_str());
  clean.change("AWS_ENDPOINT_URL_STS", server.url().c_str());
  CHECK(found_key() == "W:WS:WT");
}

TEST_CASE("answers of services that are none") {
  for (const char* bad : {"", "[]", "{}", "{\"AccessKeyId\":1}", "{\"AccessKeyId\":\"a\"}", "{\"AccessKeyId\":\"a\""}) {
    CAPTURE(bad);
    CHECK(!parse_service_credentials(bad));
  }
}
