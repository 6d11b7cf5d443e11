// status: what a running node is doing. It answers with JSON on its control socket; this makes lines of it.
#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/units.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/control.h"
#include "cli/node_choice.h"

namespace blobcache::cli {
namespace {

using Json = nlohmann::json;
constexpr int answer_ms = 5'000;

std::string size_of(const Json& json, const char* key) { return format_bytes_short(json.value(key, uint64_t{0})); }

// A name is somebody else's: it steers no terminal.
std::string name_of(const Json& json, const char* key) { return plain_text(json.value(key, "")); }

std::string percent(uint64_t part, uint64_t whole) {
  return whole == 0 ? "-" : fmt::format("{:.1f} %", 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

void print_volume(const Json& volume) {
  const Json& bytes = volume.at("bytes");
  const uint64_t memory = bytes.value("memory", uint64_t{0});
  const uint64_t disk = bytes.value("disk", uint64_t{0});
  const uint64_t far = bytes.value("peer", uint64_t{0}) + bytes.value("origin", uint64_t{0});
  const uint64_t all = memory + disk + far;
  fmt::print("\n{}  {}\n", name_of(volume, "mountpoint"), name_of(volume, "source"));
  fmt::print("  transport {}, passthrough {}, {} open, {} of {} nodes\n", volume.value("transport", ""),
             volume.value("passthrough", false) ? "on" : "off", volume.value("open", uint64_t{0}),
             volume.value("nodes", uint64_t{0}), volume.value("nodes_max", uint64_t{0}));
  fmt::print("  read      {:>10}  memory {}, disk {}, origin {}\n", format_bytes_short(all), percent(memory, all),
             percent(disk, all), percent(far, all));
  fmt::print("  fetched   {:>10}  in {} reads, {} errors\n", size_of(volume, "origin_bytes"),
             volume.value("origin_reads", uint64_t{0}), volume.value("errors", uint64_t{0}));
  if (const uint64_t opens = volume.value("passthrough_opens", uint64_t{0}); opens > 0) {
    fmt::print("  passed on {:>10}  {} opens that the kernel serves itself\n", size_of(volume, "passthrough_bytes"),
               opens);
  }
}

void print_origin(const Json& origin) {
  if (origin.value("requests", uint64_t{0}) == 0) return;
  const Json& latency = origin.at("first_byte_us");
  fmt::print("  origin of {}: {} requests, {} retried, {} failed, first byte p50 {:.1f} ms, p99 {:.1f} ms\n",
             name_of(origin, "volume"), origin.value("requests", uint64_t{0}), origin.value("retries", uint64_t{0}),
             origin.value("errors", uint64_t{0}), latency.value("p50", 0.0) / 1000, latency.value("p99", 0.0) / 1000);
}

void print_node(const Json& node) {
  const Json& memory = node.at("tiers").at("memory");
  const Json& disk = node.at("tiers").at("disk");
  fmt::print("node {}  pid {}, version {}, {} cores, {} of memory\n", name_of(node, "node"), node.value("pid", 0),
             node.value("version", ""), node.value("cores", 0), size_of(node, "memory_limit"));
  fmt::print("  memory    {:>10} of {}\n", size_of(memory, "used"), size_of(memory, "arena"));
  for (const Json& each : disk.at("disks")) {
    const std::string why = name_of(each, "why");
    fmt::print("  disk      {:>10} of {}  {}  {}{}{}\n", size_of(each, "used"), size_of(each, "limit"),
               name_of(each, "path"), each.value("state", ""), why.empty() ? "" : ": ", why);
    if (each.value("pinned", uint64_t{0}) > 0)
      fmt::print("  pinned    {:>10} of {}\n", size_of(each, "pinned"), size_of(each, "pinned_max"));
  }
  for (const Json& volume : node.at("volumes")) print_volume(volume);
  for (const Json& origin : node.at("origins")) print_origin(origin);
}

}  // namespace

int status_command(int argc, char** argv) {
  CLI::App app("What a running node is doing: volumes, tiers, disks, origins.", "blobcache status");
  std::string name;
  bool json = false;
  app.add_option("--node", name, "which node; implied when there is one")->type_name("NAME");
  app.add_flag("--json", json, "for programs");
  app.footer("Examples:\n  blobcache status\n  blobcache status --json | python3 -m json.tool");
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;

  std::string socket;
  if (const node::Outcome chosen = choose_node(name, &socket); chosen.exit_code != exit_done) {
    return refuse(chosen.exit_code, chosen.message);
  }
  std::string text;
  if (ask_socket(socket, "status", answer_ms, &text) != Ping::Answer::alive) {
    return refuse(exit_failed, fmt::format("the node at {} does not answer; is it running?", socket));
  }
  if (json) {
    fmt::print("{}", text);
    return exit_done;
  }
  const Json node = Json::parse(text, nullptr, false);
  if (!node.is_object() || !node.contains("tiers")) {
    return refuse(exit_failed,
                  fmt::format("the node at {} answers something else than its status; is it of this version?", socket));
  }
  print_node(node);
  return exit_done;
}

}  // namespace blobcache::cli
