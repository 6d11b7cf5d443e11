// Profiles that lead elsewhere: to a role, a program, a sign-in; and credentials that end while files are read.
#include <doctest/doctest.h>

#include <ctime>
#include <set>

#include <fmt/format.h>

#include "origin/aws_profile.h"
#include "origin/s3.h"
#include "unit/origin/aws_fixture.h"
#include "unit/origin/http_fixture.h"

using namespace blobcache_test;

namespace {

std::string role_answer(std::string_view key) {
  return fmt::format(
      "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>{0}</AccessKeyId><SecretAccessKey>{0}S"
      "</SecretAccessKey><SessionToken>{0}T</SessionToken><Expiration>2030-01-02T03:04:05Z</Expiration></Credentials>"
      "</AssumeRoleResult></AssumeRoleResponse>",
      key);
}

// Who signed, from "Authorization: AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/...".
std::string signer_of(const ServerRequest& request) {
  const std::string line = request.header("authorization");
  const size_t at = line.find("Credential=");
  return at == std::string::npos ? "" : line.substr(at + 11, line.find('/', at) - at - 11);
}

}  // namespace

TEST_CASE("a role is assumed with the keys of its source profile, and a role of a role with that one's") {
  Clean clean;
  HttpServer server([](const ServerRequest& request) {
    const std::string scope = request.header("authorization");
    if (scope.find("/sts/aws4_request") == std::string::npos) return reply_with("403 Forbidden", "", "");
    if (signer_of(request) == "A" &&
        request.target ==
            "/?Action=AssumeRole&DurationSeconds=900&ExternalId=x%2Fy&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fone"
            "&RoleSessionName=me&Version=2011-06-15") {
      return reply_with("200 OK", "", role_answer("ONE"));
    }
    const bool second = request.target.find("role%2Ftwo") != std::string::npos;
    if (second && signer_of(request) == "ONE" && request.header("x-amz-security-token") == "ONET") {
      return reply_with("200 OK", "", role_answer("TWO"));
    }
    return reply_with("403 Forbidden", "", "");
  });
  clean.change("AWS_ENDPOINT_URL_STS", server.url().c_str());
  clean.write(".aws/credentials", "[base]\naws_access_key_id = A\naws_secret_access_key = AS\n");
  clean.write(".aws/config",
              "[profile one]\nrole_arn = arn:aws:iam::1:role/one\nsource_profile = base\nexternal_id = x/y\n"
              "duration_seconds = 900\nrole_session_name = me\n"
              "[profile two]\nrole_arn = arn:aws:iam::1:role/two\nsource_profile = one\n"
              "[profile denied]\nrole_arn = arn:aws:iam::1:role/three\nsource_profile = base\n"
              "[profile circle]\nrole_arn = arn:aws:iam::1:role/one\nsource_profile = circle2\n"
              "[profile circle2]\nrole_arn = arn:aws:iam::1:role/one\nsource_profile = circle\n"
              "[profile none]\nrole_arn = arn:aws:iam::1:role/one\nsource_profile = missing\n"
              "[profile device]\nrole_arn = arn:aws:iam::1:role/one\nsource_profile = base\nmfa_serial = 7\n");
  const auto with_profile = [&](const char* name) {
    clean.change("AWS_PROFILE", name);
    return found_key();
  };
  CHECK(with_profile("one") == "ONE:ONES:ONET");
  CHECK(with_profile("two") == "TWO:TWOS:TWOT");
  CHECK(with_profile("denied").find("did not let the role arn:aws:iam::1:role/three be assumed (status 403)") !=
        std::string::npos);
  CHECK(with_profile("circle").find("leads to itself") != std::string::npos);
  CHECK(with_profile("none").find("gives no credentials") != std::string::npos);
  CHECK(with_profile("device").find("mfa_serial") != std::string::npos);
  std::string why;
  clean.change("AWS_PROFILE", "one");
  CHECK(find_aws_credentials({.setting = "auto", .region = "r", .ca_file = ""}, &why)->expires_s == 1893553445);
}

TEST_CASE("a role may be assumed with the keys beside it, or those of the environment") {
  Clean clean;
  HttpServer server(
      [](const ServerRequest& request) { return reply_with("200 OK", "", role_answer(signer_of(request))); });
  clean.change("AWS_ENDPOINT_URL_STS", server.url().c_str());
  clean.write(".aws/config",
              "[default]\nrole_arn = r\nsource_profile = default\naws_access_key_id = B\naws_secret_access_key = BS\n");
  CHECK(found_key() == "B:BS:BT");
  const std::string file = clean.write("named", "[default]\nrole_arn = r\ncredential_source = Environment\n");
  clean.change("AWS_ACCESS_KEY_ID", "E");
  clean.change("AWS_SECRET_ACCESS_KEY", "ES");
  CHECK(found_key(file) == "E:ES:ET");
}

TEST_CASE("a program's answer is taken, and what is wrong with one is said without its arguments") {
  Clean clean;
  const auto with_program = [&](const std::string& command) {
    return found_key(clean.write("keys", "[default]\ncredential_process = " + command + "\n"));
  };
  const std::string answer = clean.write(
      "answer",
      R"({"Version":1,"AccessKeyId":"P","SecretAccessKey":"PS","SessionToken":"PT","Expiration":"2030-01-02T03:04:05Z"})");
  CHECK(with_program("cat '" + answer + "'") == "P:PS:PT");
  CHECK(with_program("false secret").find("credential_process (false) failed") != std::string::npos);
  CHECK(with_program("cat '" + answer + "'; exit 3").find("failed") != std::string::npos);
  CHECK(with_program("echo nothing").find("wrote no credentials") != std::string::npos);
  CHECK(with_program("false secret").find("secret") == std::string::npos);
}

TEST_CASE("a sign-in's token is changed for keys while it lasts") {
  Clean clean;
  HttpServer server([](const ServerRequest& request) {
    if (request.header("x-amz-sso_bearer_token") != "bearer" ||
        request.target != "/federation/credentials?account_id=123&role_name=reader") {
      return reply_with("401 Unauthorized", "", "");
    }
    return reply_with(
        "200 OK", "",
        R"({"roleCredentials":{"accessKeyId":"S","secretAccessKey":"SS","sessionToken":"ST","expiration":)"
        R"(1893553445000}})");
  });
  clean.change("AWS_ENDPOINT_URL_SSO", server.url().c_str());
  clean.write(".aws/config",
              "[default]\nsso_session = corp\nsso_account_id = 123\nsso_role_name = reader\n"
              "[profile old]\nsso_start_url = https://corp/start\nsso_region = r\nsso_account_id = 123\nsso_role_name "
              "= reader\n"
              "[sso-session corp]\nsso_region = r\nsso_start_url = https://corp/start\n");
  CHECK(found_key().find("nobody has signed in for the profile default") != std::string::npos);
  // sha1sum of "corp" and of the URL
  const std::string of_session = ".aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json";
  const std::string of_url = ".aws/sso/cache/717f6b50ccf65f10839b090b78b6ff0786091a96.json";
  clean.write(of_session, R"({"accessToken":"bearer","expiresAt":"2001-01-01T00:00:00Z"})");
  CHECK(found_key().find("has expired: sign in with `aws sso login --profile default`") != std::string::npos);
  clean.write(of_session, R"({"accessToken":"bearer","expiresAt":"2029-01-01T00:00:00Z"})");
  CHECK(found_key() == "S:SS:ST");
  clean.write(of_url, R"({"accessToken":"other","expiresAt":"2029-01-01T00:00:00Z"})");
  clean.change("AWS_PROFILE", "old");
  CHECK(found_key().find("gave no credentials to the profile old (status 401)") != std::string::npos);
  clean.write(of_url, R"({"accessToken":"bearer","expiresAt":"2029-01-01T00:00:00Z"})");
  CHECK(found_key() == "S:SS:ST");
}

TEST_CASE("credentials that end are fetched anew while reads go on with the old ones") {
  Clean clean;
  // The first ones have a minute left, less than the time before the end at which others are fetched.
  const std::string count = clean.home() + "/count";
  const std::string program = clean.write(
      "program",
      fmt::format("printf x >>'{0}'\nn=$(wc -c <'{0}')\nend=2030-01-02T03:04:05Z\n"
                  "[ \"$n\" -gt 1 ] || end=$(date -u -d '+1 minute' +%Y-%m-%dT%H:%M:%SZ)\n"
                  "echo '{{\"AccessKeyId\":\"K'$n'\",\"SecretAccessKey\":\"s\",\"Expiration\":\"'$end'\"}}'\n",
                  count));
  std::mutex mutex;
  std::vector<std::string> signers;
  HttpServer server([&](const ServerRequest& request) {
    if (request.target.find("list-type") != std::string::npos) {
      return reply_with("200 OK", "", "<ListBucketResult><EncodingType>url</EncodingType></ListBucketResult>");
    }
    const std::lock_guard lock(mutex);
    signers.push_back(signer_of(request));
    return range_reply(request);
  });
  VolumeConfig volume;
  volume.source = "s3://b";
  volume.s3.endpoint = server.url();
  volume.s3.credentials = clean.write("keys", "[default]\ncredential_process = sh " + program + "\n");
  std::string why;
  auto origin = create_s3_origin(volume, Config().origin, &why);
  REQUIRE_MESSAGE(origin, why);
  const std::unique_ptr<Reactor> reactor = make_reactor();
  const auto read_once = [&] {
    struct Waited : ReadCall {
      bool done = false;
    } call;
    std::string bytes(4096, '#');
    call.on_done = [](OriginCall& ended) { static_cast<Waited&>(static_cast<ReadCall&>(ended)).done = true; };
    call.key = "f";
    call.version.length = 5;
    std::copy_n("\"one\"", 5, call.version.bytes);
    call.bytes = 4096;
    call.to = reinterpret_cast<std::byte*>(bytes.data());
    (*origin)->begin_read(*reactor, call);
    while (!call.done) reactor->turn(true);
    CHECK(!call.failed);
    CHECK(bytes == pattern(0, 4096));
    const std::lock_guard lock(mutex);
    return signers.back();
  };
  const std::string first = read_once();
  CHECK(first == "K1");
  const uint64_t give_up_ns = reactor->ring().now_ns() + 20'000'000'000;
  std::string last;
  while ((last = read_once()) == "K1" && reactor->ring().now_ns() < give_up_ns) {
  }
  CHECK(last == "K2");
  for (int i = 0; i < 20; ++i) CHECK(read_once() == "K2");
  CHECK((*origin)->counters().retries == 0);
  (*origin)->stop();
  CHECK((*origin)->join(1000));
  reactor->drain(1'000'000'000);
}
