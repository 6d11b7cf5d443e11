// A small HTTP/1.1 server of threads on loopback, and a client on one core with the kernel's ring. The server answers what
// a function of the test says, and counts connections and requests.
//   Thread    the server's are its own; the rest one
#pragma once

#include <atomic>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "origin/http_client.h"
#include "origin/http_text.h"
#include "origin/receive_buffers.h"
#include "ring/uring.h"

namespace blobcache_test {

using namespace blobcache;

struct ServerRequest {
  std::string verb;
  std::string target;   // path and query as sent
  std::string head;     // everything before the body
  unsigned number = 0;  // of all requests, from 0

  std::string header(std::string_view name) const {
    size_t at = head.find("\r\n");
    while (at != std::string::npos && at + 2 < head.size()) {
      const size_t end = head.find("\r\n", at + 2);
      const std::string_view line = std::string_view(head).substr(at + 2, end - at - 2);
      const size_t colon = line.find(':');
      if (colon != std::string_view::npos && equals_ignoring_case(line.substr(0, colon), name)) {
        return std::string(trim(line.substr(colon + 1)));
      }
      at = end;
    }
    return {};
  }
  // "bytes=A-B"; false: none.
  bool range(uint64_t* first, uint64_t* last) const {
    const std::string value = header("range");
    return std::sscanf(value.c_str(), "bytes=%lu-%lu", first, last) == 2;
  }
};

// What goes over the wire, byte for byte. A reply that is shorter than its Content-Length ends the connection.
struct ServerReply {
  std::string bytes;
  bool close = false;   // after the bytes
  bool hang = false;    // after the bytes: keep the connection and say nothing more
  size_t pause_at = 0;  // with go_on: before that byte is sent, go_on() has to return
  std::function<void()> go_on = {};
};

inline ServerReply reply_with(std::string_view status, std::string_view headers, std::string_view body) {
  return {.bytes = "HTTP/1.1 " + std::string(status) + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" +
                   std::string(headers) + "\r\n" + std::string(body)};
}

class HttpServer {
 public:
  using Answer = std::function<ServerReply(const ServerRequest&)>;

  explicit HttpServer(Answer answer) : answer_(std::move(answer)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    if (listener_ < 0 || ::bind(listener_, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
        ::listen(listener_, 256) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
      throw std::runtime_error("no loopback socket");
    }
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~HttpServer() {
    ::shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    {
      const std::lock_guard lock(mutex_);
      for (const int fd : sockets_) ::shutdown(fd, SHUT_RDWR);
    }
    for (std::thread& thread : threads_) thread.join();
    ::close(listener_);
  }
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  unsigned connections() const { return connections_; }
  unsigned requests() const { return requests_; }

 private:
  void accept_all() {
    while (true) {
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      ++connections_;
      const std::lock_guard lock(mutex_);
      sockets_.insert(fd);
      threads_.emplace_back([this, fd] { serve(fd); });
    }
  }
  void serve(int fd) {
    std::string pending;
    bool going = true;
    while (going) {
      const size_t end = pending.find("\r\n\r\n");
      if (end == std::string::npos) {
        char buffer[4096];
        const ssize_t got = ::recv(fd, buffer, sizeof buffer, 0);
        if (got <= 0) break;
        pending.append(buffer, static_cast<size_t>(got));
        continue;
      }
      ServerRequest request;
      request.head = pending.substr(0, end + 2);
      pending.erase(0, end + 4);
      const size_t space = request.head.find(' ');
      request.verb = request.head.substr(0, space);
      request.target = request.head.substr(space + 1, request.head.find(' ', space + 1) - space - 1);
      request.number = requests_++;
      const ServerReply reply = answer_(request);
      const bool head_only = request.verb == "HEAD";
      const std::string bytes = head_only ? reply.bytes.substr(0, reply.bytes.find("\r\n\r\n") + 4) : reply.bytes;
      size_t sent = 0;
      while (sent < bytes.size()) {
        if (reply.go_on && sent == reply.pause_at) reply.go_on();
        const size_t until = reply.go_on && sent < reply.pause_at ? reply.pause_at : bytes.size();
        const ssize_t count = ::send(fd, bytes.data() + sent, until - sent, MSG_NOSIGNAL);
        if (count <= 0) break;
        sent += static_cast<size_t>(count);
      }
      if (reply.hang) {
        char buffer[64];
        while (::recv(fd, buffer, sizeof buffer, 0) > 0) {
        }
      }
      going = !reply.close && !reply.hang && sent == bytes.size();
    }
    const std::lock_guard lock(mutex_);
    sockets_.erase(fd);
    ::close(fd);
  }

  Answer answer_;
  int listener_ = -1;
  uint16_t port_ = 0;
  std::atomic<unsigned> connections_{0};
  std::atomic<unsigned> requests_{0};
  std::mutex mutex_;
  std::set<int> sockets_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

// Bytes that say where they are: no two 8-byte words of an object are alike.
inline std::string pattern(uint64_t offset, uint64_t bytes) {
  std::string text(bytes, '\0');
  for (uint64_t i = 0; i < bytes; ++i) {
    const uint64_t word = (offset + i) / 8 * 0x9e3779b97f4a7c15ull;
    text[i] = static_cast<char>(word >> ((offset + i) % 8 * 8));
  }
  return text;
}

inline constexpr uint64_t object_bytes = 8ull << 20;

inline std::string content_range(uint64_t first, uint64_t last, uint64_t total = object_bytes) {
  return "Content-Range: bytes " + std::to_string(first) + "-" + std::to_string(last) + "/" + std::to_string(total) +
         "\r\n";
}

inline ServerReply range_reply(const ServerRequest& request, std::string_view headers = "ETag: \"one\"\r\n") {
  uint64_t first = 0;
  uint64_t last = 0;
  if (!request.range(&first, &last)) return reply_with("400 Bad Request", "", "no range");
  return reply_with("206 Partial Content", content_range(first, last) + std::string(headers),
                    pattern(first, last - first + 1));
}

// The server of range_reply that writes down which ranges it was asked for.
class OrderedServer {
  std::mutex mutex_;
  std::vector<uint64_t> order_;

 public:
  explicit OrderedServer(uint32_t range_bytes)
      : server([this, range_bytes](const ServerRequest& request) {
          uint64_t first = 0;
          uint64_t last = 0;
          request.range(&first, &last);
          const std::lock_guard lock(mutex_);
          order_.push_back(first / range_bytes);
          return range_reply(request);
        }) {}
  // Numbers of ranges, when all have been answered.
  const std::vector<uint64_t>& order() const { return order_; }

  HttpServer server;  // last: its threads use the rest
};

inline std::unique_ptr<Reactor> make_reactor() {
  constexpr unsigned cqes = 4096;
  auto ring = create_uring({.sqes = 256, .cqes = cqes});
  if (!ring) throw std::runtime_error("no ring");
  return std::make_unique<Reactor>(std::move(*ring), ReactorOptions{.cqes = cqes});
}

class HttpCore {
 public:
  explicit HttpCore(HttpOptions options_of_client = {}) : options(std::move(options_of_client)) {
    set_up_libcurl();
    reactor = make_reactor();
    client = std::make_unique<HttpClient>(*reactor, options, counters, in_flight);
  }
  ~HttpCore() {
    client->stop();
    reactor->drain(5'000'000'000);
    client.reset();
  }

  struct Waited : HttpRequest {
    Waited() {
      on_done = [](HttpRequest& request) { ++static_cast<Waited&>(request).times_done; };
    }
    int times_done = 0;
    std::string bytes_of_range;
  };
  void begin_range(Waited& request, const HttpServer& server, uint64_t offset, uint32_t bytes) {
    request.scheme_and_host = server.url();
    if (request.path.empty()) request.path = "/object";
    request.offset = offset;
    request.bytes = bytes;
    request.bytes_of_range.assign(bytes + 8, '#');  // the rest must stay as it is
    request.to = reinterpret_cast<std::byte*>(request.bytes_of_range.data());
    client->begin(request);
  }
  void wait(const Waited& request) {
    while (request.times_done == 0) reactor->turn(true);
  }

  // Several ranges of 64 KiB of the version that range_reply has.
  using Requests = std::vector<std::unique_ptr<Waited>>;
  static constexpr uint32_t range_bytes = 65536;
  // The range behind those that are there.
  Waited& begin_next(Requests& requests, const HttpServer& server, bool background = false) {
    const uint64_t offset = requests.size() * range_bytes;
    Waited& request = *requests.emplace_back(std::make_unique<Waited>());
    request.expected_version = "\"one\"";
    request.background = background;
    begin_range(request, server, offset, range_bytes);
    return request;
  }
  void wait_all(const Requests& requests) {
    for (const auto& request : requests) wait(*request);
  }
  // One range, to its end.
  std::unique_ptr<Waited> ask(const HttpServer& server, uint64_t offset, uint32_t bytes) {
    auto request = std::make_unique<Waited>();
    request->expected_version = "\"one\"";
    begin_range(*request, server, offset, bytes);
    wait(*request);
    return request;
  }

  const HttpOptions options;
  OriginCounters counters;
  std::atomic<unsigned> in_flight{0};
  std::unique_ptr<Reactor> reactor;
  std::unique_ptr<HttpClient> client;
};

// Whatever was in flight has ended, and nothing is counted any more.
inline void check_stopped(const HttpCore& core, const HttpCore::Requests& requests) {
  for (const auto& request : requests) {
    REQUIRE(request->times_done == 1);
    CHECK(request->error.code == Code::stopping);
  }
  CHECK(core.client->active() == 0);
  CHECK(core.in_flight == 0);
}

inline void check_bytes(const HttpCore::Waited& request) {
  REQUIRE(request.times_done == 1);
  REQUIRE(!request.failed);
  const std::string wanted = pattern(request.offset, request.bytes) + "########";
  CHECK(request.bytes_of_range == wanted);
}

}  // namespace blobcache_test
