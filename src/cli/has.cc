// has: whether the content store has a blob: exit 0 yes, 1 no. remove: it goes.
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/text.h"
#include "base/units.h"
#include "cli/blob_call.h"
#include "cli/command.h"
#include "cli/commands.h"

namespace blobcache::cli {

int has_command(int argc, char** argv) {
  CLI::App app("Say whether the content store has a blob.", "blobcache has");
  std::string id;
  std::string node_name;
  bool json = false;
  app.add_option("SHA256", id, "the blob")->required();
  app.add_option("--node", node_name, "the node, where several run")->type_name("NAME");
  app.add_flag("--json", json, "its size, when it was stored and when it goes, for programs");
  app.footer(
      "Ends with 0 when it is there, and with 1 when it is not.\n\n"
      "Example:\n  blobcache has $(sha256sum <model.safetensors | cut -d' ' -f1) || blobcache put model.safetensors");
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;
  if (const std::string problem = check_blob_id(&id); !problem.empty()) return refuse(exit_wrong_use, problem);
  BlobCall call;
  std::vector<std::string> words;
  bool not_found = false;
  node::Outcome outcome = call.begin(node_name, "has " + id, -1);
  if (outcome.exit_code == 0) outcome = call.wait(&words, &not_found);
  if (not_found) {
    if (json) fmt::print("{{\"id\":{},\"found\":false}}\n", json_string(id));
    return exit_failed;
  }
  if (outcome.exit_code != 0) return refuse(outcome.exit_code, outcome.message);
  const std::optional<uint64_t> bytes = words.size() == 4 ? parse_number(words[0]) : std::nullopt;
  if (!bytes) return refuse(exit_failed, "the node's answer is not understood; use the blobcache it was started with");
  if (json) {
    fmt::print("{{\"id\":{},\"found\":true,\"bytes\":{},\"stored\":{},\"expires\":{},\"pinned\":{}}}\n",
               json_string(id), *bytes, words[1], words[2] == "0" ? "null" : words[2], words[3] == "1");
  } else {
    fmt::print("{} ({})\n", *bytes, format_bytes_short(*bytes));
  }
  return exit_done;
}

int remove_command(int argc, char** argv) {
  CLI::App app("Remove a blob from the content store.", "blobcache remove");
  std::string id;
  std::string node_name;
  bool pinned = false;
  app.add_option("SHA256", id, "the blob")->required();
  app.add_flag("--pinned", pinned, "a pinned one, too");
  app.add_option("--node", node_name, "the node, where several run")->type_name("NAME");
  app.footer(
      "Who reads it goes on reading. Ends with 1 when there is no such blob.\n\n"
      "Example:\n  blobcache remove e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;
  if (const std::string problem = check_blob_id(&id); !problem.empty()) return refuse(exit_wrong_use, problem);
  BlobCall call;
  std::vector<std::string> words;
  node::Outcome outcome = call.begin(node_name, fmt::format("remove {}{}", id, pinned ? " pinned=1" : ""), -1);
  if (outcome.exit_code == 0) outcome = call.wait(&words, nullptr);
  return outcome.exit_code == 0 ? exit_done : refuse(outcome.exit_code, outcome.message);
}

}  // namespace blobcache::cli
