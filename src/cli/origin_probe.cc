// The questions are asked by a child process: the origin starts threads (names are resolved in one), and a server may hang.
// It tells "KIND<tab>TEXT" lines: an answer is of kind source, listing or read, what failed of kind failed, with the sentence.
// open_origin hands its sentence out; what fails later the origin says in its log, so the child's log goes to a file in
// memory, and its last line is the sentence.
#include "cli/origin_probe.h"

#include <algorithm>
#include <array>
#include <ctime>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>

#include <dirent.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/bounded.h"
#include "cli/origin_words.h"
#include "origin/open.h"
#include "ring/uring.h"

namespace blobcache::cli {
namespace {

constexpr int probe_ms = 60'000;
constexpr uint64_t deadline_ns_max = 15'000'000'000;  // of one question: somebody waits for the answer
constexpr uint32_t retries_max = 2;
constexpr uint32_t entries_max = 64;
constexpr unsigned depth_max = 8;   // directories gone down in search of a file
constexpr unsigned files_max = 16;  // looked at in search of one with more than a byte
constexpr size_t log_bytes_max = 64 * 1024;
constexpr std::array<std::string_view, 4> answers{"source", "listing", "read", "clock"};

double now_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

// A call that says when it has ended.
template <class Call>
struct Asked : Call {
  Asked() {
    this->on_done = [](OriginCall& call) { static_cast<Asked&>(call).ended = true; };
  }
  bool ended = false;
};

class Questions {
 public:
  Questions(const VolumeConfig& volume, const OriginConfig& options, int output_fd)
      : volume_(volume), options_(options), output_fd_(output_fd), log_fd_(memfd_create("log", MFD_CLOEXEC)) {}

  void ask();

 private:
  struct File {
    std::string key;
    FileInfo info;
  };

  bool start();
  void go_down();
  bool list(const std::string& key, std::vector<DirectoryEntry>* entries);
  bool find_file(const std::string& directory, const std::vector<DirectoryEntry>& entries, File* found);
  void read_byte(const File& file);

  template <class Call>
  bool await(const Call& call) {
    while (!call.ended) reactor_->turn(true);
    if (!call.failed) log_bytes_seen_ = logged().size();
    return !call.failed;
  }
  void tell(std::string_view kind, std::string_view text) const;
  // What the log says last of the call that failed; where it says nothing, that `doing` failed.
  void tell_failure(std::string_view doing, const Error& error) const;
  std::string logged() const;

  const VolumeConfig& volume_;
  const OriginConfig& options_;
  const int output_fd_;
  const int log_fd_;
  size_t log_bytes_seen_ = 0;  // of calls that went well
  std::unique_ptr<Reactor> reactor_;
  std::unique_ptr<Origin> origin_;
};

void Questions::ask() {
  dup2(log_fd_, STDERR_FILENO);
  log::configure({.level = log::Level::warn, .format = log::Format::text});
  if (start()) go_down();
  // Requests go on with the server's time, so this fails nothing.
  constexpr std::string_view clock = "this machine's clock is";
  const std::string text = logged();
  if (const size_t at = text.find(clock); at != std::string::npos)
    tell("clock", text.substr(at, text.find('\n', at) - at));
}

bool Questions::start() {
  std::string why;
  const double start_ms = now_ms();
  Result<std::unique_ptr<Origin>> opened = open_origin(volume_, options_, &why);
  if (!opened) {
    tell("failed", why);
    return false;
  }
  tell("source", fmt::format("{} answers in {:.1f} ms, the connection included", volume_.source, now_ms() - start_ms));
  constexpr unsigned cqes = 256;
  Result<std::unique_ptr<Ring>> ring = create_uring({.sqes = 64, .cqes = cqes});
  if (!ring) {
    tell("failed", "io_uring refused a small ring; raise RLIMIT_MEMLOCK");
    return false;
  }
  reactor_ = std::make_unique<Reactor>(std::move(*ring), ReactorOptions{.cqes = cqes});
  origin_ = std::move(*opened);
  return true;
}

// From the root into the first directory of each, until there is a file with bytes.
void Questions::go_down() {
  std::string directory;
  for (unsigned depth = 0; depth < depth_max; ++depth) {
    std::vector<DirectoryEntry> entries;
    const double start_ms = now_ms();
    if (!list(directory, &entries)) return;
    if (depth == 0) {
      tell("listing", fmt::format("{}{} names at the top in {:.1f} ms", entries.size() < entries_max ? "" : "at least ",
                                  entries.size(), now_ms() - start_ms));
    }
    File file;
    if (!find_file(directory, entries, &file)) return;
    if (!file.key.empty()) return read_byte(file);
    const auto below = std::ranges::find(entries, uint8_t{DT_DIR}, &DirectoryEntry::type);
    if (below == entries.end()) break;
    directory += (directory.empty() ? "" : "/") + below->name;
  }
  tell("read", "no file with bytes was found to try it on");
}

bool Questions::list(const std::string& key, std::vector<DirectoryEntry>* entries) {
  Asked<OpenCall> open;
  open.key = key;
  origin_->begin_open(*reactor_, open);
  if (!await(open)) {
    tell_failure("opening a directory", open.error);
    return false;
  }
  bool listed = true;
  for (uint64_t offset = 0; entries->size() < entries_max;) {
    Asked<ListCall> list;
    list.key = key;
    list.fd = open.fd;
    list.offset = offset;
    list.entries_max = entries_max;
    list.with_info = true;
    origin_->begin_list(*reactor_, list);
    listed = await(list);
    if (!listed) tell_failure("listing", list.error);
    if (!listed || list.entries.empty()) break;
    offset = list.entries.back().next_offset;
    std::erase_if(list.entries, [](const DirectoryEntry& entry) { return entry.name == "." || entry.name == ".."; });
    std::ranges::move(list.entries, std::back_inserter(*entries));
  }
  origin_->close(*reactor_, open.fd);
  return listed;
}

// A server that ignores ranges is found out by a file of more than one byte only. False: a look-up failed, and that was told.
bool Questions::find_file(const std::string& directory, const std::vector<DirectoryEntry>& entries, File* found) {
  unsigned looked_at = 0;
  for (const DirectoryEntry& entry : entries) {
    if (entry.type != DT_REG) continue;
    if (++looked_at > files_max) break;
    Asked<LookupCall> look;
    look.key = directory.empty() ? entry.name : directory + "/" + entry.name;
    origin_->begin_lookup(*reactor_, look);
    if (!await(look)) {
      if (look.error.code == Code::not_found) continue;  // deleted meanwhile
      tell_failure("looking up a file", look.error);
      return false;
    }
    const uint64_t bytes = look.info.attributes.size;
    if (!S_ISREG(look.info.attributes.mode) || bytes == 0) continue;
    if (found->key.empty() || bytes > 1) *found = {.key = look.key, .info = look.info};
    if (bytes > 1) break;
  }
  return true;
}

void Questions::read_byte(const File& file) {
  std::byte byte{};
  Asked<ReadCall> read;
  read.key = file.key;
  read.version = file.info.version;
  read.offset = file.info.attributes.size - 1;
  read.bytes = 1;
  read.to = &byte;
  const double start_ms = now_ms();
  origin_->begin_read(*reactor_, read);
  if (!await(read)) return tell_failure("reading a file", read.error);
  tell("read", fmt::format("a byte of {} in {:.1f} ms", file.key, now_ms() - start_ms));
}

void Questions::tell(std::string_view kind, std::string_view text) const {
  std::string line(text);
  std::ranges::replace_if(line, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  write_all(output_fd_, fmt::format("{}\t{}\n", kind, line));
}

void Questions::tell_failure(std::string_view doing, const Error& error) const {
  std::string text = logged();
  while (text.ends_with('\n')) text.pop_back();
  const size_t start = text.rfind('\n') + 1;  // 0 where there is one line
  // "TIME.123Z warn  message"
  const size_t message = text.find('Z', start);
  constexpr size_t level_bytes = 8;
  if (text.size() > log_bytes_seen_ && message != std::string::npos && message + level_bytes < text.size()) {
    return tell("failed", std::string_view(text).substr(message + level_bytes));
  }
  tell("failed", fmt::format("{} failed ({}); look into the server's log", doing, code_name(error.code)));
}

std::string Questions::logged() const {
  std::string text(log_bytes_max, '\0');
  const ssize_t got = pread(log_fd_, text.data(), text.size(), 0);
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return text;
}

}  // namespace

std::vector<Check> probe_origin(const VolumeConfig& volume, const OriginConfig& origin) {
  OriginConfig options = origin;
  options.deadline_ns = std::min(options.deadline_ns, deadline_ns_max);
  options.retries = std::min(options.retries, retries_max);
  const auto result = run_bounded(probe_ms, [&](int output_fd) {
    // Not destroyed: the process ends, and what still hangs with it.
    auto* questions = new Questions(volume, options, output_fd);
    questions->ask();
    return 0;
  });
  if (!result) {
    return {{"source", State::missing, fmt::format("{} does not answer within {} s", volume.source, probe_ms / 1000),
             "check the server and the network to it"}};
  }
  std::vector<Check> checks;
  std::string_view left = result->output;
  while (!left.empty()) {
    const size_t end = std::min(left.find('\n'), left.size());
    const std::string_view line = left.substr(0, end);
    left.remove_prefix(std::min(end + 1, left.size()));
    const size_t tab = std::min(line.find('\t'), line.size());
    const std::string_view kind = line.substr(0, tab);
    const std::string_view text = line.substr(std::min(tab + 1, line.size()));
    const auto known = std::ranges::find(answers, kind);
    if (known == answers.end()) {
      checks.push_back(check_origin_failure(text));
    } else if (kind == "clock") {
      checks.push_back(check_origin_failure(text));
      checks.back().state = State::slow;  // works with the server's time
    } else {
      checks.push_back({*known, State::ok, std::string(text), ""});
    }
  }
  if (checks.empty() || result->exit_code != 0) {
    checks.push_back({"source", State::missing, fmt::format("{}: the check of it broke off", volume.source),
                      "try to mount it, and look into the log"});
  }
  return checks;
}

}  // namespace blobcache::cli
