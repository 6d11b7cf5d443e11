// Each section is a table of one growing column (a bar, a path) and others of fixed width, so that columns stay where they are
// from one second to the next, and a wider terminal shows more of the names. ASCII alone: a column is a byte, and what
// comes from file names cannot steer the terminal.
#include "cli/top_screen.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <span>

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

struct Cell {
  std::string text;
  Style style = Style::plain;
};

template <class Row>
struct Column {
  std::string_view title;
  unsigned width = 0;  // 0: the first one, a name, which has the room that the others leave
  Cell (*cell)(const Row& row) = nullptr;
};

// note: a line of its own below a row; empty: none.
template <class Row>
void add_table(const TopLook& look, std::initializer_list<Column<Row>> columns, std::span<const Row> rows, Lines& lines,
               Cell (*note)(const Row& row) = nullptr) {
  unsigned fixed = 0;
  for (const Column<Row>& column : columns) fixed += column.width;
  const unsigned name_columns = room(look, fixed);
  const auto line_of = [&](auto&& cell_of) {
    Line line(look);
    for (const Column<Row>& column : columns) {
      const Cell cell = cell_of(column);
      column.width == 0 ? line.left(cell.text, name_columns, cell.style)
                        : line.right(cell.text, column.width, cell.style);
    }
    return line.take();
  };
  lines.emplace_back();
  lines.push_back(line_of([](const Column<Row>& column) { return Cell{std::string(column.title), Style::dim}; }));
  for (const Row& row : rows) {
    lines.push_back(line_of([&](const Column<Row>& column) { return column.cell(row); }));
    const Cell below = note != nullptr ? note(row) : Cell();
    if (!below.text.empty()) lines.push_back(Line(look).add("  " + printable(below.text), below.style).take());
  }
}

Cell errors_cell(uint64_t errors) { return {fmt::format("{}", errors), error_style(static_cast<double>(errors))}; }

void add_volumes(const TopView& view, const TopLook& look, Lines& lines) {
  using Row = TopVolume;
  add_table<Row>(
      look,
      {{"VOLUME", 0, [](const Row& row) { return Cell{row.mountpoint}; }},
       {"READS", 9, [](const Row& row) { return Cell{count_text(row.reads_per_s)}; }},
       {"BYTES", 12, [](const Row& row) { return Cell{rate_text(row.bytes_per_s)}; }},
       {"P50", 8, [](const Row& row) { return Cell{time_text(row.latency.p50_us)}; }},
       {"P99", 8, [](const Row& row) { return Cell{time_text(row.latency.p99_us)}; }},
       {"OPEN", 6, [](const Row& row) { return Cell{fmt::format("{}", row.open)}; }},
       {"ERRORS", 8, [](const Row& row) { return Cell{count_text(row.errors_per_s), error_style(row.errors_per_s)}; }}},
      view.volumes, lines);
  if (view.passthrough_opens == 0) return;
  lines.push_back(Line(look)
                      .add(fmt::format("the kernel reads {} of {} opens itself: not counted here",
                                       bytes_text(view.passthrough_bytes), view.passthrough_opens),
                           Style::dim)
                      .take());
}

void add_disks(const TopView& view, const TopLook& look, Lines& lines) {
  if (view.disks.empty()) return;
  using Row = TopDisk;
  add_table<Row>(
      look,
      {{"DISK", 0, [](const Row& row) { return Cell{row.path}; }},
       {"STATE", 11, [](const Row& row) { return Cell{row.state, row.why.empty() ? Style::plain : Style::bad}; }},
       {"USED", 10, [](const Row& row) { return Cell{bytes_text(row.used)}; }},
       {"LIMIT", 10, [](const Row& row) { return Cell{bytes_text(row.limit)}; }},
       {"WRITTEN", 12, [](const Row& row) { return Cell{rate_text(row.written_per_s)}; }},
       {"EVICTED", 12, [](const Row& row) { return Cell{rate_text(row.evicted_per_s)}; }},
       {"ERRORS", 7, [](const Row& row) { return errors_cell(row.errors); }}},
      view.disks, lines, [](const Row& row) { return Cell{row.why, Style::bad}; });
}

void add_origins(const TopView& view, const TopLook& look, Lines& lines) {
  using Row = TopOrigin;
  add_table<Row>(look,
                 {{"ORIGIN OF", 0, [](const Row& row) { return Cell{row.volume}; }},
                  {"REQUESTS", 10, [](const Row& row) { return Cell{count_text(row.requests_per_s)}; }},
                  {"BYTES", 12, [](const Row& row) { return Cell{rate_text(row.bytes_per_s)}; }},
                  {"BYTE 1 P50", 11, [](const Row& row) { return Cell{time_text(row.first_byte.p50_us)}; }},
                  {"P99", 8, [](const Row& row) { return Cell{time_text(row.first_byte.p99_us)}; }},
                  {"RETRIES", 9, [](const Row& row) { return Cell{count_text(row.retries_per_s)}; }},
                  {"ERRORS", 10, [](const Row& row) { return errors_cell(row.errors); }}},
                 view.origins, lines);
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

std::string ms_text(uint64_t ms) { return ms == 0 ? "-" : time_text(static_cast<double>(ms) * 1000); }

void add_slow(const TopView& view, const TopLook& look, Lines& lines) {
  if (view.slow.empty()) return;
  using Row = TopSlow;
  add_table<Row>(look,
                 {{"SLOW OF LATE", 0, [](const Row& row) { return Cell{row.file}; }},
                  {"OPERATION", 12, [](const Row& row) { return Cell{row.operation}; }},
                  {"TOOK", 9, [](const Row& row) { return Cell{ms_text(row.total_ms), Style::fair}; }},
                  {"DISK", 8, [](const Row& row) { return Cell{ms_text(row.disk_ms)}; }},
                  {"PEER", 8, [](const Row& row) { return Cell{ms_text(row.peer_ms)}; }},
                  {"ORIGIN", 8, [](const Row& row) { return Cell{ms_text(row.origin_ms)}; }},
                  {"AGO", 9, [](const Row& row) { return Cell{fmt::format("{} s", row.age_s)}; }}},
                 std::span(view.slow).first(std::min(slow_lines_max, view.slow.size())), lines);
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
