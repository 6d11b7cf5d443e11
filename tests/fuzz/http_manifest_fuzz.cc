// Fuzzes manifests of web servers: a JSON object a line.
//   Build  meson setup build/fuzz -Dfuzz=true (with CXX=clang++); meson compile -C build/fuzz http_manifest_fuzz
//   Run    build/fuzz/tests/fuzz/http_manifest_fuzz -max_len=65536 -rss_limit_mb=512 CORPUS_FOLDER tests/fuzz/seeds/http_manifest
// Checked besides crashes: what is taken is a tree (each path once, in order, none below a file, no part that leads elsewhere),
// its numbers are sizes and times, its versions can stand in a header; and what is refused says why.
#include <cstdint>
#include <string>
#include <string_view>

#include "base/assert.h"
#include "base/file_info.h"
#include "base/limits.h"
#include "origin/http_manifest.h"

using namespace blobcache;

namespace {

void check_path(std::string_view path) {
  BC_ASSERT(!path.empty() && path.size() < limits::path_bytes_max && path.find('\0') == std::string_view::npos);
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    const std::string_view part = path.substr(at, end - at);
    BC_ASSERT(!part.empty() && part != "." && part != ".." && part.size() <= limits::name_bytes_max);
    at = end + 1;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string why;
  const auto files = parse_manifest(std::string_view(reinterpret_cast<const char*>(data), size), &why);
  BC_ASSERT(files.has_value() == why.empty());
  if (!files) return 0;
  BC_ASSERT(!files->empty());
  const ManifestFile* before = nullptr;
  for (const ManifestFile& file : *files) {
    check_path(file.path);
    BC_ASSERT(file.size <= INT64_MAX && file.version.size() <= sizeof FileVersion::bytes);
    for (const char c : file.version) BC_ASSERT(c > ' ' && c < '\x7f');
    BC_ASSERT(before == nullptr || (before->path < file.path && !file.path.starts_with(before->path + '/')));
    before = &file;
  }
  return 0;
}
