// Each section is a table of one growing column (a bar, a path) and others of fixed width, so that columns stay where they are
// from one second to the next, and a wider terminal shows more of the names. ASCII alone: a column is a byte, and what
// comes from file names cannot steer the terminal.
#include "cli/top_screen.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/units.h"

namespace blobcache::cli {
namespace {

constexpr size_t slow_lines_max = 5;

enum class Style : uint8_t { plain, strong, dim, title, good, fair, bad };

const char* escape_of(Style style) {
  switch (style) {
    case Style::strong: return "\033[1m";
    case Style::dim: return "\033[2m";
    case Style::title: return "\033[7m";
    case Style::good: return "\033[32m";
    case Style::fair: return "\033[33m";
    case Style::bad: return "\033[31m";
    default: return "";
  }
}

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte & 0xc0) == 0x80) continue;  // the rest of a letter
    out += byte >= 0x20 && byte < 0x7f ? c : '?';
  }
  return out;
}

// A line in the making: cells of fixed width, cut at the line's end.
class Line {
 public:
  explicit Line(const TopLook& look) : look_(look) {}

  Line& add(std::string_view text, Style style = Style::plain) {
    const std::string_view part = text.substr(0, look_.columns - std::min<size_t>(width_, look_.columns));
    width_ += part.size();
    if (part.empty()) return *this;
    const char* escape = look_.colour ? escape_of(style) : "";
    text_ += *escape != 0 ? fmt::format("{}{}\033[0m", escape, part) : std::string(part);
    return *this;
  }
  Line& right(std::string_view text, unsigned width, Style style = Style::plain) {
    return add(fmt::format("{:>{}}", text, width), style);
  }
  // The end of a path tells more than its beginning.
  Line& left(std::string_view text, unsigned width, Style style = Style::plain) {
    const std::string whole = printable(text);
    if (whole.size() <= width) return add(fmt::format("{:<{}}", whole, width), style);
    return add(width < 4 ? whole.substr(0, width) : "..." + whole.substr(whole.size() - (width - 3)), style);
  }
  std::string take() { return std::move(text_); }

 private:
  const TopLook& look_;
  std::string text_;
  size_t width_ = 0;
};

std::string bytes_text(uint64_t bytes) { return format_bytes_short(bytes); }

std::string rate_text(double bytes_per_s) {
  return bytes_per_s < 0.5 ? "-" : format_bytes_short(static_cast<uint64_t>(bytes_per_s)) + "/s";
}

std::string count_text(double per_s) {
  if (per_s <= 0) return "-";
  if (per_s < 9.95) return fmt::format("{:.1f}/s", per_s);
  if (per_s < 99'999.5) return fmt::format("{:.0f}/s", per_s);
  if (per_s < 999'999.5) return fmt::format("{:.0f}k/s", per_s / 1000);
  return fmt::format("{:.1f}M/s", per_s / 1e6);
}

std::string time_text(double us) {
  if (us < 10) return fmt::format("{:.1f} us", us);
  if (us < 999.5) return fmt::format("{:.0f} us", us);
  if (us < 9'995) return fmt::format("{:.1f} ms", us / 1e3);
  if (us < 999'500) return fmt::format("{:.0f} ms", us / 1e3);
  return fmt::format("{:.1f} s", us / 1e6);
}

std::string time_text(const std::optional<double>& us) { return us ? time_text(*us) : "-"; }

std::string percent_text(double share) { return fmt::format("{:.1f} %", share * 100); }

std::string bar(double share, unsigned width) {
  const unsigned inside = width - 2;
  const auto full = std::min(inside, static_cast<unsigned>(std::lround(share * inside)));
  return fmt::format("[{}{}]", std::string(full, '|'), std::string(inside - full, ' '));
}

double share_of(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : std::min(1.0, static_cast<double>(part) / static_cast<double>(whole));
}

// What is left for the growing column beside `fixed` columns.
unsigned room(const TopLook& look, unsigned fixed) { return look.columns > fixed + 10 ? look.columns - fixed : 10; }

Style error_style(double errors) { return errors > 0 ? Style::bad : Style::plain; }

using Lines = std::vector<std::string>;

void add_head(const TopView& view, const TopLook& look, const std::string& note, Lines& lines) {
  const std::string name = printable(fmt::format("blobcache {}   node {}   pid {}", view.version, view.node, view.pid));
  const size_t gap = look.columns > name.size() + note.size() + 3 ? look.columns - name.size() - note.size() - 2 : 1;
  lines.push_back(Line(look).add(fmt::format(" {}{}{} ", name, std::string(gap, ' '), note), Style::title).take());
  lines.emplace_back();
  lines.push_back(Line(look)
                      .add("Reads ")
                      .right(count_text(view.reads_per_s), 9, Style::strong)
                      .right(rate_text(view.bytes_per_s), 13, Style::strong)
                      .add("   p50 ")
                      .right(time_text(view.latency.p50_us), 7, Style::strong)
                      .add("   p99 ")
                      .right(time_text(view.latency.p99_us), 7, Style::strong)
                      .add("   errors ")
                      .right(count_text(view.errors_per_s), 7, error_style(view.errors_per_s))
                      .take());
}

void add_tiers(const TopView& view, const TopLook& look, Lines& lines) {
  const unsigned bar_columns = std::min(60u, room(look, 56));
  lines.emplace_back();
  lines.push_back(Line(look)
                      .left("TIER", 8, Style::dim)
                      .left("USED", bar_columns, Style::dim)
                      .right("", 7)
                      .right("", 10)
                      .right("LIMIT", 11, Style::dim)
                      .right("HITS", 8, Style::dim)
                      .right("READ", 12, Style::dim)
                      .take());
  for (const TopTier& tier : view.tiers) {
    const bool holds = tier.limit > 0;
    if (!holds && tier.name == "peer" && tier.bytes_per_s == 0) continue;
    const double used = share_of(tier.used, tier.limit);
    Line line(look);
    line.left(tier.name, 8, Style::strong)
        .left(holds ? bar(used, bar_columns) : "", bar_columns, tier.name == "memory" ? Style::good : Style::fair)
        .right(holds ? fmt::format("{:.0f} %", used * 100) : "", 7)
        .right(holds ? bytes_text(tier.used) : "", 10)
        .right(holds ? bytes_text(tier.limit) : "", 11)
        .right(tier.hit_ratio ? percent_text(*tier.hit_ratio) : "-", 8)
        .right(rate_text(tier.bytes_per_s), 12);
    lines.push_back(line.take());
  }
}

void add_volumes(const TopView& view, const TopLook& look, Lines& lines) {
  const unsigned name_columns = room(look, 51);
  lines.emplace_back();
  lines.push_back(Line(look)
                      .left("VOLUME", name_columns, Style::dim)
                      .right("READS", 9, Style::dim)
                      .right("BYTES", 12, Style::dim)
                      .right("P50", 8, Style::dim)
                      .right("P99", 8, Style::dim)
                      .right("OPEN", 6, Style::dim)
                      .right("ERRORS", 8, Style::dim)
                      .take());
  for (const TopVolume& volume : view.volumes) {
    lines.push_back(Line(look)
                        .left(volume.mountpoint, name_columns)
                        .right(count_text(volume.reads_per_s), 9)
                        .right(rate_text(volume.bytes_per_s), 12)
                        .right(time_text(volume.latency.p50_us), 8)
                        .right(time_text(volume.latency.p99_us), 8)
                        .right(fmt::format("{}", volume.open), 6)
                        .right(count_text(volume.errors_per_s), 8, error_style(volume.errors_per_s))
                        .take());
  }
  if (view.passthrough_opens == 0) return;
  lines.push_back(Line(look)
                      .add(fmt::format("the kernel reads {} of {} opens itself: not counted here",
                                       bytes_text(view.passthrough_bytes), view.passthrough_opens),
                           Style::dim)
                      .take());
}

void add_disks(const TopView& view, const TopLook& look, Lines& lines) {
  if (view.disks.empty()) return;
  const unsigned name_columns = room(look, 62);
  lines.emplace_back();
  lines.push_back(Line(look)
                      .left("DISK", name_columns, Style::dim)
                      .right("STATE", 11, Style::dim)
                      .right("USED", 10, Style::dim)
                      .right("LIMIT", 10, Style::dim)
                      .right("WRITTEN", 12, Style::dim)
                      .right("EVICTED", 12, Style::dim)
                      .right("ERRORS", 7, Style::dim)
                      .take());
  for (const TopDisk& disk : view.disks) {
    lines.push_back(Line(look)
                        .left(disk.path, name_columns)
                        .right(disk.state, 11, disk.why.empty() ? Style::plain : Style::bad)
                        .right(bytes_text(disk.used), 10)
                        .right(bytes_text(disk.limit), 10)
                        .right(rate_text(disk.written_per_s), 12)
                        .right(rate_text(disk.evicted_per_s), 12)
                        .right(fmt::format("{}", disk.errors), 7, error_style(static_cast<double>(disk.errors)))
                        .take());
    if (!disk.why.empty()) lines.push_back(Line(look).add("  " + printable(disk.why), Style::bad).take());
  }
}

void add_origins(const TopView& view, const TopLook& look, Lines& lines) {
  const unsigned name_columns = room(look, 60);
  lines.emplace_back();
  lines.push_back(Line(look)
                      .left("ORIGIN OF", name_columns, Style::dim)
                      .right("REQUESTS", 10, Style::dim)
                      .right("BYTES", 12, Style::dim)
                      .right("BYTE 1 P50", 11, Style::dim)
                      .right("P99", 8, Style::dim)
                      .right("RETRIES", 9, Style::dim)
                      .right("ERRORS", 10, Style::dim)
                      .take());
  for (const TopOrigin& origin : view.origins) {
    lines.push_back(Line(look)
                        .left(origin.volume, name_columns)
                        .right(count_text(origin.requests_per_s), 10)
                        .right(rate_text(origin.bytes_per_s), 12)
                        .right(time_text(origin.first_byte.p50_us), 11)
                        .right(time_text(origin.first_byte.p99_us), 8)
                        .right(count_text(origin.retries_per_s), 9)
                        .right(fmt::format("{}", origin.errors), 10, error_style(static_cast<double>(origin.errors)))
                        .take());
  }
}

void add_prefetch(const TopView& view, const TopLook& look, Lines& lines) {
  const TopPrefetch& ahead = view.prefetch;
  const uint64_t judged = ahead.used + ahead.wasted;
  lines.emplace_back();
  lines.push_back(
      Line(look)
          .add("Prefetch ")
          .right(rate_text(ahead.fetched_per_s), 12, Style::strong)
          .add(fmt::format("   since the start: used {}, wasted {}{}", bytes_text(ahead.used), bytes_text(ahead.wasted),
                           judged == 0 ? "" : fmt::format(" ({})", percent_text(share_of(ahead.wasted, judged)))))
          .take());
}

void add_slow(const TopView& view, const TopLook& look, Lines& lines) {
  if (view.slow.empty()) return;
  const unsigned name_columns = room(look, 54);
  lines.emplace_back();
  lines.push_back(Line(look)
                      .left("SLOW OF LATE", name_columns, Style::dim)
                      .right("OPERATION", 12, Style::dim)
                      .right("TOOK", 9, Style::dim)
                      .right("DISK", 8, Style::dim)
                      .right("PEER", 8, Style::dim)
                      .right("ORIGIN", 8, Style::dim)
                      .right("AGO", 9, Style::dim)
                      .take());
  const auto time = [](uint64_t ms) { return ms == 0 ? "-" : time_text(static_cast<double>(ms) * 1000); };
  for (size_t i = 0; i < std::min(slow_lines_max, view.slow.size()); ++i) {
    const TopSlow& slow = view.slow[i];
    lines.push_back(Line(look)
                        .left(slow.file, name_columns)
                        .right(slow.operation, 12)
                        .right(time(slow.total_ms), 9, Style::fair)
                        .right(time(slow.disk_ms), 8)
                        .right(time(slow.peer_ms), 8)
                        .right(time(slow.origin_ms), 8)
                        .right(fmt::format("{} s", slow.age_s), 9)
                        .take());
  }
}

}  // namespace

std::vector<std::string> top_lines(const TopView& view, const TopLook& look, const std::string& note) {
  Lines lines;
  add_head(view, look, note, lines);
  add_tiers(view, look, lines);
  add_volumes(view, look, lines);
  add_disks(view, look, lines);
  add_origins(view, look, lines);
  add_prefetch(view, look, lines);
  add_slow(view, look, lines);
  return lines;
}

}  // namespace blobcache::cli
