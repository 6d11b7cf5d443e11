// One JSON object a line and not one document: a line is parsed and forgotten, so a manifest costs its names and no tree of
// nodes, and what is wrong is told with its line.
#include "origin/http_manifest.h"

#include <algorithm>
#include <cerrno>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "origin/http_client.h"

namespace blobcache {
namespace {

using Json = nlohmann::json;

constexpr int depth_max = 4;
constexpr uint64_t size_max = INT64_MAX;
constexpr int64_t mtime_s_max = int64_t{1} << 40;

// Nothing: it is a path of a file below the root.
std::optional<std::string> why_no_path(std::string_view path) {
  if (path.empty()) return "has an empty path";
  if (path.size() >= limits::path_bytes_max) return fmt::format("has a path of {} bytes", path.size());
  if (path.find('\0') != std::string_view::npos) return "has a path with a NUL byte";
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    const std::string_view part = path.substr(at, end - at);
    if (part.empty() || part == "." || part == "..") {
      return fmt::format("has the path \"{}\", which has an empty part or \".\" or \"..\" in it", path);
    }
    if (part.size() > limits::name_bytes_max) return fmt::format("has a name of {} bytes in its path", part.size());
    at = end + 1;
  }
  return std::nullopt;
}

// An ETag goes into requests as it is, so nothing may be in it that ends a header.
bool is_etag(std::string_view text) {
  if (text.starts_with("W/")) text.remove_prefix(2);
  return text.size() >= 2 && text.size() <= 1024 && text.front() == '"' && text.back() == '"' &&
         std::ranges::all_of(text.substr(1, text.size() - 2), [](char c) { return c > ' ' && c < '\x7f' && c != '"'; });
}

// Nothing: the line is taken.
std::optional<std::string> take_line(std::string_view line, ManifestFile& file) {
  int depth_seen = 0;
  const auto watch = [&](int depth, Json::parse_event_t, Json&) {
    depth_seen = std::max(depth_seen, depth);
    return depth <= depth_max;
  };
  const Json json = Json::parse(line, watch, false);
  if (!json.is_object() || depth_seen > depth_max) {
    return "is no JSON object; write one a line: {\"path\": \"a/b\", \"size\": 12, \"etag\": \"\\\"x\\\"\"}";
  }
  const auto path = json.find("path");
  if (path == json.end() || !path->is_string()) return "has no \"path\"";
  file.path = path->get<std::string>();
  if (std::optional<std::string> why = why_no_path(file.path)) return why;
  const auto size = json.find("size");
  if (size == json.end() || !size->is_number_unsigned() || size->get<uint64_t>() > size_max) {
    return "has no \"size\" that is a number of bytes";
  }
  file.size = size->get<uint64_t>();
  if (const auto mtime = json.find("mtime"); mtime != json.end()) {
    const bool in_range = mtime->is_number_unsigned()
                              ? mtime->get<uint64_t>() <= uint64_t{mtime_s_max}
                              : mtime->is_number_integer() && mtime->get<int64_t>() >= -mtime_s_max;
    if (!in_range) return "has an \"mtime\" that is no time in seconds";
    file.mtime_s = mtime->get<int64_t>();
  }
  if (const auto etag = json.find("etag"); etag != json.end()) {
    if (!etag->is_string() || !is_etag(etag->get_ref<const std::string&>())) {
      return "has an \"etag\" that is none; write it with its quotes, as the server sends it";
    }
    file.version = compact_version(etag->get<std::string>());
  }
  return std::nullopt;
}

// Each path once, and none below a file.
std::optional<std::string> why_no_tree(const std::vector<ManifestFile>& files) {
  for (size_t i = 1; i < files.size(); ++i) {
    if (files[i].path == files[i - 1].path) return fmt::format("has \"{}\" twice", files[i].path);
  }
  for (const ManifestFile& file : files) {
    const std::string below = file.path + '/';
    const auto next = std::ranges::lower_bound(files, below, {}, &ManifestFile::path);
    if (next != files.end() && next->path.starts_with(below)) {
      return fmt::format("has \"{}\" as a file and as the directory of \"{}\"", file.path, next->path);
    }
  }
  return std::nullopt;
}

}  // namespace

Result<std::vector<ManifestFile>> parse_manifest(std::string_view text, std::string* why) {
  std::vector<ManifestFile> files;
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    if (std::optional<std::string> wrong = take_line(line, files.emplace_back())) {
      *why = fmt::format("line {} {}", number, *wrong);
      return fail(Code::protocol, EPROTO);
    }
  }
  if (files.empty()) {
    *why = "it names no file";
    return fail(Code::protocol, EPROTO);
  }
  std::ranges::sort(files, {}, &ManifestFile::path);
  if (std::optional<std::string> wrong = why_no_tree(files)) {
    *why = "it " + *wrong;
    return fail(Code::protocol, EPROTO);
  }
  return files;
}

}  // namespace blobcache
