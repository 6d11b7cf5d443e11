// Fuzzes the values of HTTP's headers: ranges, lengths, dates, delays; and percent-encoding.
//   Build  meson setup build/fuzz -Dfuzz=true (with CXX=clang++); meson compile -C build/fuzz http_text_fuzz
//   Run    build/fuzz/tests/fuzz/http_text_fuzz -max_len=4096 -rss_limit_mb=512 CORPUS_FOLDER
// The input is one value, read as each of them. Checked besides crashes: a range lies in its total, a delay is an hour at
// most, what was encoded decodes to itself.
#include <cstdint>

#include "base/assert.h"
#include "origin/http_text.h"

using namespace blobcache;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto range = parse_content_range(text)) {
    BC_ASSERT(range->first <= range->last && (!range->total || range->last < *range->total));
  }
  if (const auto count = parse_count(text)) BC_ASSERT(!text.empty() && text.front() >= '0' && text.front() <= '9');
  (void)parse_http_date(text);
  (void)parse_iso_date(text);
  constexpr uint64_t hour_ns = 3'600'000'000'000;
  for (const int64_t now_s : {int64_t{0}, int64_t{1'700'000'000}}) {
    BC_ASSERT(parse_retry_after_ns(text, now_s).value_or(0) <= hour_ns);
  }
  BC_ASSERT(percent_decode(percent_encode(text), {.plus_is_space = true}) == text);
  BC_ASSERT(percent_decode(percent_encode_path(text)) == text);
  BC_ASSERT(percent_decode(text).value_or("").size() <= size);
  return 0;
}
