// What is done with other processes: bounded work, the daemon's birth, its control socket, and who holds a folder.
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/bounded.h"
#include "cli/control.h"
#include "cli/daemon.h"
#include "cli/holders.h"

using namespace blobcache;
using namespace blobcache::cli;

namespace {

struct Folder {
  Folder() { REQUIRE(mkdtemp(path) != nullptr); }
  ~Folder() {
    for (const char* name : {"/sock", "/log", "/file"}) unlink((std::string(path) + name).c_str());
    rmdir(path);
  }
  std::string file(const char* name) const { return std::string(path) + "/" + name; }
  char path[32] = "/tmp/blobcache-cli.XXXXXX";
};

// Listens; what comes is answered with `answer`, nothing when it is empty.
struct Listener {
  explicit Listener(const std::string& path) : fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    REQUIRE(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(listen(fd, 4) == 0);
  }
  ~Listener() { close(fd); }
  void answer_one(const std::string& answer) const {
    const int caller = accept(fd, nullptr, nullptr);
    char line[16];
    const ssize_t got = recv(caller, line, sizeof line, 0);
    if (got == 5 && std::memcmp(line, "ping\n", 5) == 0) {
      [[maybe_unused]] const ssize_t sent = send(caller, answer.data(), answer.size(), MSG_NOSIGNAL);
    }
    close(caller);
  }
  int fd;
};

Ping ping_answered(const std::string& answer) {
  const Folder folder;
  const Listener listener(folder.file("sock"));
  std::thread server([&] { listener.answer_one(answer); });
  const Ping ping = ping_socket(folder.file("sock"), 10'000);
  server.join();
  return ping;
}

std::string read_all(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace

TEST_CASE("bounded work: result, output, signal, time") {
  const auto done = run_bounded(10'000, [](int fd) {
    write_all(fd, std::string(100'000, 'x'));
    return 7;
  });
  REQUIRE(done.has_value());
  CHECK(done->exit_code == 7);
  CHECK(done->output.size() == 100'000);
  const auto killed = run_bounded(10'000, [](int) {
    raise(SIGKILL);
    return 0;
  });
  REQUIRE(killed.has_value());
  CHECK(killed->exit_code == 128 + SIGKILL);
  CHECK(!run_bounded(50, [](int) {
    pause();
    return 0;
  }));
  CHECK(run_program(10'000, {"/nonexistent-program"}).value().exit_code == 127);
  CHECK(run_program(10'000, {"false"}).value().exit_code == 1);
}

TEST_CASE("control socket: alive, silent, gone") {
  const Ping alive = ping_answered("pong 1234\n");
  CHECK(alive.answer == Ping::Answer::alive);
  CHECK(alive.pid == 1234);
  CHECK(ping_answered("pong -1\n").answer == Ping::Answer::silent);
  CHECK(ping_answered("pong x\n").answer == Ping::Answer::silent);
  CHECK(ping_answered(std::string(1000, 'p')).answer == Ping::Answer::silent);
  CHECK(ping_answered("").answer == Ping::Answer::gone);
  const Folder folder;
  CHECK(ping_socket(folder.file("sock"), 1000).answer == Ping::Answer::gone);
  {
    // Nobody accepts: what a stopped daemon looks like.
    const Listener listener(folder.file("sock"));
    CHECK(ping_socket(folder.file("sock"), 50).answer == Ping::Answer::silent);
  }
  CHECK(ping_socket(folder.file("sock"), 1000).answer == Ping::Answer::gone);
  CHECK(ping_socket(std::string(300, 'x'), 1000).answer == Ping::Answer::gone);
}

TEST_CASE("daemon: its failure before it is ready is the command's") {
  const Folder folder;
  const DaemonOptions options{.log_path = folder.file("log"), .mountpoint = "/none"};
  const node::Outcome refused =
      start_daemon(options, [](const OnReady&) { return node::Outcome{3, "no machine; buy one"}; });
  CHECK(refused.exit_code == 3);
  CHECK(refused.message == "no machine; buy one");
  const node::Outcome stopped = start_daemon(options, [](const OnReady&) { return node::Outcome{}; });
  CHECK(stopped.exit_code == 1);
  CHECK(stopped.message.find("told to stop") != std::string::npos);
  const node::Outcome killed = start_daemon(options, [](const OnReady&) {
    raise(SIGKILL);
    return node::Outcome{};
  });
  CHECK(killed.exit_code == 1);
  CHECK(killed.message.find("signal 9") != std::string::npos);
  CHECK(killed.message.find(options.log_path) != std::string::npos);
  const DaemonOptions bad{.log_path = "/none/log", .mountpoint = "/none"};
  CHECK(start_daemon(bad, [](const OnReady&) { return node::Outcome{}; }).message.find("log.file") !=
        std::string::npos);
}

TEST_CASE("daemon: ready is believed only when a mount of ours answers; its stderr is the log") {
  const Folder folder;
  const DaemonOptions options{.log_path = folder.file("log"), .mountpoint = "/"};
  const node::Outcome outcome = start_daemon(options, [](const OnReady& on_ready) {
    std::signal(SIGTERM, SIG_DFL);  // the test framework's handler would write into the log
    write_all(STDERR_FILENO, "a line\n");
    on_ready("ready");
    pause();  // until the command, not believing it, ends it
    return node::Outcome{};
  });
  CHECK(outcome.exit_code == 1);
  CHECK(read_all(options.log_path) == "a line\n");
}

TEST_CASE("holders: a process with a file open below the folder") {
  const Folder folder;
  const int fd = open(folder.file("file").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  REQUIRE(fd >= 0);
  int ready[2];
  REQUIRE(pipe2(ready, O_CLOEXEC) == 0);
  const pid_t child = fork();
  if (child == 0) {
    [[maybe_unused]] const ssize_t wrote = write(ready[1], "r", 1);
    pause();
    _exit(0);
  }
  char byte = 0;
  REQUIRE(read(ready[0], &byte, 1) == 1);
  close(fd);
  const std::vector<Holder> holders = find_holders(folder.path, 10'000);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  close(ready[0]);
  close(ready[1]);
  REQUIRE(holders.size() == 1);
  CHECK(holders[0].pid == child);
  CHECK(!holders[0].name.empty());
  CHECK(holders[0].path == folder.file("file"));
  CHECK(find_holders(folder.path, 10'000).empty());
}
