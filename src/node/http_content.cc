// An upload has two buffers of 128 KiB: one is filled from the connection while a helper hashes and writes the other, and who is
// faster waits. A download has one of 256 KiB: read and verified by a helper, sent, and so on.
//
// Helpers and the connection may end in either order: an exchange whose connection is gone waits for what it has at a helper,
// and its upload is thrown away there too, because removing what was staged may wait for the disk.
#include "node/http_content.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/units.h"

namespace blobcache::node {
namespace {

using serve::Content;

constexpr uint64_t s_ns = 1'000'000'000;
constexpr size_t piece_bytes_max = 16 * limits::KiB;  // of what a connection hands on
constexpr size_t half_bytes = Content::piece_bytes / 2;

struct Wishes {
  BlobStore::Put put;
  std::string_view problem;  // empty: none
};

Wishes read_wishes(const HttpHead& head) {
  Wishes wishes{.put = {.expected = {}, .bytes = head.content_length, .life = {}}, .problem = {}};
  if (const std::string_view expect = head.field("blobcache-expect"); !expect.empty()) {
    wishes.put.expected = parse_blob_id(expect);
    if (!wishes.put.expected) wishes.problem = "Blobcache-Expect is no SHA-256 of 64 hex digits";
  }
  if (const std::string_view ttl = head.field("blobcache-ttl"); !ttl.empty()) {
    const Parsed<uint64_t> ns = parse_duration_ns(ttl);
    if (!ns) wishes.problem = "Blobcache-TTL is no duration such as 30min or 7d";
    if (ns) wishes.put.life.ttl_s = static_cast<int64_t>((*ns + s_ns - 1) / s_ns);
  }
  const std::string_view pin = head.field("blobcache-pin");
  wishes.put.life.pinned = pin == "yes";
  if (!pin.empty() && pin != "yes" && pin != "no") wishes.problem = "Blobcache-Pin is neither yes nor no";
  return wishes;
}

unsigned put_status(const Error& error) {
  switch (error.code) {
    case Code::full: return 507;
    case Code::corrupt: return 422;
    case Code::again:
    case Code::stopping: return 503;
    default: return 500;
  }
}

// What all of them have in common: one step at a time at a helper, and an end that waits for it.
class ContentExchange : public HttpExchange {
 public:
  explicit ContentExchange(Content& content) : content_(content) { step_.exchange = this; }
  void start(HttpConnection& connection) final {
    connection_ = &connection;
    home_ = &connection.reactor();
    begin();
  }
  void on_over() final {
    over_ = true;
    if (!step_.running) end();
  }

 protected:
  using Action = void (*)(ContentExchange& self);

  virtual void begin() = 0;
  // Nothing runs, and the connection is gone.
  virtual void end() { delete this; }

  // work on a helper, then done on the core, unless the connection has gone meanwhile.
  void run_step(Action work, Action done) {
    BC_ASSERT(!step_.running);
    step_.running = true;
    step_.work = work;
    step_.done = done;
    step_.run = [](BlockingCall& call) {
      auto& step = static_cast<Step&>(call);
      step.work(*step.exchange);
    };
    step_.handler = [](Op& op, int32_t, uint32_t) {
      auto& step = static_cast<Step&>(op);
      step.running = false;
      if (step.exchange->over_) return step.exchange->end();
      step.done(*step.exchange);
    };
    if (content_.begin(*home_, step_)) return;
    step_.running = false;
    if (over_) return end_unhelped();
    // An answer that has begun must not look whole. The exchange is gone afterwards.
    if (begun()) return connection_->abort();
    answer(503, "the node is stopping\n");
  }
  bool running() const { return step_.running; }
  // Its answer, or the beginning of it, has been handed to the connection.
  virtual bool begun() const { return answered_; }
  // No helper takes it any more: the node is stopping.
  void end_unhelped() { delete this; }

  void answer(unsigned status, std::string text, std::string fields = {}) {
    answered_ = true;
    text_ = std::move(text);
    connection_->begin_response({.status = status, .content_length = text_.size(), .fields = std::move(fields)});
    connection_->send(connection_->head().is_head() ? std::string_view() : text_, true);
  }

  Content& content_;
  HttpConnection* connection_ = nullptr;
  Reactor* home_ = nullptr;
  bool answered_ = false;

 private:
  struct Step : BlockingCall {
    ContentExchange* exchange = nullptr;
    Action work = nullptr;
    Action done = nullptr;
    bool running = false;
  };
  Step step_;
  bool over_ = false;
  std::string text_;
};

class UploadExchange final : public ContentExchange {
 public:
  UploadExchange(Content& content, const BlobStore::Put& put) : ContentExchange(content), put_(put) {}
  void on_body(std::string_view piece, bool last) override {
    if (answered_) return;  // it asked for this piece before it failed
    Half& half = halves_[filling_];
    BC_ASSERT(half.bytes + piece.size() <= half_bytes);
    std::memcpy(half.buffer->data() + half.bytes, piece.data(), piece.size());
    half.bytes += piece.size();
    last_ = last;
    full_ = last || half_bytes - half.bytes < piece_bytes_max;
    if (!full_) return connection_->receive();
    if (!running()) write_half();
  }

 private:
  struct Half {
    std::optional<PageBuffer> buffer;
    size_t bytes = 0;
  };

  void begin() override {
    // With its name given, what is known need not come again.
    if (put_.expected && content_.store().find(*put_.expected)) {
      return run_step(
          [](ContentExchange& exchange) {
            auto& self = static_cast<UploadExchange&>(exchange);
            const Result<BlobInfo> known = self.content_.store().extend(*self.put_.expected, self.put_.life);
            self.stored_ =
                known ? Result<BlobWriter::Stored>({.info = *known, .known = true}) : std::unexpected(known.error());
          },
          [](ContentExchange& exchange) { static_cast<UploadExchange&>(exchange).on_known(); });
    }
    open();
  }
  void on_known() {
    if (stored_) return answer_stored();
    open();  // it has just gone
  }
  void open() {
    run_step(
        [](ContentExchange& exchange) {
          auto& self = static_cast<UploadExchange&>(exchange);
          self.writer_ = self.content_.store().begin_put(self.put_);
        },
        [](ContentExchange& exchange) { static_cast<UploadExchange&>(exchange).on_open(); });
  }
  void on_open() {
    if (!writer_) return fail_with(writer_.error());
    for (Half& half : halves_) half.buffer.emplace(half_bytes);
    connection_->receive();
  }

  // The half that is full goes to a helper, and the other one is filled.
  void write_half() {
    writing_ = filling_;
    filling_ = 1 - filling_;
    full_ = false;
    const bool more = !last_;
    run_step(
        [](ContentExchange& exchange) {
          auto& self = static_cast<UploadExchange&>(exchange);
          Half& half = self.halves_[self.writing_];
          self.written_ = (*self.writer_)->append(half.buffer->bytes().first(half.bytes));
        },
        [](ContentExchange& exchange) { static_cast<UploadExchange&>(exchange).on_written(); });
    if (more && running()) connection_->receive();
  }
  void on_written() {
    halves_[writing_].bytes = 0;
    if (!written_) return fail_with(written_.error());
    if (full_) return write_half();
    if (!last_) return;
    run_step(
        [](ContentExchange& exchange) {
          auto& self = static_cast<UploadExchange&>(exchange);
          self.stored_ = (*self.writer_)->finish();
        },
        [](ContentExchange& exchange) { static_cast<UploadExchange&>(exchange).on_finished(); });
  }
  void on_finished() {
    if (!stored_) return fail_with(stored_.error());
    answer_stored();
  }
  void answer_stored() {
    if (put_.life.ttl_s != 0) content_.note_put();
    const std::string id = to_hex(stored_->info.id);
    answer(stored_->known ? 200 : 201, id + "\n", fmt::format("Location: {}/{}\r\n", ContentRoutes::path, id));
  }
  void fail_with(const Error& error) { answer(put_status(error), content_.put_problem(error) + "\n"); }

  void end() override {
    if (!writer_ || *writer_ == nullptr) return end_unhelped();
    run_step([](ContentExchange& exchange) { (*static_cast<UploadExchange&>(exchange).writer_).reset(); }, nullptr);
  }

  const BlobStore::Put put_;
  Result<std::unique_ptr<BlobWriter>> writer_ = nullptr;
  Half halves_[2];
  unsigned filling_ = 0;
  unsigned writing_ = 0;
  bool full_ = false;  // the half that is being filled waits for the other
  bool last_ = false;  // all of the body has come
  Result<void> written_;
  Result<BlobWriter::Stored> stored_ = std::unexpected(Error{Code::not_found});
};

struct Download {
  BlobInfo info;
  HttpRange range;
  bool head = false;
};

std::string fields_of(const Download& download) {
  std::string fields = fmt::format(
      "Accept-Ranges: bytes\r\nETag: \"{}\"\r\nCache-Control: private, max-age=31536000, immutable\r\n"
      "X-Content-Type-Options: nosniff\r\n",
      to_hex(download.info.id));
  if (download.range.kind == HttpRange::Kind::part) {
    fields += fmt::format("Content-Range: bytes {}-{}/{}\r\n", download.range.begin, download.range.end - 1,
                          download.info.bytes);
  }
  return fields;
}

class DownloadExchange final : public ContentExchange {
 public:
  DownloadExchange(Content& content, const Download& download, unsigned& downloads)
      : ContentExchange(content), download_(download), downloads_(downloads), at_(download.range.begin) {
    ++downloads_;
  }
  ~DownloadExchange() override { --downloads_; }
  void on_sent() override { read(); }

 private:
  void begin() override {
    if (download_.range.kind == HttpRange::Kind::none) {
      return answer(416, "the range lies outside of the blob\n",
                    fmt::format("Content-Range: bytes */{}\r\n", download_.info.bytes));
    }
    if (download_.head || download_.range.begin == download_.range.end) return respond({}, true);
    read();
  }
  void respond(std::string_view piece, bool last) {
    if (!responded_) {
      responded_ = true;
      connection_->begin_response({.status = download_.range.kind == HttpRange::Kind::part ? 206u : 200u,
                                   .content_type = "application/octet-stream",
                                   .content_length = download_.range.end - download_.range.begin,
                                   .fields = fields_of(download_)});
    }
    connection_->send(piece, last);
  }

  void read() {
    run_step([](ContentExchange& exchange) { static_cast<DownloadExchange&>(exchange).read_piece(); },
             [](ContentExchange& exchange) { static_cast<DownloadExchange&>(exchange).on_piece(); });
  }
  // On a helper. From the start of the block that at_ lies in.
  void read_piece() {
    if (reader_ && *reader_ == nullptr) reader_ = content_.store().open_blob(download_.info.id);
    if (!reader_) {
      read_ = std::unexpected(reader_.error());
      return;
    }
    if (!buffer_) buffer_.emplace(Content::piece_bytes);
    block_begin_ = at_ / limits::block_bytes * limits::block_bytes;
    const uint64_t bytes = std::min<uint64_t>(Content::piece_bytes, download_.info.bytes - block_begin_);
    piece_end_ = std::min(block_begin_ + bytes, download_.range.end);
    // No more blocks than are sent.
    const uint64_t blocks_end = std::min(
        (piece_end_ + limits::block_bytes - 1) / limits::block_bytes * limits::block_bytes, download_.info.bytes);
    read_ = (*reader_)->read(block_begin_, buffer_->bytes().first(blocks_end - block_begin_));
  }
  void on_piece() {
    if (!read_) {
      // An answer that has begun must not look whole.
      if (responded_) return connection_->abort();
      if (read_.error().code == Code::not_found) return answer(404, "there is no such blob\n");
      if (read_.error().code == Code::corrupt) {
        return answer(500, "the blob is damaged on disk and was set aside; store it again\n");
      }
      return answer(500, "the disk of the content store failed\n");
    }
    const auto* bytes = reinterpret_cast<const char*>(buffer_->data()) + (at_ - block_begin_);
    const std::string_view piece(bytes, piece_end_ - at_);
    at_ = piece_end_;
    respond(piece, at_ == download_.range.end);
  }
  bool begun() const override { return responded_ || answered_; }
  // The last descriptor of a removed blob frees its room.
  void end() override {
    if (!reader_ || *reader_ == nullptr) return end_unhelped();
    run_step([](ContentExchange& exchange) { (*static_cast<DownloadExchange&>(exchange).reader_).reset(); }, nullptr);
  }

  const Download download_;
  unsigned& downloads_;
  uint64_t at_;  // the next byte to be sent
  uint64_t block_begin_ = 0;
  uint64_t piece_end_ = 0;
  bool responded_ = false;
  Result<std::unique_ptr<BlobReader>> reader_ = nullptr;
  std::optional<PageBuffer> buffer_;
  Result<void> read_;
};

class RemovalExchange final : public ContentExchange {
 public:
  RemovalExchange(Content& content, const BlobId& id, bool pinned_too)
      : ContentExchange(content), id_(id), pinned_too_(pinned_too) {}

 private:
  void begin() override {
    run_step(
        [](ContentExchange& exchange) {
          auto& self = static_cast<RemovalExchange&>(exchange);
          self.removed_ = self.content_.store().remove(self.id_, self.pinned_too_);
        },
        [](ContentExchange& exchange) { static_cast<RemovalExchange&>(exchange).on_removed(); });
  }
  void on_removed() {
    if (removed_) return answer(200, "removed\n");
    if (removed_.error().code == Code::not_found) return answer(404, "there is no such blob\n");
    if (removed_.error().code == Code::denied) return answer(409, "the blob is pinned; add ?pinned=yes\n");
    answer(500, "the disk of the content store failed\n");
  }

  const BlobId id_;
  const bool pinned_too_;
  Result<void> removed_;
};

HttpRoutes::Answer refuse(unsigned status, std::string_view why) {
  return {.exchange = nullptr, .status = status, .why = why};
}

}  // namespace

HttpRange parse_range(std::string_view field, uint64_t bytes) {
  const HttpRange whole{.kind = HttpRange::Kind::whole, .begin = 0, .end = bytes};
  constexpr std::string_view unit = "bytes=";
  if (!field.starts_with(unit)) return whole;
  field.remove_prefix(unit.size());
  const size_t dash = field.find('-');
  if (dash == std::string_view::npos) return whole;
  const std::string_view first = field.substr(0, dash);
  const std::string_view last = field.substr(dash + 1);
  const auto number = [](std::string_view text) { return parse_count(text, 0, ~uint64_t{0} >> 1); };
  if (first.empty()) {  // the last so many bytes
    const Parsed<uint64_t> count = number(last);
    if (!count) return whole;
    if (*count == 0 || bytes == 0) return {.kind = HttpRange::Kind::none};
    return {.kind = HttpRange::Kind::part, .begin = bytes - std::min(bytes, *count), .end = bytes};
  }
  const Parsed<uint64_t> begin = number(first);
  const Parsed<uint64_t> until = last.empty() ? Parsed<uint64_t>(~uint64_t{0} >> 1) : number(last);
  if (!begin || !until || *until < *begin) return whole;
  if (*begin >= bytes) return {.kind = HttpRange::Kind::none};
  return {.kind = HttpRange::Kind::part, .begin = *begin, .end = std::min(bytes - 1, *until) + 1};
}

HttpRoutes::Answer ContentRoutes::route(const HttpHead& head) {
  if (!content_.is_open()) {
    return refuse(507, "this node has no content store: give it a share of a cache.disk with cache.blobs_reserved");
  }
  const std::string_view rest = head.path().substr(path.size());
  if (rest.empty()) {
    if (head.method != "PUT") return refuse(405, "blobs are stored here with PUT, and read by their SHA-256");
    const Wishes wishes = read_wishes(head);
    if (!wishes.problem.empty()) return refuse(400, wishes.problem);
    return {.exchange = std::make_unique<UploadExchange>(content_, wishes.put)};
  }
  const std::optional<BlobId> id = parse_blob_id(rest.substr(1));
  if (!id) return refuse(400, "a blob is named by the 64 hex digits of its SHA-256");
  if (head.method == "DELETE") {
    return {.exchange = std::make_unique<RemovalExchange>(content_, *id, head.query() == "pinned=yes")};
  }
  if (head.method != "GET" && !head.is_head()) return refuse(405, "a blob can be read and removed: GET, HEAD, DELETE");
  const std::optional<BlobInfo> info = content_.store().find(*id);
  if (!info) return refuse(404, "there is no such blob");
  if (downloads_ >= Content::downloads_max) return refuse(503, "as many blobs as can be are being read; repeat it");
  std::string_view range = head.field("range");
  const std::string_view if_range = head.field("if-range");
  if (!if_range.empty() && if_range != fmt::format("\"{}\"", to_hex(*id))) range = {};
  const Download download{.info = *info, .range = parse_range(range, info->bytes), .head = head.is_head()};
  return {.exchange = std::make_unique<DownloadExchange>(content_, download, downloads_)};
}

}  // namespace blobcache::node
