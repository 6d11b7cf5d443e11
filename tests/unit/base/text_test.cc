#include "base/text.h"

#include <doctest/doctest.h>

namespace blobcache {
namespace {

TEST_CASE("a UTF-8 sequence has a length, and what is none has not") {
  CHECK(utf8_length("") == 0);
  CHECK(utf8_length(std::string_view("\0", 1)) == 1);
  CHECK(utf8_length("ab") == 1);
  CHECK(utf8_length("\u00e9x") == 2);
  CHECK(utf8_length("\u20ac") == 3);
  CHECK(utf8_length("\U0001f680") == 4);
  CHECK(utf8_length("\xf4\x8f\xbf\xbf") == 4);
  for (const char* none :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80", "\xff", "\xc3", "\xc3(", "\xe2\x82", "\xe2(\xac", "\xf0\x9f\x9a", "\xf0\x9f("}) {
    CAPTURE(none);
    CHECK(utf8_length(none) == 0);
  }
}

TEST_CASE("JSON strings are valid whatever the bytes") {
  CHECK(json_string("") == "\"\"");
  CHECK(json_string("a\"b\\c/\n") == "\"a\\\"b\\\\c/\\u000a\"");
  CHECK(json_string(std::string_view("\0\x1f\x7f", 3)) == "\"\\u0000\\u001f\\u007f\"");
  // Letters pass as they are, beside what does not.
  CHECK(json_string("mod\u00e8le \u6a21\u578b \U0001f680") == "\"mod\u00e8le \u6a21\u578b \U0001f680\"");
  CHECK(json_string("\u00e9\xe9\u00e9") == "\"\u00e9\\u00e9\u00e9\"");
  CHECK(json_string("\xff\xc3") == "\"\\u00ff\\u00c3\"");
  CHECK(json_string("\xc0\x80\xed\xa0\x80") == "\"\\u00c0\\u0080\\u00ed\\u00a0\\u0080\"");
  // A control character in two bytes is one escape, and not a byte of it.
  CHECK(json_string("\u0080a\u009b31m\u00a0") == "\"\\u0080a\\u009b31m\u00a0\"");
}

TEST_CASE("plain text keeps letters and shows each other byte") {
  CHECK(plain_text("mod\u00e8le \u6a21 \"\\") == "mod\u00e8le \u6a21 \"\\");
  CHECK(plain_text("a\nb\x1b[31m\x7f") == "a\\x0ab\\x1b[31m\\x7f");
  CHECK(plain_text("\xe9t\xe9") == "\\xe9t\\xe9");
  CHECK(plain_text("\u009b31m") == "\\xc2\\x9b31m");
}

TEST_CASE("lower case is that of ASCII alone") {
  CHECK(ascii_lower("Content-LENGTH 9[`{@Z") == "content-length 9[`{@z");
  CHECK(ascii_lower("\xc3\x84") == "\xc3\x84");
}

TEST_CASE("a cut does not go through a letter") {
  CHECK(utf8_cut("abc", 3) == "abc");
  CHECK(utf8_cut("abc", 2) == "ab");
  CHECK(utf8_cut("a\u00e9", 2) == "a");
  CHECK(utf8_cut("a\u00e9z", 3) == "a\u00e9");
  CHECK(utf8_cut("a\U0001f680", 4) == "a");
  CHECK(utf8_cut("a\U0001f680", 5) == "a\U0001f680");
  // What is no letter is cut where it is asked for, and what stands before it stays.
  CHECK(utf8_cut("\x80\x80\x80\x80\x80\x80", 5) == "\x80\x80\x80\x80\x80");
  CHECK(utf8_cut("\u00e9\x80z", 2) == "\u00e9");
  CHECK(utf8_cut("\u00e9", 0).empty());
}

}  // namespace
}  // namespace blobcache
