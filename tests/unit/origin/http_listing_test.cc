// Listings of web servers, as nginx and others write them, and what is none.
#include <doctest/doctest.h>

#include <ctime>

#include "origin/http_listing.h"
#include "origin/name_cache.h"

using namespace blobcache;

namespace {

std::string shown(const Result<std::vector<ListedName>>& names) {
  if (!names) return "refused";
  std::string text;
  for (const ListedName& listed : *names) text += "[" + listed.name + (listed.directory ? "/]" : "]");
  return text;
}

}  // namespace

TEST_CASE("nginx's JSON") {
  CHECK(shown(parse_json_listing(
            R"([{"name":"d","type":"directory","mtime":"x"},{"name":"f \u00fc","type":"file","size":5}])")) ==
        "[d/][f ü]");
  CHECK(shown(parse_json_listing("[]")) == "");
  CHECK(
      shown(parse_json_listing(
          R"([{"name":"../x","type":"file"},{"name":"..","type":"directory"},{"name":"","type":"file"},{"type":"file"},{"name":"ok","type":"file"}])")) ==
      "[ok]");
  for (const char* bad : {"", "{}", "[1]", "[{\"name\":", "<html>"}) CHECK(shown(parse_json_listing(bad)) == "refused");
}

TEST_CASE("links that are children, once each, whatever else the page has") {
  const std::string page =
      "<html><h1>Index of /data/</h1><a href=\"../\">../</a>\n<a href=\"d%20d/\">d d/</a> -\n"
      "<A HREF='f%26%22.txt'>f</A> <a class=x href = \"./g\">g</a><a href=\"?C=N;O=D\">Name</a>"
      "<a href=\"/data/absolute\">a</a><a href=\"/other/x\">x</a><a href=\"http://elsewhere/y\">y</a>"
      "<a href=\"//elsewhere/y\">y</a><a href=\"g\">again</a><a href=\"a&amp;b&#39;\">e</a><a href=\"deep/er\">no</a>"
      "<a href=\"%2e%2e/\">up</a><a href=\"x%2Fy\">slash</a><a href=\"%zz\">bad</a><a href=\"#top\">top</a><a "
      "href=\"c:d\">colon</a><link data-href=\"none\">";
  CHECK(shown(parse_html_listing(page, "/data/")) == "[d d/][f&\".txt][g][absolute][a&b'][c:d]");
  CHECK(shown(parse_html_listing("<a href=\"../\">../</a>", "/")) == "");
}

TEST_CASE("a page made to be slow costs its length, not the square of it") {
  // 2^39 bytes would be looked at if each '&' looked for its ';' to the end: half a minute at the speed of memory.
  const std::string page = "<a href=\"" + std::string(1 << 20, '&') + "\"><a href=\"a&amp;b&#38;c&;&toolongforone;\">";
  const std::clock_t before = std::clock();
  CHECK(shown(parse_html_listing(page, "/")) == "[a&b&c&;&toolongforone;]");
  CHECK(static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC < 2);
}

TEST_CASE("pages without links are no listings") {
  for (const char* bad :
       {"", "text", "href", "<a href", "<a href=", "<a href=\"", "<a href=\"unfinished", "<a>href=x</a>"}) {
    CAPTURE(bad);
    CHECK(shown(parse_html_listing(bad, "/")) == "refused");
  }
}

TEST_CASE("known names: trusted until their time, the least asked for leaves first") {
  NameCache names(16 * 4);
  KnownName known{.exists = true, .info = {}};
  known.info.attributes.size = 7;
  names.put("a", known, 100);
  KnownName found;
  REQUIRE(names.find("a", 99, &found));
  CHECK(found.info.attributes.size == 7);
  CHECK(!names.find("a", 100, &found));
  CHECK(!names.find("a", 50, &found));
  names.put("b", known, 100);
  names.put("b", {}, 200);
  REQUIRE(names.find("b", 150, &found));
  CHECK(!found.exists);
  names.forget("b");
  names.forget("never");
  CHECK(!names.find("b", 0, &found));
  names.put("kept", known, 1'000'000);
  unsigned held = 0;
  for (int i = 0; i < 1000; ++i) {
    names.put(std::to_string(i), known, 1'000'000);
    REQUIRE(names.find("kept", 0, &found));
  }
  for (int i = 0; i < 1000; ++i) held += names.find(std::to_string(i), 0, &found);
  CHECK(held <= 64);
  CHECK(held >= 32);
}
