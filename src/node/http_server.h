// HttpServer: HTTP/1.1 on the ring of one core, for what people and monitors ask of a node, and for the content store.
//   Owner     Node.   Thread  open() on the main thread; everything else the core's
//   Lifetime  longer than the core: what hangs in a connection may still be written when it has ended
//   Limits    connections_max at a time: beyond it the one that has said nothing for longest is closed for the newcomer; where
//             all are being served, the one whose caller has kept it waiting for longest, after patience_ns. Newcomers wait for
//             no longer than that. A request's head has HttpParser::head_bytes_max and head_ns to come; a body or an answer
//             that does not move for stall_ns ends its connection
//   Bodies    a piece of a request's body is read when the exchange asks for it, a piece of an answer is asked for when the one
//             before has gone: neither side makes the other's memory grow
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/list.h"
#include "base/result.h"
#include "node/guest.h"
#include "node/http_parser.h"
#include "ring/timer.h"

namespace blobcache::node {

class HttpServer;
class HttpConnection;

// What answers one request.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  // The head is complete: connection.head(). From here on it may call receive(), begin_response() and send().
  virtual void start(HttpConnection& connection) = 0;
  // A piece of the request's body, once for each receive(); its bytes stay until the next receive(). last: nothing follows.
  virtual void on_body(std::string_view /*piece*/, bool /*last*/) {}
  // What send() was given has gone out, and it was not the last.
  virtual void on_sent() {}
  // The last call: all has gone out, or the connection is gone. From here on the connection may not be called. It deletes
  // itself, now or when what it has in flight has ended.
  virtual void on_over() = 0;
};

struct HttpResponse {
  unsigned status = 200;
  std::string_view content_type = "text/plain; charset=utf-8";
  uint64_t content_length = 0;
  std::string fields{};  // more of them, each "Name: value\r\n"
};

// Says who answers what. A null answer: nobody.
class HttpRoutes {
 public:
  struct Answer {
    std::unique_ptr<HttpExchange> exchange;
    unsigned status = 404;  // without an exchange
    std::string_view why = "there is nothing here";
  };
  virtual Answer route(const HttpHead& head) = 0;
  // Answered without the bearer token: it tells nothing of this node.
  virtual bool is_public(const HttpHead& /*head*/) const { return false; }

 protected:
  ~HttpRoutes() = default;
};

// One connection, as an exchange sees it.
class HttpConnection : public ListNode {
 public:
  const HttpHead& head() const { return parser_.head(); }
  Reactor& reactor();
  // Asks for the next piece of the body.
  void receive();
  // Once. For a HEAD request send() is given nothing.
  void begin_response(const HttpResponse& response);
  // The bytes stay until on_sent() or on_over(). One at a time; last: nothing follows.
  void send(std::string_view piece, bool last);
  // Ends the connection: a response that cannot be completed must not look whole. on_over() is called from within.
  void abort() { close(); }

 private:
  friend class HttpServer;
  static constexpr size_t buffer_bytes = 16 * 1024;
  enum class Phase : uint8_t { free, head, exchange, refusal, lingering, closing };
  struct OnConnection : Op {
    HttpConnection* connection = nullptr;
  };
  struct Deadline : Timer {
    using Timer::Timer;
    HttpConnection* connection = nullptr;
  };

  HttpConnection();
  void start(int fd);
  void wait_for_head(uint64_t patience_ns);
  void begin_recv();
  static void on_recv(Op& op, int32_t result, uint32_t flags);
  void parse_head();
  void begin_exchange();
  void refuse(unsigned status, std::string_view why);
  void pump_body();
  void begin_send();
  static void on_send(Op& op, int32_t result, uint32_t flags);
  void end_response();
  void linger();
  void close();
  void end_if_quiet();
  // How long it has been waiting for its caller; 0: it is at work, or about to end by itself.
  uint64_t waited_ns() const;
  static void on_deadline(Timer& timer);
  void set_deadline(uint64_t patience_ns);
  void end_exchange();
  bool is_full() const { return begin_ == 0 && end_ == buffer_bytes; }
  std::string_view buffered() const { return {buffer_.get() + begin_, end_ - begin_}; }

  HttpServer* server_ = nullptr;
  int fd_ = -1;
  Phase phase_ = Phase::free;
  OnConnection recv_;
  OnConnection send_;
  Deadline deadline_;
  HttpParser parser_;
  std::unique_ptr<char[]> buffer_;
  size_t begin_ = 0;  // what is in the buffer and not parsed
  size_t end_ = 0;
  HttpExchange* exchange_ = nullptr;
  bool wants_body_ = false;
  bool pumping_ = false;
  uint64_t waits_since_ns_ = 0;    // while the deadline is armed
  bool continue_owed_ = false;     // the client waits for "100 Continue"
  std::string_view interim_left_;  // what is to be sent, in this order
  std::string head_text_;          // of the response
  std::string_view head_left_;
  std::string_view piece_left_;
  std::string_view* sending_ = nullptr;  // of these three
  bool send_owed_ = false;               // send() was called and is not answered
  bool piece_is_last_ = false;
  bool keep_alive_ = false;
  bool head_begun_ = false;  // the first bytes of the request have come
};

class HttpServer final : public Guest {
 public:
  static constexpr unsigned connections_max = 128;
  static constexpr uint64_t head_ns = 10'000'000'000;
  static constexpr uint64_t idle_ns = 60'000'000'000;
  static constexpr uint64_t stall_ns = 30'000'000'000;
  static constexpr uint64_t linger_ns = 1'000'000'000;
  static constexpr uint64_t patience_ns = 1'000'000'000;
  // What it may take at most.
  static constexpr uint64_t memory_bytes =
      connections_max * (HttpConnection::buffer_bytes + 2 * HttpParser::head_bytes_max);

  struct Options {
    std::string listen;       // HOST:PORT
    std::string secret_file;  // of the bearer token; needed beyond loopback
    HttpRoutes* routes = nullptr;
  };
  explicit HttpServer(Options options);
  ~HttpServer();

  // Reads the secret, if there is one. message_out: one sentence with cause and remedy.
  Result<void> prepare(std::string* message_out);
  // Listens; the same.
  Result<void> open(std::string* message_out);
  void start(Reactor& home) override;
  void stop() override;

 private:
  friend class HttpConnection;
  struct Accept : Op {
    HttpServer* server = nullptr;
  };
  Result<void> listen_at(std::string_view host, std::string_view port, std::string* message_out);
  bool is_called(const HttpHead& head) const;
  bool may(const HttpHead& head) const;
  void begin_accept();
  static void on_accept(Op& op, int32_t result, uint32_t flags);
  void take(int fd);
  void make_room();
  void on_free(HttpConnection& connection);
  void close_fd(int fd);

  const Options options_;
  std::string secret_;
  int listen_fd_ = -1;
  Reactor* home_ = nullptr;
  Accept accept_;
  struct Again : Timer {
    using Timer::Timer;
    HttpServer* server = nullptr;
  };
  Again accept_again_{+[](Timer& timer) { static_cast<Again&>(timer).server->begin_accept(); }};
  Again room_again_{+[](Timer& timer) { static_cast<Again&>(timer).server->make_room(); }};
  Op close_;
  bool stopping_ = false;
  int waiting_fd_ = -1;                                       // accepted, and no connection is free for it
  std::vector<std::unique_ptr<HttpConnection>> connections_;  // made when they are first needed
  List<HttpConnection> free_;
  List<HttpConnection> silent_;  // no request has come; who has been so for longest is first
  List<HttpConnection> busy_;
};

// The reason that goes with a status.
std::string_view http_reason(unsigned status);

}  // namespace blobcache::node
