#include <doctest/doctest.h>

#include "origin/http_manifest.h"

using namespace blobcache;

namespace {

std::string refusal_of(std::string_view text) {
  std::string why;
  const auto parsed = parse_manifest(text, &why);
  CHECK(!parsed);
  if (!parsed) CHECK(parsed.error().code == Code::protocol);
  return why;
}

}  // namespace

TEST_CASE("a manifest is one JSON object a line, in any order") {
  std::string why;
  const auto parsed = parse_manifest(
      "{\"path\": \"b/\u00fc\", \"size\": 12, \"etag\": \"\\\"65-2\\\"\", \"mtime\": 1700000000, \"more\": [1]}\r\n"
      "\n"
      "{\"size\": 0, \"path\": \"a b\"}",
      &why);
  REQUIRE(parsed);
  REQUIRE(parsed->size() == 2);
  CHECK((*parsed)[0].path == "a b");
  CHECK((*parsed)[0].version.empty());
  CHECK((*parsed)[1].path == "b/\u00fc");
  CHECK((*parsed)[1].size == 12);
  CHECK((*parsed)[1].mtime_s == 1700000000);
  CHECK((*parsed)[1].version == "\"65-2\"");
}

TEST_CASE("what is wrong with a manifest is said with its line") {
  CHECK(refusal_of("") == "it names no file");
  CHECK(refusal_of("<html>").starts_with("line 1 is no JSON object"));
  CHECK(refusal_of("{\"path\":\"a\",\"size\":1}\n[]").starts_with("line 2 is no JSON object"));
  CHECK(refusal_of("{\"path\":\"a\",\"size\":1,\"x\":[[[[[[]]]]]]}").starts_with("line 1 is no JSON object"));
  CHECK(refusal_of(std::string(100'000, '[')).starts_with("line 1 is no JSON object"));
  CHECK(refusal_of("{\"size\":1}") == "line 1 has no \"path\"");
  CHECK(refusal_of("{\"path\":\"\",\"size\":1}") == "line 1 has an empty path");
  for (const char* path : {"/a", "a/", "a//b", "..", "a/../b", "./a"}) {
    CHECK(refusal_of("{\"path\":\"" + std::string(path) + "\",\"size\":1}").find("\"..\" in it") != std::string::npos);
  }
  CHECK(refusal_of("{\"path\":\"a\\u0000b\",\"size\":1}") == "line 1 has a path with a NUL byte");
  CHECK(refusal_of("{\"path\":\"" + std::string(256, 'n') + "\",\"size\":1}") ==
        "line 1 has a name of 256 bytes in its path");
  CHECK(refusal_of("{\"path\":\"" + std::string(5000, 'n') + "\",\"size\":1}") == "line 1 has a path of 5000 bytes");
  for (const char* size : {"-1", "1.5", "\"1\"", "null", "1e300", "9223372036854775808", "99999999999999999999999"}) {
    CHECK(refusal_of("{\"path\":\"a\",\"size\":" + std::string(size) + "}").starts_with("line 1 has no \"size\""));
  }
  for (const char* mtime : {"1.5", "\"now\"", "18446744073709551615", "-9223372036854775808"}) {
    CHECK(refusal_of("{\"path\":\"a\",\"size\":1,\"mtime\":" + std::string(mtime) + "}")
              .starts_with("line 1 has an \"mtime\""));
  }
  for (const char* etag : {"1", "\"x\"", "\"\\\"a\\r\\nEvil: 1\\\"\"", "\"\\\"a\\\"b\\\"\"", "\"\\\"\"", "\"W/x\""}) {
    CHECK(refusal_of("{\"path\":\"a\",\"size\":1,\"etag\":" + std::string(etag) + "}")
              .starts_with("line 1 has an \"etag\""));
  }
}

TEST_CASE("paths that make no tree are refused") {
  CHECK(refusal_of("{\"path\":\"a\",\"size\":1}\n{\"path\":\"a\",\"size\":2}") == "it has \"a\" twice");
  CHECK(refusal_of("{\"path\":\"a/b\",\"size\":1}\n{\"path\":\"a-1\",\"size\":2}\n{\"path\":\"a\",\"size\":2}") ==
        "it has \"a\" as a file and as the directory of \"a/b\"");
}
