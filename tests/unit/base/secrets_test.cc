#include "base/secrets.h"

#include <cstdlib>

#include <doctest/doctest.h>

namespace blobcache {
namespace {

TEST_CASE("a password in an URL is hidden, the rest of the URL stays") {
  CHECK(redacted("https://user:pass@host/a/b") == "https://***@host/a/b");
  CHECK(redacted("cannot reach http://u:p@ss@host:80/x; and s3://k@b/") ==
        "cannot reach http://***@host:80/x; and s3://***@b/");
  CHECK(redacted("https://host/a@b") == "https://host/a@b");
  CHECK(redacted("https://host?mail=a@b") == "https://host?mail=a@b");
}

TEST_CASE("what signs or opens is hidden in queries and headers") {
  CHECK(redacted("GET https://h/k?X-Amz-Date=1&X-Amz-Signature=0badc0de&x=1") ==
        "GET https://h/k?X-Amz-Date=1&X-Amz-Signature=***&x=1");
  CHECK(redacted("'https://h/k?sig=a%2Bb' failed") == "'https://h/k?sig=***' failed");
  CHECK(redacted("?key=AIza&alt=media") == "?key=***&alt=media");
  CHECK(redacted("Authorization: Bearer abcdefghijkl") == "Authorization: Bearer ***");
  CHECK(redacted("authorization: AWS4-HMAC-SHA256 Credential=AKIA/x, SignedHeaders=host, Signature=feed") ==
        "authorization: AWS4-HMAC-SHA256 Credential=***, SignedHeaders=host, Signature=***");
  CHECK(redacted("x-amz-security-token: FwoGZXIv") == "x-amz-security-token: ***");
  CHECK(redacted("aws_secret_access_key = wJalrXUt") == "aws_secret_access_key = ***");
  CHECK(redacted("aws_secret_access_key=wJalrXUt") == "aws_secret_access_key=***");
}

TEST_CASE("words that only look alike stay") {
  for (const char* text : {"volume.source = \"/data\" (volume[0].source)", "the key: value",
                           "it has no aws_secret_access_key: set the access key", "8 bearers of news", "a token",
                           "12:34:56 info  ready", "", "Bearer of", "monkey=1", "log.level=debug"}) {
    CHECK(redacted(text) == text);
  }
}

TEST_CASE("a remembered secret is hidden wherever it stands; short ones are not remembered") {
  remember_secret("correcthorsebattery");
  remember_secret("short");
  CHECK(redacted("<StringToSign>correcthorsebattery</StringToSign>") == "<StringToSign>***</StringToSign>");
  CHECK(redacted("short") == "short");
  setenv("AWS_SECRET_ACCESS_KEY", "of-the-environment", 1);
  remember_environment_secrets();
  CHECK(redacted("xof-the-environmentx") == "x***x");
  unsetenv("AWS_SECRET_ACCESS_KEY");
  for (int i = 0; i < 200; ++i) remember_secret("renewed-key-" + std::to_string(i));
  CHECK(redacted("renewed-key-199") == "***");
}

}  // namespace
}  // namespace blobcache
