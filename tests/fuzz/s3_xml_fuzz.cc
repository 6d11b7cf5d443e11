// Fuzzes what S3 says: pages of listings and errors.
//   Build  meson setup build/fuzz -Dfuzz=true (with CXX=clang++); meson compile -C build/fuzz s3_xml_fuzz
//   Run    build/fuzz/tests/fuzz/s3_xml_fuzz -max_len=65536 -rss_limit_mb=512 CORPUS_FOLDER
// The input is the document. Checked besides crashes: a page that is taken has keys and prefixes that are not empty, and a
// token where one follows; nothing in it is longer than the document (no entity was expanded).
#include <cstdint>

#include "base/assert.h"
#include "origin/s3_xml.h"

using namespace blobcache;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view xml(reinterpret_cast<const char*>(data), size);
  if (const Result<S3Page> page = parse_s3_page(xml)) {
    size_t bytes = page->next_token.size();
    for (const S3Object& object : page->objects) {
      BC_ASSERT(!object.key.empty());
      BC_ASSERT(object.etag.empty() || object.etag.front() == '"');
      bytes += object.key.size();
    }
    for (const std::string& prefix : page->prefixes) {
      BC_ASSERT(!prefix.empty());
      bytes += prefix.size();
    }
    BC_ASSERT(bytes <= size);
    BC_ASSERT(!page->truncated || !page->next_token.empty());
  }
  const S3Failure failure = parse_s3_failure(xml);
  BC_ASSERT(failure.code.size() + failure.message.size() + failure.region.size() <= size);
  return 0;
}
