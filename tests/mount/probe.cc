// probe: readers that check every byte they get, for the mount tests.
//
// A pattern file says of each 8 bytes where they belong: version (16 bits), tag of the file (8 bits), and index of the
// word in the file (40 bits). Neither field of a written word is 0 as a whole, so bytes that were never read show up as
// zeros, bytes of another file by their tag, moved bytes by their index, and a mixture of two versions by the version.
// A hash of the whole file could say only that something is wrong, and only where a single version exists.
//
//   probe write FILE SIZE VERSION TAG              a new file in place of the old one, by rename
//   probe rewrite FILE SIZE VERSION TAG            in place, 4 KiB at a time, from the start; grows to SIZE as it goes
//   probe hammer [--readers=N] [--mode=pread|direct|mmap] [--request=BYTES] [--sequential] [--rewrite]
//                [--gate] [--allow=ERRNO,ERRNO...] FILE...  readers until end of input; file i carries tag i, from 1 on
//
// `hammer` opens, reads the whole of the file (in random order, unless --sequential), closes, and begins again. Events
// go to stdout, a line each, for scripts to wait on: "ready" once every reader has verified a first read; "version TAG V"
// when a fresh open of a file shows a version for the first time; "error NAME" at the first error of each name; at the
// end one "summary ...". What must not happen is "wrong: ..." and exit 1: a word that belongs elsewhere or nowhere, a
// short read within the size the handle was opened with, two versions through one handle, an errno not in --allow.
//
// --gate: each reader stops after its first read until a byte comes in, so that a test can arrange what the next reads
// meet.
//
// --rewrite is for files rewritten in place from front to back. There one handle may rightly see the origin's state at
// one instant, new words in front of old ones; it is wrong when no single cut explains what it saw.
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

constexpr uint64_t block_bytes = 4096;
constexpr uint64_t word_bytes = 8;

uint64_t word_at(uint64_t version, uint64_t tag, uint64_t offset) {
  return version << 48 | tag << 40 | offset / word_bytes;
}

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "probe: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(3);
}

void fill(std::vector<uint64_t>& words, uint64_t version, uint64_t tag, uint64_t offset) {
  for (uint64_t& word : words) {
    word = word_at(version, tag, offset);
    offset += word_bytes;
  }
}

void write_pattern(int fd, uint64_t size, uint64_t version, uint64_t tag, uint64_t piece_bytes) {
  std::vector<uint64_t> words(piece_bytes / word_bytes);
  for (uint64_t offset = 0; offset < size; offset += piece_bytes) {
    fill(words, version, tag, offset);
    const size_t bytes = std::min(piece_bytes, size - offset);
    if (pwrite(fd, words.data(), bytes, static_cast<off_t>(offset)) != static_cast<ssize_t>(bytes)) die("pwrite");
  }
}

int write_file(const std::string& path, uint64_t size, uint64_t version, uint64_t tag) {
  const std::string fresh = path + ".fresh";
  const int fd = open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) die(fresh);
  write_pattern(fd, size, version, tag, 1 << 20);
  if (close(fd) != 0 || rename(fresh.c_str(), path.c_str()) != 0) die(path);
  return 0;
}

int rewrite_file(const std::string& path, uint64_t size, uint64_t version, uint64_t tag) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) die(path);
  write_pattern(fd, size, version, tag, block_bytes);
  return close(fd);
}

struct Options {
  uint64_t readers = 4;
  uint64_t request_bytes = 64 << 10;
  std::string mode = "pread";
  bool sequential = false;
  bool rewrite = false;
  bool gate = false;
  std::set<std::string> allowed;
  std::vector<std::string> files;
};

// What all readers share: totals, and the events that have been said.
struct Report {
  std::mutex mutex;
  std::map<std::string, uint64_t> errors;
  std::set<std::pair<uint64_t, uint64_t>> versions;  // (tag, version)
  uint64_t ready_count = 0;
  std::atomic<uint64_t> handles = 0;
  std::atomic<uint64_t> bytes = 0;
  std::atomic<uint64_t> wrong = 0;
  std::atomic<bool> stop = false;
  std::atomic<bool> open = true;  // the gate

  void on_wrong(const std::string& what) {
    const std::lock_guard lock(mutex);
    if (++wrong <= 10) std::printf("wrong: %s\n", what.c_str());
    stop = true;
  }
  void on_ready(uint64_t readers) {
    const std::lock_guard lock(mutex);
    if (++ready_count == readers) std::printf("ready\n");
  }
  void on_version(uint64_t tag, uint64_t version) {
    const std::lock_guard lock(mutex);
    if (versions.insert({tag, version}).second) std::printf("version %lu %lu\n", tag, version);
  }
  void on_error(const std::string& name) {
    const std::lock_guard lock(mutex);
    if (++errors[name] == 1) std::printf("error %s\n", name.c_str());
  }
};

Report report;

// What one handle has seen so far: its versions, and for --rewrite the extent of each.
struct Seen {
  struct Extent {
    uint64_t first;
    uint64_t last;
  };
  std::map<uint64_t, Extent> versions;

  void add(uint64_t version, uint64_t first, uint64_t last) {
    auto [at, added] = versions.try_emplace(version, Extent{first, last});
    if (added) return;
    at->second.first = std::min(at->second.first, first);
    at->second.last = std::max(at->second.last, last);
  }
  // Two neighbouring versions with the newer wholly in front of the older are the origin at one instant of rewriting.
  [[nodiscard]] bool one_state(bool rewrite) const {
    if (versions.size() <= 1) return true;
    if (!rewrite || versions.size() > 2) return false;
    const auto older = versions.begin(), newer = std::next(older);
    return newer->first == older->first + 1 && newer->second.last < older->second.first;
  }
  [[nodiscard]] std::string text() const {
    std::string out;
    for (const auto& [version, extent] : versions)
      out +=
          " v" + std::to_string(version) + " at " + std::to_string(extent.first) + ".." + std::to_string(extent.last);
    return out;
  }
};

// mmap reads fail by SIGBUS; it is turned into an EIO of that read.
thread_local sigjmp_buf on_bus;
thread_local volatile sig_atomic_t bus_armed = 0;

void handle_bus(int) {
  if (bus_armed == 0) std::abort();
  siglongjmp(on_bus, 1);
}

class Reader {
 public:
  Reader(const Options& options, uint64_t index) : options_(options), random_(index + 1) {
    const size_t bytes = options.request_bytes + 2 * block_bytes;
    buffer_ = static_cast<char*>(std::aligned_alloc(block_bytes, (bytes / block_bytes + 1) * block_bytes));
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() { std::free(buffer_); }

  void run() {
    while (!report.stop) {
      const uint64_t file_index = random_() % options_.files.size();
      path_ = options_.files[file_index];
      tag_ = file_index + 1;
      read_file();
    }
  }

 private:
  void read_file() {
    const int flags = options_.mode == "direct" ? O_DIRECT : 0;
    fd_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC | flags);
    if (fd_ < 0) return on_errno("open");
    struct stat info;
    if (fstat(fd_, &info) != 0) {
      on_errno("fstat");
    } else {
      size_ = static_cast<uint64_t>(info.st_size);
      seen_ = {};
      read_requests();
      report.handles++;
    }
    close(fd_);
  }

  void read_requests() {
    const uint64_t count = (size_ + options_.request_bytes - 1) / options_.request_bytes;
    std::vector<uint64_t> order(count);
    for (uint64_t i = 0; i < count; i++) order[i] = i;
    if (!options_.sequential) std::shuffle(order.begin(), order.end(), random_);
    char* mapped = nullptr;
    if (options_.mode == "mmap" && size_ > 0) {
      void* at = mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd_, 0);
      if (at == MAP_FAILED) return on_errno("mmap");
      mapped = static_cast<char*>(at);
    }
    for (const uint64_t index : order) {
      if (report.stop || !read_request(index * options_.request_bytes, mapped)) break;
    }
    if (mapped != nullptr) munmap(mapped, size_);
  }

  bool read_request(uint64_t offset, const char* mapped) {
    const uint64_t wanted = std::min(options_.request_bytes, size_ - offset);
    if (mapped != nullptr) {
      if (!copy_mapped(mapped + offset, wanted)) return on_errno("mapped read"), false;
    } else {
      // Buffered reads may stop short before a page that failed; the next read then says why. Only 0 claims an end.
      uint64_t done = 0;
      while (done < wanted) {
        const uint64_t asked = options_.mode == "direct" ? options_.request_bytes - done : wanted - done;
        const ssize_t got = pread(fd_, buffer_ + done, asked, static_cast<off_t>(offset + done));
        if (got < 0) return on_errno("pread"), false;
        if (got == 0) {
          report.on_wrong(path_ + ": end of file at " + std::to_string(offset + done) + " within the size " +
                          std::to_string(size_) + " at open");
          return false;
        }
        done += static_cast<uint64_t>(got);
      }
      if (done != wanted) {
        report.on_wrong(path_ + ": bytes behind the size " + std::to_string(size_) + " at open");
        return false;
      }
    }
    return verify(offset, wanted);
  }

  bool copy_mapped(const char* from, uint64_t bytes) {
    if (sigsetjmp(on_bus, 1) != 0) {
      bus_armed = 0;
      errno = EIO;
      return false;
    }
    bus_armed = 1;
    std::memcpy(buffer_, from, bytes);
    bus_armed = 0;
    return true;
  }

  bool verify(uint64_t offset, uint64_t bytes) {
    for (uint64_t at = 0; at < bytes; at += word_bytes) {
      uint64_t word = 0;
      const uint64_t part = std::min(word_bytes, bytes - at);
      std::memcpy(&word, buffer_ + at, part);
      // The end of a file may cut a word; its version is then the one seen before.
      const bool cut = part < word_bytes;
      const uint64_t version = cut && !seen_.versions.empty() ? seen_.versions.begin()->first : word >> 48;
      const uint64_t mask = cut ? (uint64_t{1} << (8 * part)) - 1 : ~uint64_t{0};
      if ((version == 0 && !cut) || word != (word_at(version, tag_, offset + at) & mask)) {
        char text[160];
        std::snprintf(text, sizeof text, ": word %016lx at %lu of %lu (read of %lu at %lu)", word, offset + at, size_,
                      bytes, offset);
        report.on_wrong(path_ + text);
        return false;
      }
      if (!cut) seen_.add(version, offset + at, offset + at);
    }
    if (!seen_.one_state(options_.rewrite)) {
      report.on_wrong(path_ + ": one handle saw" + seen_.text());
      return false;
    }
    report.bytes += bytes;
    for (const auto& [version, extent] : seen_.versions) report.on_version(tag_, version);
    if (!ready_) report.on_ready(options_.readers);
    ready_ = true;
    report.open.wait(false);
    return true;
  }

  void on_errno(const char* call) {
    const char* name = strerrorname_np(errno);
    const std::string text = name != nullptr ? name : "?";
    if (!options_.allowed.contains(text)) return report.on_wrong(path_ + ": " + call + " failed with " + text);
    report.on_error(text);
  }

  const Options& options_;
  std::minstd_rand random_;
  char* buffer_;
  std::string path_;
  uint64_t tag_ = 0;
  uint64_t size_ = 0;
  int fd_ = -1;
  bool ready_ = false;
  Seen seen_;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 2; i < argc; i++) {
    const std::string_view argument = argv[i];
    const auto value = [&](std::string_view name) { return argument.substr(name.size()).data(); };
    if (argument.starts_with("--readers="))
      options.readers = std::strtoull(value("--readers="), nullptr, 10);
    else if (argument.starts_with("--request="))
      options.request_bytes = std::strtoull(value("--request="), nullptr, 10);
    else if (argument.starts_with("--mode="))
      options.mode = value("--mode=");
    else if (argument == "--sequential")
      options.sequential = true;
    else if (argument == "--gate")
      options.gate = true;
    else if (argument == "--rewrite")
      options.rewrite = true;
    else if (argument.starts_with("--allow=")) {
      std::string names = value("--allow=");
      for (char* name = std::strtok(names.data(), ","); name != nullptr; name = std::strtok(nullptr, ","))
        options.allowed.insert(name);
    } else
      options.files.emplace_back(argument);
  }
  return options;
}

void open_gate() {
  report.open = true;
  report.open.notify_all();
}

void await_end_of_input() {
  char byte;
  struct pollfd input = {.fd = 0, .events = POLLIN, .revents = 0};
  while (!report.stop) {
    // The timeout only notices a stop that a reader asked for.
    if (poll(&input, 1, 100) == 0) continue;
    if (read(0, &byte, 1) <= 0) break;
    open_gate();
  }
  report.stop = true;
  open_gate();
}

int hammer(const Options& options) {
  struct sigaction action = {};
  action.sa_handler = handle_bus;
  sigaction(SIGBUS, &action, nullptr);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  report.open = !options.gate;
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < options.readers; i++) threads.emplace_back([&options, i] { Reader(options, i).run(); });
  await_end_of_input();
  for (std::thread& thread : threads) thread.join();
  std::string errors;
  for (const auto& [name, count] : report.errors) errors += " " + name + "=" + std::to_string(count);
  std::printf("summary handles=%lu bytes=%lu%s\n", report.handles.load(), report.bytes.load(), errors.c_str());
  return report.wrong == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  const auto number = [&](int index) { return std::strtoull(argv[index], nullptr, 10); };
  if (command == "write" && argc == 6) return write_file(argv[2], number(3), number(4), number(5));
  if (command == "rewrite" && argc == 6) return rewrite_file(argv[2], number(3), number(4), number(5));
  if (command == "hammer" && argc > 2) return hammer(parse(argc, argv));
  std::fprintf(stderr, "probe: see the head of probe.cc\n");
  return 2;
}
