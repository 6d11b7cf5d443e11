// put: a file, or standard input, into the content store. The node reads the descriptor that this command opened: what may be
// put is what its caller may read, and no byte goes through a socket.
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "base/text.h"
#include "base/units.h"
#include "cli/blob_call.h"
#include "cli/command.h"
#include "cli/commands.h"

namespace blobcache::cli {
namespace {

constexpr uint64_t s_ns = 1'000'000'000;

struct Arguments {
  std::string path;
  std::string id;
  std::string ttl;
  std::string node;
  bool pin = false;
  bool json = false;
};

void describe(CLI::App& app, Arguments& arguments) {
  app.add_option("FILE", arguments.path, "what to store; -: standard input")->required();
  app.add_option("--id", arguments.id, "the SHA-256 that it must have; what is known is then not read again")
      ->type_name("SHA256");
  app.add_option("--ttl", arguments.ttl, "when it may go, such as 12h or 30d (never)")->type_name("DURATION");
  app.add_flag("--pin", arguments.pin, "keep it beyond its time, and from `remove`");
  app.add_option("--node", arguments.node, "the node, where several run")->type_name("NAME");
  app.add_flag("--json", arguments.json, "for programs");
  app.footer(
      "Prints the SHA-256 once it is on disk. Stored again, a blob lives as long as the longer of both times.\n\n"
      "Examples:\n  blobcache put model.safetensors\n  tar c run/ | blobcache put --ttl=7d -");
}

int open_source(const std::string& path, int* fd_out) {
  *fd_out = path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status{};
  if (*fd_out < 0 || fstat(*fd_out, &status) != 0) return errno;
  return S_ISDIR(status.st_mode) ? EISDIR : 0;
}

// Of a file that is read from its start.
std::string size_word(int fd) {
  struct stat status{};
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return "";
  const off_t at = lseek(fd, 0, SEEK_CUR);
  return at >= 0 && at <= status.st_size ? fmt::format(" bytes={}", status.st_size - at) : "";
}

}  // namespace

int put_command(int argc, char** argv) {
  CLI::App app("Store a file under the SHA-256 of its bytes.", "blobcache put");
  Arguments arguments;
  describe(app, arguments);
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;
  std::string line = "put";
  if (!arguments.id.empty()) {
    if (const std::string problem = check_blob_id(&arguments.id); !problem.empty()) {
      return refuse(exit_wrong_use, "--id: " + problem);
    }
    line += " id=" + arguments.id;
  }
  if (!arguments.ttl.empty()) {
    const Parsed<uint64_t> ns = parse_duration_ns(arguments.ttl);
    if (!ns) return refuse(exit_wrong_use, fmt::format("--ttl: {}", ns.error()));
    line += fmt::format(" ttl={}", (*ns + s_ns - 1) / s_ns);
  }
  if (arguments.pin) line += " pin=1";
  int fd = -1;
  if (const int os_errno = open_source(arguments.path, &fd); os_errno != 0) {
    return refuse(exit_failed, fmt::format("{} cannot be read: {}; give a file that you may read, or -", arguments.path,
                                           std::strerror(os_errno)));
  }
  BlobCall call;
  std::vector<std::string> words;
  node::Outcome outcome = call.begin(arguments.node, line + size_word(fd), fd);
  if (outcome.exit_code == 0) outcome = call.wait(&words, nullptr);
  if (outcome.exit_code != 0) return refuse(outcome.exit_code, outcome.message);
  if (words.size() != 3)
    return refuse(exit_failed, "the node's answer is not understood; use the blobcache it was started with");
  if (arguments.json) {
    fmt::print("{{\"id\":{},\"bytes\":{},\"known\":{}}}\n", json_string(words[0]), words[1], words[2] == "known");
  } else {
    fmt::print("{}\n", words[0]);
  }
  return exit_done;
}

}  // namespace blobcache::cli
