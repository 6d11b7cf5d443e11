// HTTP requests out of bytes that come as they like.
#include <doctest/doctest.h>

#include <string>

#include "node/http_parser.h"

namespace blobcache::node {
namespace {

using Step = HttpParser::Step;

struct Read {
  Step last = Step::more;
  std::string body;
  size_t left = 0;  // of the text, behind the request
};

// Feeds text in parts of so many bytes.
Read read_all(HttpParser& parser, const std::string& text, size_t part) {
  Read read;
  std::string buffer;
  size_t given = 0;
  while (true) {
    size_t used = 0;
    const Step step = parser.parse(buffer, &used);
    read.body += parser.piece();
    buffer.erase(0, used);
    read.last = step;
    if (step == Step::bad || step == Step::too_long || step == Step::end) break;
    if ((step == Step::head || step == Step::body) && parser.done()) break;
    if (step != Step::more) continue;
    if (given == text.size()) break;
    buffer += text.substr(given, part);
    given = std::min(text.size(), given + part);
  }
  read.left = buffer.size() + text.size() - given;
  return read;
}

TEST_CASE("http parser: a request is the same however it is cut") {
  const std::string text =
      "PUT /v1/blobs?x=1 HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nx-two:  two \r\nContent-Length: 10\r\n\r\n0123456789GET";
  for (const size_t part : {1, 2, 3, 7, 64, 1000}) {
    CAPTURE(part);
    HttpParser parser;
    const Read read = read_all(parser, text, part);
    CHECK(parser.done());
    CHECK(read.body == "0123456789");
    CHECK(read.left == 3);
    CHECK(parser.head().method == "PUT");
    CHECK(parser.head().path() == "/v1/blobs");
    CHECK(parser.head().query() == "x=1");
    CHECK(parser.head().field("x-one") == "1");
    CHECK(parser.head().field("x-two") == "two");
    CHECK(parser.head().field("x-three") == "");
    CHECK(parser.head().content_length == 10);
    CHECK(parser.head().keep_alive);
  }
}

TEST_CASE("http parser: a chunked body") {
  const std::string text =
      "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n10;ext=1\r\n0123456789abcdef\r\n0\r\n\r\n";
  for (const size_t part : {1, 5, 1000}) {
    CAPTURE(part);
    HttpParser parser;
    CHECK(read_all(parser, text, part).body == "abc0123456789abcdef");
    CHECK(parser.done());
    CHECK(!parser.head().content_length);
  }
}

TEST_CASE("http parser: what is no request") {
  for (const char* text :
       {"\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "G\x01T / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}) {
    CAPTURE(text);
    HttpParser parser;
    CHECK(read_all(parser, text, 1000).last == Step::bad);
  }
  HttpParser parser;
  CHECK(read_all(parser, "GET / HTTP/1.1\r\nX: " + std::string(9000, 'x') + "\r\n\r\n", 1000).last == Step::too_long);
}

TEST_CASE("http parser: HTTP/1.0 ends with its answer, and a parser is used again") {
  HttpParser parser;
  read_all(parser, "GET /a HTTP/1.0\r\n\r\n", 1000);
  CHECK(!parser.head().keep_alive);
  parser.reset();
  read_all(parser, "HEAD /b HTTP/1.1\r\n\r\n", 1000);
  CHECK(parser.head().path() == "/b");
  CHECK(parser.head().is_head());
  CHECK(parser.head().keep_alive);
  CHECK(parser.done());
}

// Field after field, each given with the rest of the one before.
TEST_CASE("http parser: a head that never ends is refused, however it comes") {
  SUBCASE("many short fields in small pieces") {
    HttpParser parser;
    std::string buffer = "GET / HTTP/1.1\r\na";
    size_t given = buffer.size();
    Step step = Step::more;
    for (unsigned i = 0; i < 10'000 && step == Step::more; ++i) {
      buffer += ":\r\na";
      given += 4;
      size_t used = 0;
      step = parser.parse(buffer, &used);
      buffer.erase(0, used);
    }
    CHECK(step == Step::too_long);
    CHECK(given <= 2 * HttpParser::head_bytes_max);
    CHECK(parser.head().fields.size() <= HttpParser::fields_max);
  }
  SUBCASE("many fields at once") {
    std::string text = "GET / HTTP/1.1\r\n";
    for (size_t i = 0; i <= HttpParser::fields_max; ++i) text += "a:\r\n";
    HttpParser parser;
    CHECK(read_all(parser, text + "\r\n", 4096).last == Step::too_long);
  }
  SUBCASE("long fields, each shorter than the limit") {
    std::string text = "GET / HTTP/1.1\r\n";
    for (unsigned i = 0; i < 20; ++i) text += "x: " + std::string(1000, 'y') + "\r\n";
    for (const size_t part : {1, 100, 1500}) {
      HttpParser parser;
      CHECK(read_all(parser, text + "\r\n", part).last == Step::too_long);
    }
  }
  SUBCASE("as many as may be") {
    std::string text = "GET / HTTP/1.1\r\n";
    for (size_t i = 0; i < HttpParser::fields_max; ++i) text += "a: " + std::string(50, 'b') + "\r\n";
    for (const size_t part : {1, 100, 8000}) {
      HttpParser parser;
      CHECK(read_all(parser, text + "\r\n", part).last == Step::head);
    }
  }
}

}  // namespace
}  // namespace blobcache::node
