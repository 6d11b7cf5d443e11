// One connection.
//
//   head --complete--> exchange --all has gone out--> head (kept alive) | lingering --> closing --> free
//     '--refused--> refusal ------------------------------------------------^
//
// recv and send are at most one each. A connection that is to end is shut down first: what is in flight then comes back, and
// only after it the socket is closed and the place is free. Lingering: an answer that is followed by a close while the
// client still sends would be lost in the reset that it causes, so what comes is read and forgotten for a moment.
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "node/http_server.h"
#include "ring/sqe.h"

namespace blobcache::node {
namespace {

constexpr size_t send_bytes_max = size_t{1} << 30;
// A browser must not make a document of what somebody stored here: it would be of the same origin as the page.
constexpr std::string_view no_sniffing = "X-Content-Type-Options: nosniff\r\n";
constexpr std::string_view go_on = "HTTP/1.1 100 Continue\r\n\r\n";

}  // namespace

std::string_view http_reason(unsigned status) {
  switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 204: return "No Content";
    case 206: return "Partial Content";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 411: return "Length Required";
    case 413: return "Content Too Large";
    case 416: return "Range Not Satisfiable";
    case 421: return "Misdirected Request";
    case 422: return "Unprocessable Content";
    case 431: return "Request Header Fields Too Large";
    case 503: return "Service Unavailable";
    case 507: return "Insufficient Storage";
    default: return "Error";
  }
}

HttpConnection::HttpConnection() : deadline_(&HttpConnection::on_deadline) {
  recv_.handler = &HttpConnection::on_recv;
  send_.handler = &HttpConnection::on_send;
  recv_.connection = send_.connection = deadline_.connection = this;
  buffer_ = std::make_unique<char[]>(buffer_bytes);
}

Reactor& HttpConnection::reactor() { return *server_->home_; }

void HttpConnection::start(int fd) {
  fd_ = fd;
  begin_ = end_ = 0;
  wait_for_head(HttpServer::head_ns);
  begin_recv();
}

void HttpConnection::wait_for_head(uint64_t patience_ns) {
  phase_ = Phase::head;
  head_begun_ = false;
  parser_.reset();
  set_deadline(patience_ns);
}

void HttpConnection::set_deadline(uint64_t patience_ns) {
  if (deadline_.armed()) reactor().cancel(deadline_);
  reactor().arm(deadline_, patience_ns);
  waits_since_ns_ = reactor().now_ns();
}

uint64_t HttpConnection::waited_ns() const {
  const bool waits = phase_ == Phase::exchange || phase_ == Phase::refusal;
  return waits && deadline_.armed() ? server_->home_->now_ns() - waits_since_ns_ : 0;
}

void HttpConnection::on_deadline(Timer& timer) { static_cast<Deadline&>(timer).connection->close(); }

void HttpConnection::begin_recv() {
  if (recv_.cqes_owed > 0) return;
  if (begin_ > 0) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  BC_ASSERT(end_ < buffer_bytes);
  prep_recv(reactor().prepare(recv_), FileRef::fd(fd_), buffer_.get() + end_,
            static_cast<uint32_t>(buffer_bytes - end_), 0);
}

void HttpConnection::on_recv(Op& op, int32_t result, uint32_t) {
  HttpConnection& self = *static_cast<OnConnection&>(op).connection;
  if (self.phase_ == Phase::closing) return self.end_if_quiet();
  if (result <= 0) return self.close();
  if (self.phase_ == Phase::lingering) return self.begin_recv();
  self.end_ += static_cast<size_t>(result);
  if (self.phase_ == Phase::head) {
    // Once a request: a head that comes byte by byte has no longer.
    if (!std::exchange(self.head_begun_, true)) self.set_deadline(HttpServer::head_ns);
    return self.parse_head();
  }
  self.set_deadline(HttpServer::stall_ns);
  self.pump_body();
}

void HttpConnection::parse_head() {
  size_t used = 0;
  const HttpParser::Step step = parser_.parse(buffered(), &used);
  begin_ += used;
  switch (step) {
    case HttpParser::Step::head: return begin_exchange();
    case HttpParser::Step::too_long: return refuse(431, "the head of the request is longer than 8 KiB");
    case HttpParser::Step::more: return is_full() ? refuse(431, "the head of the request is too long") : begin_recv();
    default: return refuse(400, "this is no HTTP request");
  }
}

void HttpConnection::begin_exchange() {
  unlink();
  server_->busy_.push_back(*this);
  keep_alive_ = head().keep_alive;
  continue_owed_ = head().field("expect") == "100-continue";
  if (!server_->is_called(head())) return refuse(421, "ask for localhost or 127.0.0.1: this node has no other name");
  if (!server_->may(head())) return refuse(401, "a bearer token is asked for: the one in http.secret_file");
  HttpRoutes::Answer answer = server_->options_.routes->route(head());
  if (answer.exchange == nullptr) return refuse(answer.status, answer.why);
  phase_ = Phase::exchange;
  // Who answers may take his time; only what moves on the wire has a deadline.
  if (deadline_.armed()) reactor().cancel(deadline_);
  exchange_ = answer.exchange.release();
  wants_body_ = false;
  exchange_->start(*this);
}

// Nobody's exchange: the whole answer at once, and the end of the connection, whatever else was sent on it.
void HttpConnection::refuse(unsigned status, std::string_view why) {
  if (linked()) unlink();
  server_->busy_.push_back(*this);
  phase_ = Phase::refusal;
  head_text_ = fmt::format(
      "HTTP/1.1 {} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{}{}Connection: "
      "close\r\n\r\n{}\n",
      status, http_reason(status), why.size() + 1, no_sniffing, status == 401 ? "WWW-Authenticate: Bearer\r\n" : "",
      why);
  head_left_ = head_text_;
  set_deadline(HttpServer::stall_ns);
  if (send_.cqes_owed == 0) begin_send();
}

void HttpConnection::receive() {
  BC_ASSERT(phase_ == Phase::exchange && !wants_body_);
  wants_body_ = true;
  if (!pumping_) pump_body();
}

// Hands on what has come while the exchange asks for more; a call from within only leaves the wish.
void HttpConnection::pump_body() {
  pumping_ = true;
  while (wants_body_ && phase_ == Phase::exchange) {
    size_t used = 0;
    const HttpParser::Step step = parser_.parse(buffered(), &used);
    begin_ += used;
    // A chunk's head that does not end fills the buffer.
    if (step == HttpParser::Step::more && !is_full()) {
      if (continue_owed_ && head_text_.empty()) {
        interim_left_ = go_on;
        begin_send();
      }
      continue_owed_ = false;
      set_deadline(HttpServer::stall_ns);
      begin_recv();
      break;
    }
    if (step != HttpParser::Step::body && step != HttpParser::Step::end) {
      close();
      break;
    }
    wants_body_ = false;
    exchange_->on_body(parser_.piece(), parser_.done());
  }
  pumping_ = false;
  if (!wants_body_ && phase_ == Phase::exchange && send_.cqes_owed == 0 && deadline_.armed()) {
    reactor().cancel(deadline_);
  }
}

void HttpConnection::begin_response(const HttpResponse& response) {
  BC_ASSERT(phase_ == Phase::exchange && head_text_.empty());
  // A body that was not read to its end leaves no place for another request.
  // One who asks without end gives his place to a newcomer between two requests.
  keep_alive_ = keep_alive_ && parser_.done() && !server_->stopping_ && server_->waiting_fd_ < 0;
  head_text_ = fmt::format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}{}{}\r\n", response.status,
                           http_reason(response.status), response.content_type, response.content_length, no_sniffing,
                           response.fields, keep_alive_ ? "" : "Connection: close\r\n");
  head_left_ = head_text_;
}

void HttpConnection::send(std::string_view piece, bool last) {
  BC_ASSERT(phase_ == Phase::exchange && !send_owed_ && !head_text_.empty());
  BC_ASSERT(!piece.empty() || !head_left_.empty());
  piece_left_ = piece;
  piece_is_last_ = last;
  send_owed_ = true;
  set_deadline(HttpServer::stall_ns);
  if (send_.cqes_owed == 0) begin_send();
}

void HttpConnection::begin_send() {
  for (std::string_view* left : {&interim_left_, &head_left_, &piece_left_}) {
    sending_ = left;
    if (!left->empty()) break;
  }
  const bool more = sending_ == &head_left_ && !piece_left_.empty();
  const auto bytes = static_cast<uint32_t>(std::min<size_t>(sending_->size(), send_bytes_max));
  prep_send(reactor().prepare(send_), FileRef::fd(fd_), sending_->data(), bytes, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
}

void HttpConnection::on_send(Op& op, int32_t result, uint32_t) {
  HttpConnection& self = *static_cast<OnConnection&>(op).connection;
  if (self.phase_ == Phase::closing) return self.end_if_quiet();
  if (result < 0) return self.close();
  self.sending_->remove_prefix(static_cast<size_t>(result));
  const bool response_begun = self.send_owed_ || self.phase_ == Phase::refusal;
  if (!self.interim_left_.empty() || (response_begun && (!self.head_left_.empty() || !self.piece_left_.empty()))) {
    self.set_deadline(HttpServer::stall_ns);
    return self.begin_send();
  }
  if (self.phase_ == Phase::refusal) return self.linger();
  if (!self.send_owed_) return;  // it was the interim answer
  self.send_owed_ = false;
  if (self.piece_is_last_) return self.end_response();
  if (self.deadline_.armed()) self.reactor().cancel(self.deadline_);
  self.exchange_->on_sent();
}

void HttpConnection::end_response() {
  head_text_.clear();
  end_exchange();
  if (!keep_alive_ || server_->waiting_fd_ >= 0) return linger();
  unlink();
  server_->silent_.push_back(*this);
  wait_for_head(HttpServer::idle_ns);
  // The next request may have come with this one.
  if (!buffered().empty()) return parse_head();
  begin_recv();
}

void HttpConnection::end_exchange() {
  if (exchange_ == nullptr) return;
  HttpExchange* const exchange = exchange_;
  exchange_ = nullptr;
  wants_body_ = false;
  exchange->on_over();
}

void HttpConnection::linger() {
  phase_ = Phase::lingering;
  shutdown(fd_, SHUT_WR);
  set_deadline(HttpServer::linger_ns);
  begin_ = end_ = 0;
  begin_recv();
}

void HttpConnection::close() {
  if (phase_ == Phase::closing || phase_ == Phase::free) return;
  phase_ = Phase::closing;
  if (deadline_.armed()) reactor().cancel(deadline_);
  end_exchange();
  shutdown(fd_, SHUT_RDWR);
  end_if_quiet();
}

void HttpConnection::end_if_quiet() {
  if (recv_.cqes_owed > 0 || send_.cqes_owed > 0) return;
  head_text_.clear();
  interim_left_ = head_left_ = piece_left_ = {};
  send_owed_ = false;
  server_->close_fd(fd_);
  fd_ = -1;
  phase_ = Phase::free;
  unlink();
  server_->on_free(*this);
}

}  // namespace blobcache::node
