#include "node/http_server.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include <fmt/format.h>

#include "base/log.h"
#include "base/text.h"
#include "ring/errno.h"
#include "ring/sqe.h"

namespace blobcache::node {
namespace {

constexpr uint64_t accept_pause_ns = 100'000'000;
constexpr uint64_t room_pause_ns = 100'000'000;
constexpr size_t secret_bytes_min = 16;
constexpr size_t secret_bytes_max = 4096;
constexpr int backlog = 1024;

bool is_loopback(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(address);
    return ntohl(in.sin_addr.s_addr) >> 24 == 127;
  }
  const auto& in = reinterpret_cast<const sockaddr_in6&>(address);
  return address.sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&in.sin6_addr);
}

// In a time that says nothing about where they differ.
bool is_same(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) difference |= static_cast<unsigned>(a[i] ^ b[i]);
  return difference == 0;
}

}  // namespace

HttpServer::HttpServer(Options options) : options_(std::move(options)) {
  accept_.server = accept_again_.server = room_again_.server = this;
  accept_.handler = &HttpServer::on_accept;
  close_.handler = [](Op&, int32_t, uint32_t) {};
}

HttpServer::~HttpServer() {
  if (listen_fd_ >= 0) ::close(listen_fd_);
  if (waiting_fd_ >= 0) ::close(waiting_fd_);
  // Places only; the core has ended.
  for (List<HttpConnection>* list : {&free_, &silent_, &busy_}) {
    while (list->pop_front() != nullptr) {
    }
  }
}

Result<void> HttpServer::prepare(std::string* message_out) {
  if (options_.secret_file.empty()) return {};
  std::ifstream file(options_.secret_file);
  std::string secret(secret_bytes_max + 1, '\0');
  errno = 0;
  file.read(secret.data(), static_cast<std::streamsize>(secret.size()));
  if (!file.is_open() || file.bad()) {
    *message_out = fmt::format("http.secret_file {} cannot be read: {}", options_.secret_file, std::strerror(errno));
    return fail(Code::invalid);
  }
  secret.resize(static_cast<size_t>(file.gcount()));
  while (!secret.empty() && (secret.back() == '\n' || secret.back() == '\r' || secret.back() == ' ')) secret.pop_back();
  const auto is_printable = [](char c) { return c > ' ' && c <= '~'; };
  if (secret.size() < secret_bytes_min) {
    *message_out = fmt::format(
        "http.secret_file {} holds no token of at least {} characters; make one with `openssl rand -hex 32`",
        options_.secret_file, secret_bytes_min);
    return fail(Code::invalid);
  }
  if (secret.size() > secret_bytes_max || !std::all_of(secret.begin(), secret.end(), is_printable)) {
    *message_out = fmt::format(
        "http.secret_file {} must hold one token of at most {} printable ASCII characters without blanks: another "
        "cannot be sent; make one with `openssl rand -hex 32`",
        options_.secret_file, secret_bytes_max);
    return fail(Code::invalid);
  }
  secret_ = std::move(secret);
  return {};
}

Result<void> HttpServer::open(std::string* message_out) {
  const size_t colon = options_.listen.rfind(':');
  std::string_view host = std::string_view(options_.listen).substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  return listen_at(host, std::string_view(options_.listen).substr(colon + 1), message_out);
}

Result<void> HttpServer::listen_at(std::string_view host, std::string_view port, std::string* message_out) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int problem = getaddrinfo(std::string(host).c_str(), std::string(port).c_str(), &hints, &found);
  if (problem != 0) {
    *message_out =
        fmt::format("http.listen = {}: the host has no address ({})", options_.listen, gai_strerror(problem));
    return blobcache::fail(Code::invalid);
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  if (secret_.empty() && !is_loopback(*found->ai_addr)) {
    *message_out = fmt::format(
        "http.listen = {} is reached from other machines, so http.secret_file must name a file with a token; or listen "
        "on 127.0.0.1",
        options_.listen);
    return blobcache::fail(Code::denied);
  }
  listen_fd_ = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  if (listen_fd_ >= 0) {
    setsockopt(listen_fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listen_fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  if (listen_fd_ < 0 || bind(listen_fd_, found->ai_addr, found->ai_addrlen) != 0 || listen(listen_fd_, backlog) != 0) {
    const int os_errno = errno;
    *message_out = fmt::format("cannot listen on http.listen = {}: {}; choose another port, or \"\" for no HTTP",
                               options_.listen, std::strerror(os_errno));
    return std::unexpected(error_from_errno(os_errno));
  }
  return {};
}

void HttpServer::start(Reactor& home) {
  home_ = &home;
  begin_accept();
}

void HttpServer::stop() {
  stopping_ = true;
  for (Again* again : {&accept_again_, &room_again_}) {
    if (again->armed()) home_->cancel(*again);
  }
  shutdown(listen_fd_, SHUT_RDWR);  // ends the accept
  for (const std::unique_ptr<HttpConnection>& connection : connections_) connection->close();
}

bool HttpServer::may(const HttpHead& head) const {
  if (secret_.empty() || options_.routes->is_public(head)) return true;
  constexpr std::string_view scheme = "Bearer ";
  const std::string_view value = head.field("authorization");
  return value.starts_with(scheme) && is_same(value.substr(scheme.size()), secret_);
}

// A page from elsewhere can make its own name lead to 127.0.0.1 (DNS rebinding), and a browser then lets it read our answers.
// Its requests say the name. Where a token is asked for, that is the protection.
bool HttpServer::is_called(const HttpHead& head) const {
  const std::string lower = ascii_lower(head.field("host"));
  std::string_view host = lower;
  if (!secret_.empty() || host.empty()) return true;
  if (const size_t colon = host.rfind(':'); colon != host.npos && host.find(']', colon) == host.npos) {
    host = host.substr(0, colon);
  }
  in_addr address{};
  const bool loopback =
      inet_pton(AF_INET, std::string(host).c_str(), &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
  return loopback || host == "localhost" || host == "[::1]" ||
         host == ascii_lower(std::string_view(options_.listen).substr(0, options_.listen.rfind(':')));
}

void HttpServer::begin_accept() {
  if (stopping_ || accept_.cqes_owed > 0 || waiting_fd_ >= 0) return;
  prep_accept(home_->prepare(accept_), FileRef::fd(listen_fd_), SOCK_CLOEXEC);
}

void HttpServer::on_accept(Op& op, int32_t result, uint32_t) {
  HttpServer& self = *static_cast<Accept&>(op).server;
  if (self.stopping_) {
    if (result >= 0) self.close_fd(result);
    return;
  }
  if (result >= 0) self.take(result);
  // Out of descriptors or memory: each connection that ends makes room, and asks again. Without any the kernel would answer
  // the next accept with the same at once.
  if (result < 0 && result != -EAGAIN && result != -EINTR && result != -ECONNABORTED) {
    BC_LOG(warn, "an HTTP connection could not be accepted (errno {})", -result);
    if (self.busy_.empty() && self.silent_.empty() && !self.accept_again_.armed()) {
      self.home_->arm(self.accept_again_, accept_pause_ns);
    }
    return;
  }
  self.begin_accept();
}

void HttpServer::take(int fd) {
  if (free_.empty() && connections_.size() < connections_max) {
    connections_.push_back(std::unique_ptr<HttpConnection>(new HttpConnection()));
    connections_.back()->server_ = this;
    free_.push_back(*connections_.back());
  }
  if (HttpConnection* connection = free_.pop_front(); connection != nullptr) {
    silent_.push_back(*connection);
    connection->start(fd);
    return;
  }
  waiting_fd_ = fd;
  make_room();
}

// Who closes a connection frees its place in this turn or, when something of it is in flight, in a later one.
void HttpServer::make_room() {
  if (waiting_fd_ < 0 || stopping_) return;
  if (HttpConnection* silent = silent_.front(); silent != nullptr) return silent->close();
  HttpConnection* slowest = nullptr;
  busy_.for_each([&](HttpConnection& each) {
    if (each.waited_ns() >= patience_ns && (slowest == nullptr || each.waited_ns() > slowest->waited_ns())) {
      slowest = &each;
    }
  });
  if (slowest != nullptr) return slowest->close();
  if (!room_again_.armed()) home_->arm(room_again_, room_pause_ns);
}

void HttpServer::on_free(HttpConnection& connection) {
  free_.push_back(connection);
  if (stopping_) return;
  const int fd = waiting_fd_;
  waiting_fd_ = -1;
  if (fd >= 0) take(fd);
  begin_accept();
}

void HttpServer::close_fd(int fd) { prep_close(home_->prepare_silent(close_), fd); }

}  // namespace blobcache::node
