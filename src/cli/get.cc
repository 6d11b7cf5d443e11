// get: a blob, or a part of it, to standard output or into a file. The node has compared every block with its checksum; a whole
// blob is hashed here once more, so that what is answered is what was asked for, whatever lies in between.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "base/blob_id.h"
#include "cli/blob_call.h"
#include "cli/command.h"
#include "cli/commands.h"

namespace blobcache::cli {
namespace {

constexpr size_t buffer_bytes = 1 << 20;

struct Arguments {
  std::string id;
  std::string range;
  std::string output;
  std::string node;
};

struct Range {
  uint64_t begin = 0;
  uint64_t end = 0;  // the first byte behind it; 0: the end of the blob
};

// "A-B", both included; "A-": to the end.
std::optional<Range> parse_range(std::string_view text) {
  const size_t dash = text.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const std::optional<uint64_t> first = parse_number(text.substr(0, dash));
  if (!first) return std::nullopt;
  if (dash + 1 == text.size()) return Range{.begin = *first};
  const std::optional<uint64_t> last = parse_number(text.substr(dash + 1));
  if (!last || *last < *first || *last == ~uint64_t{0}) return std::nullopt;
  return Range{.begin = *first, .end = *last + 1};
}

bool write_out(int fd, std::span<const char> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return true;
}

// A file that comes into being whole or not at all; standard output as it comes.
class Output {
 public:
  explicit Output(const std::string& path) : path_(path) {}
  ~Output() {
    if (path_.empty() || fd_ < 0) return;
    close(fd_);
    unlink(temporary_.c_str());
  }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  // 0 or an errno.
  int begin() {
    if (path_.empty()) return 0;
    temporary_ = path_ + ".XXXXXX";
    fd_ = mkostemp(temporary_.data(), O_CLOEXEC);
    if (fd_ < 0) return errno;
    const mode_t mask = umask(0);
    umask(mask);
    return fchmod(fd_, 0666 & ~mask) == 0 ? 0 : errno;
  }
  int fd() const { return fd_; }
  int finish() {
    if (path_.empty()) return 0;
    if (rename(temporary_.c_str(), path_.c_str()) != 0) return errno;
    return close(std::exchange(fd_, -1)) == 0 ? 0 : errno;
  }

 private:
  const std::string path_;
  std::string temporary_;
  int fd_ = STDOUT_FILENO;
};

int copy_out(BlobCall& call, const Arguments& arguments, uint64_t bytes, bool whole) {
  Output output(arguments.output);
  const auto write_problem = [&](int os_errno) {
    return refuse(exit_failed, fmt::format("{} cannot be written: {}",
                                           arguments.output.empty() ? "standard output" : arguments.output,
                                           std::strerror(os_errno)));
  };
  if (const int os_errno = output.begin(); os_errno != 0) return write_problem(os_errno);
  std::vector<char> buffer(buffer_bytes);
  BlobHash hash;
  for (uint64_t left = bytes; left > 0;) {
    const ssize_t count = call.read(std::span(buffer).first(std::min<uint64_t>(left, buffer.size())));
    if (count <= 0) {
      return refuse(exit_failed,
                    fmt::format("the blob ended after {} of {} bytes: it is damaged, or the node has ended; "
                                "look at its log",
                                bytes - left, bytes));
    }
    const auto piece = std::span<const char>(buffer).first(static_cast<size_t>(count));
    if (whole) hash.add(std::as_bytes(piece));
    if (!write_out(output.fd(), piece)) return write_problem(errno);
    left -= static_cast<uint64_t>(count);
  }
  if (whole && to_hex(hash.finish()) != arguments.id) {
    return refuse(exit_failed, "the bytes that came do not have this SHA-256; look at the memory of this machine");
  }
  if (const int os_errno = output.finish(); os_errno != 0) return write_problem(os_errno);
  return exit_done;
}

}  // namespace

int get_command(int argc, char** argv) {
  CLI::App app("Write out a blob of the content store.", "blobcache get");
  Arguments arguments;
  app.add_option("SHA256", arguments.id, "the blob")->required();
  app.add_option("--range", arguments.range, "its bytes A to B, both included; A-: to the end")->type_name("A-B");
  app.add_option("--output", arguments.output, "a file, which is replaced once all is there (standard output)")
      ->type_name("FILE");
  app.add_option("--node", arguments.node, "the node, where several run")->type_name("NAME");
  app.footer(
      "Examples:\n"
      "  blobcache get e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 --output=empty\n"
      "  blobcache get SHA256 --range=0-1023 | xxd");
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;
  if (const std::string problem = check_blob_id(&arguments.id); !problem.empty())
    return refuse(exit_wrong_use, problem);
  Range range;
  if (!arguments.range.empty()) {
    const std::optional<Range> parsed = parse_range(arguments.range);
    if (!parsed) return refuse(exit_wrong_use, "--range: write it as FIRST-LAST, such as 0-1023, or FIRST-");
    range = *parsed;
  }
  BlobCall call;
  std::vector<std::string> words;
  node::Outcome outcome =
      call.begin(arguments.node, fmt::format("get {} {} {}", arguments.id, range.begin, range.end), -1);
  if (outcome.exit_code == 0) outcome = call.wait(&words, nullptr);
  if (outcome.exit_code != 0) return refuse(outcome.exit_code, outcome.message);
  const std::optional<uint64_t> bytes = words.size() == 2 ? parse_number(words[0]) : std::nullopt;
  if (!bytes) return refuse(exit_failed, "the node's answer is not understood; use the blobcache it was started with");
  return copy_out(call, arguments, *bytes, words[0] == words[1]);
}

}  // namespace blobcache::cli
