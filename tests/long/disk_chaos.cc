// disk_chaos: never a wrong byte from the disk tier, whatever happened to the disk.
//
//   disk_chaos [--seeds=FROM..TO | --seed=N] [--jobs=N] [--folder=DIR] [--keep]
//
// A seed is a small world (chaos_world.h) and two to four lives of a node in it (chaos_life.h). A life ends in good order, by
// SIGKILL at some instant, or leaves a copy of its directory that was made file by file while it went on. Between lives the
// directory is damaged (chaos_damage.h): in another boot also such that no file shows it. In the end everything is read, and
// every byte that was ever answered is compared with what the origin would have said. One seed in eight is healthy: nothing
// is damaged there, and the second life must do without the origin; so a cache that believes nothing fails too.
//
// Not covered, because no checksum can: what rots after it was verified, in the same boot, with cache.verify = "first"
// (the scrubber's to find). With "always" the directory is damaged while the node runs as well.
//
// Every life is a process, so that it can be killed; an assertion or a hang is a failure of its seed. Jobs are more than
// there are cores, because most of a life is waiting for the keeper's ticks. A seed repeats its deeds and its damage; how the
// threads interleave is up to the machine, so a failure may take some runs of its seed to come back.
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>
#include <string>
#include <thread>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/log.h"
#include "long/chaos_damage.h"
#include "long/chaos_files.h"
#include "long/chaos_life.h"
#include "long/chaos_machine.h"
#include "long/chaos_node.h"

namespace blobcache::chaos {

namespace {

constexpr unsigned life_s_max = 120;
constexpr uint64_t failures_shown_max = 20;

struct Options {
  uint64_t first = 1;
  uint64_t last = 300;
  unsigned jobs = 0;
  std::string folder;
  bool keep = false;
};

bool parse_number(std::string_view text, uint64_t* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size();
}

bool parse(int argc, char** argv, Options* options) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const size_t equals = argument.find('=');
    const std::string_view name = argument.substr(0, equals);
    const std::string_view value = equals == std::string_view::npos ? "" : argument.substr(equals + 1);
    uint64_t number = 0;
    const size_t dots = value.find("..");
    if (name == "--keep") {
      options->keep = true;
    } else if (name == "--folder" && !value.empty()) {
      options->folder = value;
    } else if (name == "--seed" && parse_number(value, &number)) {
      options->first = options->last = number;
    } else if (name == "--jobs" && parse_number(value, &number) && number > 0 && number < 1000) {
      options->jobs = static_cast<unsigned>(number);
    } else if (name != "--seeds" || dots == std::string_view::npos ||
               !parse_number(value.substr(0, dots), &options->first) ||
               !parse_number(value.substr(dots + 2), &options->last)) {
      return false;
    }
  }
  return options->first <= options->last;
}

bool has_direct_io(const std::string& folder) {
  const std::string path = folder + "/probe";
  const Fd fd(open(path.c_str(), O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600));
  unlink(path.c_str());
  return fd.value >= 0;
}

// In memory where that has direct I/O (Linux 6.6), else wherever temporary files go. Empty: nowhere.
std::string make_folder(const Options& options) {
  std::error_code error;
  const std::string temporary = std::filesystem::temp_directory_path(error).string();
  for (const std::string& parent : {options.folder, std::string("/dev/shm"), temporary, std::string("/var/tmp")}) {
    if (parent.empty()) continue;
    std::string name = parent + "/blobcache-chaos-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) continue;
    if (has_direct_io(name)) return name;
    rmdir(name.c_str());
  }
  return {};
}

class Seed {
 public:
  Seed(uint64_t number, const std::string& folder, Totals& totals)
      : world_(make_world(number)),
        folder_(folder + "/" + std::to_string(number)),
        totals_(totals),
        random_(number, 1) {}

  // Empty, or what went wrong.
  std::string run(bool keep) {
    std::error_code ignored;
    std::filesystem::create_directories(at("cache"), ignored);
    held_times.clear();
    uint64_t boot = 1;
    std::string failure;
    for (unsigned life = 0; life < world_.lives && failure.empty(); ++life) {
      const LifePlan plan = plan_life(life);
      failure = run_life(plan, boot);
      if (!failure.empty()) failure = fmt::format("life {} of {}: {}", life + 1, world_.lives, failure);
      if (plan.last || !failure.empty()) break;
      if (random_.chance(50)) ++boot;
      if (!world_.healthy) between_lives(plan, boot != boot_before_);
      boot_before_ = boot;
    }
    if (!keep) remove_tree(folder_);
    return failure;
  }

 private:
  std::string at(const char* name) const { return folder_ + "/" + name; }

  LifePlan plan_life(unsigned life) {
    LifePlan plan{.number = life, .last = life + 1 == world_.lives, .folder = at("cache")};
    if (plan.last || world_.healthy) return plan;
    plan.older = at("older");
    plan.copied = at("copied");
    const uint64_t end = random_.below(100);
    plan.end = end < 40 ? End::clean : end < 85 ? End::killed : End::copied;
    return plan;
  }

  void between_lives(const LifePlan& plan, bool other_boot) {
    if (plan.end == End::copied) {
      remove_tree(at("cache"));
      std::filesystem::rename(at("copied"), at("cache"));
    }
    if (random_.chance(80)) {
      const bool silent = other_boot && random_.chance(70);
      for (unsigned disk = 0; disk < world_.disks; ++disk) {
        DamageOptions options{.root = Node::disk_path(at("cache"), disk), .silent = silent};
        if (const std::string older = Node::disk_path(at("older"), disk); file_exists(older)) options.older = older;
        totals_.damages += damage(options, random_);
      }
    }
    remove_tree(at("older"));
  }

  std::string run_life(const LifePlan& plan, uint64_t boot) {
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC) != 0) return "no pipe";
    const Fd from(pipe_fds[0]);
    const pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      alarm(life_s_max);
      pretend_boot(boot);
      const std::string failure = live(world_, plan, totals_);
      std::ignore = write(pipe_fds[1], failure.data(), failure.size());
      _exit(failure.empty() ? 0 : 1);
    }
    ::close(pipe_fds[1]);
    if (child < 0) return "no process";
    std::string told(512, '\0');
    const ssize_t count = read(from.value, told.data(), told.size());
    told.resize(count < 0 ? 0 : static_cast<size_t>(count));
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && plan.end != End::clean) return {};
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) return fmt::format("hung for {} s", life_s_max);
    if (WIFSIGNALED(status)) return fmt::format("died of signal {}", WTERMSIG(status));
    if (WEXITSTATUS(status) == 0 && plan.end != End::clean) return "was to be killed, and ended";
    return WEXITSTATUS(status) == 0 ? std::string() : told.empty() ? "failed (above)" : told;
  }

  const World world_;
  const std::string folder_;
  Totals& totals_;
  Random random_;
  uint64_t boot_before_ = 1;
};

void work(const Options& options, const std::string& folder, Totals& totals) {
  while (true) {
    const uint64_t number = totals.next_seed++;
    if (number > options.last) return;
    const std::string failure = Seed(number, folder, totals).run(options.keep);
    ++totals.seeds;
    if (failure.empty()) continue;
    if (totals.failures++ < failures_shown_max)
      fmt::print(stderr, "seed {}: {}\n  again: disk_chaos --seed={}\n", number, failure, number);
  }
}

volatile sig_atomic_t interrupted = 0;

void on_signal(int) { interrupted = 1; }

// One process a job. False: interrupted.
bool run_jobs(const Options& options, const std::string& folder, Totals& totals) {
  const unsigned jobs = options.jobs != 0 ? options.jobs : 8 * std::max(1u, std::thread::hardware_concurrency());
  struct sigaction action{};
  action.sa_handler = on_signal;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaction(signal, &action, nullptr);
  std::vector<pid_t> workers;
  for (unsigned i = 0; i < jobs && i <= options.last - options.first; ++i) {
    const pid_t worker = fork();
    if (worker == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      work(options, folder, totals);
      _exit(0);
    }
    if (worker > 0) workers.push_back(worker);
  }
  for (const pid_t worker : workers) {
    int status = 0;
    while (waitpid(worker, &status, 0) < 0 && errno == EINTR) {
      if (interrupted != 0) {
        for (const pid_t other : workers) kill(other, SIGKILL);
      }
    }
    if (status != 0) ++totals.failures;
  }
  return interrupted == 0;
}

int report(const Options& options, const Totals& totals, double seconds) {
  fmt::print("{} seeds in {:.1f} s ({:.0f}/s): {} lives, {} killed, {} damages; {} blocks found damaged\n",
             totals.seeds.load(), seconds, static_cast<double>(totals.seeds.load()) / seconds, totals.lives.load(),
             totals.kills.load(), totals.damages.load(), totals.corrupt_blocks.load());
  fmt::print(
      "{} reads, {} MiB compared: {} from memory at once, {} straight from disk; {} MiB from disk, {} MiB from the "
      "origin; {} files passed through, {} MiB evicted\n",
      totals.reads.load(), totals.bytes_compared / MiB, totals.memory_hits.load(), totals.direct_hits.load(),
      totals.disk_bytes / MiB, totals.origin_bytes / MiB, totals.passed_through.load(), totals.evicted_bytes / MiB);
  uint64_t failures = totals.failures;
  const uint64_t seeds_wanted = options.last - options.first + 1;
  if (totals.seeds != seeds_wanted) {
    fmt::print("{} of {} seeds did not end\n", seeds_wanted - totals.seeds, seeds_wanted);
    ++failures;
  }
  // What a run of this length cannot lack unless the test itself no longer reaches it.
  constexpr uint64_t seeds_telling = 100;
  const bool reached = totals.direct_hits > 0 && totals.corrupt_blocks > 0 && totals.passed_through > 0 &&
                       totals.evicted_bytes > 0 && totals.kills > 0;
  if (seeds_wanted >= seeds_telling && !reached) {
    fmt::print("one of these was never reached: direct reads, damaged blocks, passing through, eviction, kills\n");
    ++failures;
  }
  fmt::print("{}\n", failures == 0 ? "0 wrong bytes" : "FAILED");
  return failures == 0 ? 0 : 1;
}

int run(const Options& options) {
  const std::string folder = make_folder(options);
  if (folder.empty()) {
    fmt::print(stderr, "no folder with direct I/O in /dev/shm or for temporary files; name one with --folder=\n");
    return 1;
  }
  void* shared = mmap(nullptr, sizeof(Totals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return 1;
  Totals& totals = *new (shared) Totals();
  totals.next_seed = options.first;
  const auto begin = std::chrono::steady_clock::now();
  const bool ended = run_jobs(options, folder, totals);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (options.keep)
    fmt::print("kept: {}\n", folder);
  else
    remove_tree(folder);
  if (!ended) return 130;
  return report(options, totals, seconds);
}

}  // namespace

}  // namespace blobcache::chaos

int main(int argc, char** argv) {
  using namespace blobcache;
  chaos::Options options;
  if (!chaos::parse(argc, argv, &options)) {
    fmt::print(stderr, "usage: disk_chaos [--seeds=FROM..TO | --seed=N] [--jobs=N] [--folder=DIR] [--keep]\n");
    return 2;
  }
  setvbuf(stdout, nullptr, _IOLBF, 0);
  log::configure({.level = log::Level::error});
  return chaos::run(options);
}
