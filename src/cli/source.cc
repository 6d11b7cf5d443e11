#include "cli/source.h"

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include <dirent.h>
#include <fmt/format.h>

#include "cli/bounded.h"
#include "cli/command.h"

namespace blobcache::cli {
namespace {

constexpr int answer_ms = 10'000;  // a file server that wakes its disks takes seconds

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// False: a % without two digits, or an encoded NUL.
bool percent_decode(std::string_view text, std::string* out) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      *out += text[i];
      continue;
    }
    const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
    if (high < 0 || low < 0 || high + low == 0) return false;
    *out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return true;
}

int open_and_list(const std::string& path, int output_fd) {
  char resolved[PATH_MAX];
  if (realpath(path.c_str(), resolved) == nullptr) return errno;
  DIR* directory = opendir(resolved);
  if (directory == nullptr) return errno;
  errno = 0;
  const bool listed = readdir(directory) != nullptr || errno == 0;
  const int os_errno = errno;
  closedir(directory);
  if (!listed) return os_errno;
  write_all(output_fd, resolved);
  return 0;
}

}  // namespace

node::Outcome source_path(const std::string& source, std::string* path_out) {
  const size_t scheme_end = source.find("://");
  if (source.empty()) return {exit_wrong_use, "the source is empty; give a directory such as /data"};
  if (scheme_end == std::string::npos) {
    *path_out = source;
    return {};
  }
  const std::string scheme = source.substr(0, scheme_end);
  const std::string rest = source.substr(scheme_end + 3);
  if (scheme == "file") {
    path_out->clear();
    if (rest.starts_with('/') && percent_decode(rest, path_out)) return {};
    return {exit_wrong_use, fmt::format("source {} is no file URL; write it as file:///DIRECTORY", source)};
  }
  return {exit_wrong_use,
          fmt::format("source scheme {}:// is unknown; give a directory, file:///DIRECTORY, s3://BUCKET/PREFIX or "
                      "http(s)://HOST/PATH/",
                      scheme)};
}

bool is_remote_source(std::string_view source) {
  return source.starts_with("s3://") || source.starts_with("http://") || source.starts_with("https://");
}

node::Outcome resolve_source(const std::string& source, std::string* real_path_out) {
  if (is_remote_source(source) || source == "blobs:") {
    *real_path_out = source;
    return {};
  }
  std::string path;
  node::Outcome outcome = source_path(source, &path);
  if (outcome.exit_code != 0) return outcome;
  const auto result = run_bounded(answer_ms, [&](int output_fd) { return open_and_list(path, output_fd); });
  if (!result) {
    return {exit_failed, fmt::format("source {} did not answer within {} s; check the file server behind it", path,
                                     answer_ms / 1000)};
  }
  *real_path_out = result->output;
  switch (result->exit_code) {
    case 0: return {};
    case ENOENT: return {exit_failed, fmt::format("source {} does not exist; check the path", path)};
    case ENOTDIR:
      return {exit_failed, fmt::format("source {} is not a directory; give the directory that holds it", path)};
    case EACCES:
    case EPERM:
      return {exit_failed,
              fmt::format("source {} may not be read by this user ({}); run as a user who may, or change its "
                          "permissions",
                          path, std::strerror(result->exit_code))};
    default:
      return {exit_failed, fmt::format("source {} cannot be listed ({}); check the file system it lies on", path,
                                       std::strerror(result->exit_code))};
  }
}

}  // namespace blobcache::cli
