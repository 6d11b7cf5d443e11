// path: the backing file of a whole and verified object, for what wants to read it without FUSE (cuFile, mmap elsewhere).
//
// The cache directory is closed to other users, so a path is of use to its owner only; --fd hands an open descriptor to a
// program instead. The right to read is that of FILE, not of the backing file: FILE is opened first, as the caller, and
// what is handed on is the backing file of the version that was opened.
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include "cli/cached_file.h"
#include "cli/command.h"
#include "cli/commands.h"

namespace blobcache::cli {
namespace {

constexpr int handed_fd = 3;

int print_path(const std::string& path) {
  CachedFile file;
  if (const int os_errno = read_cached_file(path, &file); os_errno != 0) {
    return refuse(exit_failed, file_problem(path, os_errno));
  }
  if (file.backing_path.empty()) return refuse(exit_failed, backing_problem(path, file));
  fmt::print("{}\n", file.backing_path);
  return exit_done;
}

int refuse_backing(const std::string& path, const CachedFile& file, int os_errno) {
  if (os_errno == EACCES || os_errno == EPERM) {
    return refuse(exit_failed,
                  fmt::format("the backing file {} may not be opened by this user, because the cache belongs to the "
                              "daemon's; run the command as that user, or read {} itself",
                              file.backing_path, path));
  }
  return refuse(exit_failed, fmt::format("the backing file {} cannot be opened ({}): it may just have been evicted; "
                                         "read {} and repeat",
                                         file.backing_path, std::strerror(os_errno), path));
}

// Does not return when the program was started.
int run_with_descriptor(const std::string& path, const std::vector<std::string>& command) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return refuse(exit_failed, fmt::format("{} may not be read: {}; check its permissions and the path", path,
                                           std::strerror(errno)));
  }
  CachedFile file;
  if (const int os_errno = read_cached_file(fd, &file); os_errno != 0) {
    return refuse(exit_failed, file_problem(path, os_errno));
  }
  if (file.backing_path.empty()) return refuse(exit_failed, backing_problem(path, file));
  const int backing = open(file.backing_path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (backing < 0) return refuse_backing(path, file, errno);
  struct stat status{};
  if (fstat(backing, &status) != 0 || static_cast<uint64_t>(status.st_size) != file.size) {
    return refuse(exit_failed,
                  fmt::format("the backing file {} is not the size of {}: it was replaced meanwhile; repeat",
                              file.backing_path, path));
  }
  // dup2 onto itself would leave it to be closed by exec.
  if (backing == handed_fd ? fcntl(backing, F_SETFD, 0) != 0 : dup2(backing, handed_fd) != handed_fd) {
    return refuse(exit_failed, fmt::format("descriptor 3 cannot be made: {}; raise `ulimit -n`", std::strerror(errno)));
  }
  setenv("BLOBCACHE_FD", "3", 1);
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  return refuse(exit_failed,
                fmt::format("{} cannot be run: {}; check the command behind --", command[0], std::strerror(errno)));
}

}  // namespace

int path_command(int argc, char** argv) {
  CLI::App app("The backing file of a file that lies on disk, whole and verified.", "blobcache path");
  std::string path;
  bool hand_over = false;
  std::vector<std::string> command;
  app.add_option("FILE", path, "a file on a mount")->required();
  app.add_flag("--fd", hand_over, "run COMMAND with the file open for reading as descriptor 3 (BLOBCACHE_FD=3)");
  app.add_option("COMMAND", command, "with --fd, behind --: a program and its arguments");
  app.footer(
      "Ends with 1 when the file is not on disk, whole and verified. The path holds until the file is evicted; a\n"
      "descriptor holds its bytes.\n\n"
      "Examples:\n  blobcache path /mnt/models/llama/model.safetensors\n"
      "  blobcache path --fd /mnt/models/llama/model.safetensors -- python3 load.py /dev/fd/3");
  if (const std::optional<int> over = parse_arguments(app, argc, argv)) return *over;
  if (hand_over == command.empty()) {
    return refuse(exit_wrong_use, hand_over ? "--fd needs a command behind --; see `blobcache path --help`"
                                            : "a command is run with --fd only; see `blobcache path --help`");
  }
  return hand_over ? run_with_descriptor(path, command) : print_path(path);
}

}  // namespace blobcache::cli
