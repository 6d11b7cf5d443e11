// top: status, again and again, as rates: each screen is the difference of two answers (top_view.h). On a terminal it is drawn
// in place; elsewhere each interval is some plain lines, and --once is one of them.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <optional>

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/units.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/control.h"
#include "cli/node_choice.h"
#include "cli/top_screen.h"
#include "cli/top_terminal.h"
#include "cli/top_view.h"

namespace blobcache::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int answer_ms = 5'000;
constexpr uint64_t interval_ns_min = 100'000'000;
constexpr uint64_t interval_ns_max = 3'600'000'000'000;

struct Sample {
  Clock::time_point at;
  nlohmann::json status;
};

class Top {
 public:
  Top(std::string socket, std::chrono::nanoseconds interval)
      : socket_(std::move(socket)), interval_(interval), note_("every " + format_duration_ns(interval.count())) {}

  int once(bool json);
  int plain();
  int live();

 private:
  std::optional<Sample> ask();
  std::optional<TopView> next();
  int gone() const;
  int ms_until(Clock::time_point time) const;
  void print(const TopView& view) const;

  const std::string socket_;
  const std::chrono::nanoseconds interval_;
  const std::string note_;
  std::optional<Sample> last_;
};

std::optional<Sample> Top::ask() {
  std::string text;
  if (ask_socket(socket_, "status", answer_ms, &text) != Ping::Answer::alive) return std::nullopt;
  return Sample{.at = Clock::now(), .status = nlohmann::json::parse(text, nullptr, false)};
}

// What happened since the answer before.
std::optional<TopView> Top::next() {
  std::optional<Sample> sample = ask();
  if (!sample || !last_) return std::nullopt;
  const std::chrono::duration<double> seconds = sample->at - last_->at;
  const std::optional<TopView> view = top_view(last_->status, sample->status, seconds.count());
  last_ = std::move(sample);
  return view;
}

int Top::gone() const {
  return refuse(exit_failed, "the node does not tell its status any more; is it running, and of this version?");
}

int Top::ms_until(Clock::time_point time) const {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(time - Clock::now());
  return static_cast<int>(std::max<int64_t>(0, left.count()));
}

void Top::print(const TopView& view) const {
  for (const std::string& line : top_lines(view, {.columns = terminal_size().columns}, note_)) {
    fmt::print("{}\n", line.substr(0, line.find_last_not_of(' ') + 1));
  }
  std::fflush(stdout);
}

int Top::once(bool json) {
  last_ = ask();
  poll(nullptr, 0, ms_until(Clock::now() + interval_));
  const std::optional<TopView> view = next();
  if (!view) return gone();
  if (json) {
    fmt::print("{}\n", top_json(*view).dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    print(*view);
  }
  return exit_done;
}

int Top::plain() {
  last_ = ask();
  for (;;) {
    poll(nullptr, 0, ms_until(Clock::now() + interval_));
    const std::optional<TopView> view = next();
    if (!view) return gone();
    print(*view);
    fmt::print("\n");
  }
}

int Top::live() {
  const char* no_colour = std::getenv("NO_COLOR");
  const bool colour = no_colour == nullptr || *no_colour == 0;
  int ended_by = 0;
  {
    TopTerminal terminal;
    // The first screen is that of the start: there are sums, and no rates yet.
    last_ = ask();
    std::optional<TopView> view = last_ ? top_view(last_->status, last_->status, 1) : std::nullopt;
    Clock::time_point due = Clock::now() + std::min<std::chrono::nanoseconds>(interval_, std::chrono::seconds(1));
    TopTerminal::Event event = TopTerminal::Event::redraw;
    while (view && event != TopTerminal::Event::end) {
      const TerminalSize size = terminal_size();
      terminal.draw(top_lines(*view, {.columns = size.columns, .colour = colour}, note_ + ", q ends"), size.rows);
      event = terminal.wait(ms_until(due));
      if (event != TopTerminal::Event::none) continue;
      view = next();
      due = Clock::now() + interval_;
    }
    ended_by = terminal.ended_by();
    if (view && ended_by == 0) return exit_done;
  }
  if (ended_by == 0) return gone();
  // With the screen given back: as if the signal had ended it at once.
  std::raise(ended_by);
  return exit_failed;
}

}  // namespace

int top_command(int argc, char** argv) {
  CLI::App app("The same as status, live: rates, hit ratios and latencies of tiers, volumes, disks and origins.",
               "blobcache top");
  std::string name;
  std::string interval = "1s";
  bool once = false;
  bool json = false;
  app.add_option("--node", name, "which node; implied when there is one")->type_name("NAME");
  app.add_option("--interval", interval, "from one screen to the next, 100ms to 1h; 1s unless said")
      ->type_name("DURATION");
  CLI::Option* only_once = app.add_flag("--once", once, "one interval as plain lines, then end");
  app.add_flag("--json", json, "for programs, with --once")->needs(only_once);
  app.footer(
      "q or Ctrl-C ends it. Rates and latencies are those of the last interval.\n\n"
      "Examples:\n  blobcache top\n  blobcache top --interval=5s\n  blobcache top --once --json | python3 -m "
      "json.tool");
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;

  const Parsed<uint64_t> interval_ns = parse_duration_ns(interval);
  if (!interval_ns) return refuse(exit_wrong_use, fmt::format("--interval={}: {}", interval, interval_ns.error()));
  if (*interval_ns < interval_ns_min || *interval_ns > interval_ns_max) {
    return refuse(exit_wrong_use, fmt::format("--interval={}: give 100ms to 1h", interval));
  }
  std::string socket;
  if (const node::Outcome chosen = choose_node(name, &socket); chosen.exit_code != exit_done) {
    return refuse(chosen.exit_code, chosen.message);
  }
  Top top(socket, std::chrono::nanoseconds(*interval_ns));
  if (once) return top.once(json);
  return isatty(STDOUT_FILENO) == 1 ? top.live() : top.plain();
}

}  // namespace blobcache::cli
