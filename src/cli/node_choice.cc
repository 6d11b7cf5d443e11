// A node has one socket and a link to it for each of its mounts, so nodes are counted by what the names lead to. A user finds
// his own nodes, and root's when he may speak to them.
#include "cli/node_choice.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include <fmt/format.h>
#include <unistd.h>

#include "base/state_paths.h"
#include "cli/command.h"
#include "cli/control.h"

namespace blobcache::cli {
namespace {

namespace fs = std::filesystem;
constexpr int ping_ms = 2000;

std::vector<std::string> directories() {
  std::vector<std::string> all = {state_directory()};
  if (geteuid() != 0) all.push_back(state_directory_of(0));
  return all;
}

struct Found {
  std::vector<std::string> sockets;  // of nodes that answer
  bool denied = false;
};

Found find_nodes() {
  Found found;
  for (const std::string& directory : directories()) {
    std::vector<std::string> paths;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(directory, ignored)) {
      if (entry.path().extension() == ".sock" && !entry.is_symlink(ignored)) paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    for (const std::string& path : paths) {
      const Ping::Answer answer = ping_socket(path, ping_ms).answer;
      if (answer == Ping::Answer::alive) found.sockets.push_back(path);
      if (answer == Ping::Answer::denied) found.denied = true;
    }
    if (!found.sockets.empty()) break;
  }
  return found;
}

std::string names_of(const std::vector<std::string>& sockets) {
  std::string names;
  for (const std::string& socket : sockets) {
    names += fmt::format("{}{}", names.empty() ? "" : ", ", fs::path(socket).stem().string());
  }
  return names;
}

}  // namespace

node::Outcome choose_node(const std::string& name, std::string* socket_out) {
  if (!name.empty()) {
    const std::string file = name.starts_with('/') ? escape_mount_path(name) : name;
    for (const std::string& directory : directories()) {
      *socket_out = control_socket_path(directory, file);
      const Ping::Answer answer = ping_socket(*socket_out, ping_ms).answer;
      if (answer == Ping::Answer::alive) return {};
      if (answer == Ping::Answer::silent) {
        return {exit_failed, fmt::format("the node {} does not answer; `blobcache umount` ends a hung one", name)};
      }
      if (answer == Ping::Answer::denied) {
        return {exit_failed,
                fmt::format("the node {} may not be asked by this user; repeat as root or as its owner", name)};
      }
    }
    return {exit_failed, fmt::format("no node {} runs here; leave out --node, or start it", name)};
  }
  const Found found = find_nodes();
  if (found.sockets.size() == 1) {
    *socket_out = found.sockets[0];
    return {};
  }
  if (found.sockets.size() > 1) {
    return {exit_wrong_use,
            fmt::format("{} nodes run here; say which with --node: {}", found.sockets.size(), names_of(found.sockets))};
  }
  if (found.denied) return {exit_failed, "the node here may not be asked by this user; repeat as root or as its owner"};
  return {exit_failed, "no node runs here; start one with `blobcache run` or `blobcache mount`"};
}

}  // namespace blobcache::cli
