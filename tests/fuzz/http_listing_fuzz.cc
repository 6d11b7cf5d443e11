// Fuzzes what web servers say of their directories: JSON and HTML.
//   Build  meson setup build/fuzz -Dfuzz=true (with CXX=clang++); meson compile -C build/fuzz http_listing_fuzz
//   Run    build/fuzz/tests/fuzz/http_listing_fuzz -max_len=65536 -rss_limit_mb=512 CORPUS_FOLDER
// The input is the document, read both ways. Checked besides crashes: every name is one that a directory may show, so that no
// answer leads out of the source; a name comes once from HTML.
#include <cstdint>
#include <unordered_set>

#include "base/assert.h"
#include "base/limits.h"
#include "origin/http_listing.h"

using namespace blobcache;

namespace {

void check(const Result<std::vector<ListedName>>& names, bool each_once) {
  if (!names) return;
  std::unordered_set<std::string_view> seen;
  for (const ListedName& listed : *names) {
    BC_ASSERT(!listed.name.empty() && listed.name.size() <= limits::name_bytes_max);
    BC_ASSERT(listed.name != "." && listed.name != "..");
    BC_ASSERT(listed.name.find('/') == std::string::npos && listed.name.find('\0') == std::string::npos);
    BC_ASSERT(!each_once || seen.insert(listed.name).second);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check(parse_json_listing(text), false);
  check(parse_html_listing(text, "/a/"), true);
  return 0;
}
