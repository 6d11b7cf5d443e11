// range_server: a web server of one file, /data, for ranges, as far away as it is told: the origin of P9 and P10.
//   range_server FILE PORT_FILE [DELAY_MS]     on loopback; the port that it got is written to PORT_FILE
//   GET /counts                                JSON since the last one: requests and bytes; requests_again and bytes_again, of what
//                                            was sent before already
// A thread a connection and sendfile: it should cost little beside those who ask it. Each answer is DELAY_MS late.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr uint64_t page_bytes = 4096;

[[noreturn]] void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

// What was sent of the file, by pages.
class Counts {
 public:
  explicit Counts(uint64_t file_bytes) : sent_((file_bytes + page_bytes - 1) / page_bytes) {}

  void add(uint64_t first, uint64_t last) {
    const std::lock_guard lock(mutex_);
    ++requests_;
    bytes_ += last - first + 1;
    const uint64_t again = bytes_again_;
    for (uint64_t page = first / page_bytes; page <= last / page_bytes; ++page) {
      if (sent_[page]) bytes_again_ += page_bytes;
      sent_[page] = true;
    }
    if (bytes_again_ > again) ++requests_again_;
  }
  std::string take() {
    const std::lock_guard lock(mutex_);
    std::string json = "{\"requests\":" + std::to_string(requests_) + ",\"bytes\":" + std::to_string(bytes_) +
                       ",\"requests_again\":" + std::to_string(requests_again_) +
                       ",\"bytes_again\":" + std::to_string(bytes_again_) + "}";
    requests_ = bytes_ = requests_again_ = bytes_again_ = 0;
    sent_.assign(sent_.size(), false);
    return json;
  }

 private:
  std::mutex mutex_;
  std::vector<bool> sent_;
  uint64_t requests_ = 0;
  uint64_t bytes_ = 0;
  uint64_t requests_again_ = 0;
  uint64_t bytes_again_ = 0;
};

struct Server {
  int file = -1;
  uint64_t file_bytes = 0;
  unsigned delay_ms = 0;
  Counts counts;
};

bool send_all(int fd, const std::string& text) {
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t sent = send(fd, text.data() + done, text.size() - done, MSG_NOSIGNAL | MSG_MORE);
    if (sent <= 0) return false;
    done += static_cast<size_t>(sent);
  }
  return true;
}

bool send_file(int fd, int file, uint64_t first, uint64_t last) {
  auto at = static_cast<off_t>(first);
  while (static_cast<uint64_t>(at) <= last) {
    if (sendfile(fd, file, &at, last + 1 - static_cast<uint64_t>(at)) <= 0) return false;
  }
  return true;
}

// Sends what MSG_MORE held back.
void push(int fd) {
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

bool answer(Server& server, int fd, const std::string& head) {
  const size_t space = head.find(' ');
  const std::string verb = head.substr(0, space);
  const std::string path = head.substr(space + 1, head.find(' ', space + 1) - space - 1);
  if (path == "/counts") {
    const std::string body = server.counts.take();
    return send_all(fd, "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(server.delay_ms));
  // A folder that may not be listed.
  if (path == "/") return send_all(fd, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
  if (path != "/data") return send_all(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
  unsigned long first = 0;
  unsigned long last = server.file_bytes - 1;
  size_t range = head.find("\r\nRange: bytes=");
  if (range == std::string::npos) range = head.find("\r\nrange: bytes=");
  const bool partial =
      range != std::string::npos && std::sscanf(head.c_str() + range + 15, "%lu-%lu", &first, &last) == 2;
  if (first > last || last >= server.file_bytes) return false;
  std::string text = partial ? "HTTP/1.1 206 Partial Content\r\n" : "HTTP/1.1 200 OK\r\n";
  if (partial) {
    text += "Content-Range: bytes " + std::to_string(first) + "-" + std::to_string(last) + "/" +
            std::to_string(server.file_bytes) + "\r\n";
  }
  text += "Content-Length: " + std::to_string(last - first + 1) +
          "\r\nETag: \"data\"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nAccept-Ranges: bytes\r\n\r\n";
  if (!send_all(fd, text)) return false;
  if (verb == "HEAD") return true;
  server.counts.add(first, last);
  return send_file(fd, server.file, first, last);
}

void serve(Server& server, int fd) {
  std::string pending;
  while (true) {
    const size_t end = pending.find("\r\n\r\n");
    if (end == std::string::npos) {
      char buffer[4096];
      const ssize_t got = recv(fd, buffer, sizeof buffer, 0);
      if (got <= 0) break;
      pending.append(buffer, static_cast<size_t>(got));
      continue;
    }
    const std::string head = pending.substr(0, end + 2);
    pending.erase(0, end + 4);
    if (!answer(server, fd, head)) break;
    push(fd);
  }
  close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  std::signal(SIGPIPE, SIG_IGN);  // who asks may go in the middle of an answer, and sendfile has no MSG_NOSIGNAL
  const int file = open(argv[1], O_RDONLY | O_CLOEXEC);
  struct stat facts{};
  if (file < 0 || fstat(file, &facts) != 0) die(argv[1]);
  const auto bytes = static_cast<uint64_t>(facts.st_size);
  Server server{.file = file,
                .file_bytes = bytes,
                .delay_ms = argc > 3 ? static_cast<unsigned>(std::strtoul(argv[3], nullptr, 10)) : 0,
                .counts = Counts(bytes)};
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  if (listener < 0 || bind(listener, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      listen(listener, 256) != 0 || getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    die("socket");
  }
  const std::string fresh = std::string(argv[2]) + ".new";
  FILE* port_file = std::fopen(fresh.c_str(), "w");
  if (port_file == nullptr) die(fresh.c_str());
  std::fprintf(port_file, "%u", ntohs(address.sin_port));
  std::fclose(port_file);
  if (rename(fresh.c_str(), argv[2]) != 0) die(argv[2]);
  while (true) {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) die("accept");
    push(fd);
    std::thread([&server, fd] { serve(server, fd); }).detach();
  }
}
