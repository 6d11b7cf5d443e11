#include "node/content_calls.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <thread>

#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ring/errno.h"

namespace blobcache::node {
namespace {

constexpr int stall_s = 30;  // of a caller who takes nothing

// Words "name=value" behind an id.
struct Words {
  explicit Words(std::string_view text) : rest(text) {}
  std::string_view take() {
    const size_t space = rest.find(' ');
    const std::string_view word = rest.substr(0, space);
    rest.remove_prefix(space == std::string_view::npos ? rest.size() : space + 1);
    return word;
  }
  std::string_view rest;
};

std::optional<uint64_t> number_of(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

std::optional<BlobStore::Put> parse_put(std::string_view arguments) {
  BlobStore::Put put;
  for (Words words(arguments); !words.rest.empty();) {
    const std::string_view word = words.take();
    const size_t sign = word.find('=');
    if (sign == std::string_view::npos) return std::nullopt;
    const std::string_view name = word.substr(0, sign);
    const std::string_view value = word.substr(sign + 1);
    if (name == "id") {
      put.expected = parse_blob_id(value);
      if (!put.expected) return std::nullopt;
      continue;
    }
    const std::optional<uint64_t> number = number_of(value);
    if (!number) return std::nullopt;
    if (name == "ttl") {
      put.life.ttl_s = static_cast<int64_t>(std::min(*number, uint64_t{1} << 40));
    } else if (name == "pin") {
      put.life.pinned = *number != 0;
    } else if (name == "bytes") {
      put.bytes = *number;
    } else {
      return std::nullopt;
    }
  }
  return put;
}

std::string error_line(Code code, std::string_view sentence) {
  return fmt::format("error {}: {}\n", code_name(code), sentence);
}

constexpr std::string_view bad_line = "the daemon does not understand this command; use the blobcache that started it";
constexpr std::string_view no_blob = "there is no such blob in the content store";

std::string read_problem(const Error& error) {
  if (error.code == Code::not_found) return std::string(no_blob);
  if (error.code == Code::corrupt) return "the blob is damaged on disk and was set aside; store it again";
  return fmt::format("the disk of the content store failed: {}", std::strerror(error.os_errno));
}

bool send_all(int socket_fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = send(socket_fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return true;
}

}  // namespace

void ContentCalls::add_to(Control& control) {
  const auto add = [&](const char* word, Answer answer) {
    control.add_taker(word, [this, answer](const Control::Call& call) { take(call, answer); });
  };
  add("put", &ContentCalls::put);
  add("get", &ContentCalls::get);
  add("has", &ContentCalls::has);
  add("remove", &ContentCalls::remove);
}

void ContentCalls::take(const Control::Call& call, Answer answer) {
  const timeval timeout{.tv_sec = stall_s, .tv_usec = 0};
  setsockopt(call.socket_fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  std::string refusal;
  {
    const std::lock_guard guard(mutex_);
    if (!content_.is_open()) {
      refusal = error_line(Code::full,
                           "this node has no content store: give it a share of a cache.disk with "
                           "cache.blobs_reserved");
    } else if (stopping_) {
      refusal = error_line(Code::stopping, "the node is stopping");
    } else if (sockets_.size() >= calls_max) {
      refusal = error_line(Code::again, fmt::format("{} calls are under way, which is the most; repeat it", calls_max));
    } else {
      sockets_.insert(call.socket_fd);
    }
  }
  if (refusal.empty()) {
    sigset_t all{};
    sigset_t before{};
    sigfillset(&all);  // signals belong to the main thread
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread([this, call, answer] { run(call, answer); }).detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return;
  }
  send_all(call.socket_fd, std::as_bytes(std::span(refusal)));
  if (call.passed_fd >= 0) ::close(call.passed_fd);
  ::close(call.socket_fd);
}

void ContentCalls::run(const Control::Call& call, Answer answer) {
  pthread_setname_np(pthread_self(), "bc-content");
  const std::string line = (this->*answer)(call);
  send_all(call.socket_fd, std::as_bytes(std::span(line)));
  if (call.passed_fd >= 0) ::close(call.passed_fd);
  const std::lock_guard guard(mutex_);
  sockets_.erase(call.socket_fd);
  ::close(call.socket_fd);
  ended_.notify_all();
}

void ContentCalls::stop() {
  const std::lock_guard guard(mutex_);
  stopping_ = true;
  for (const int fd : sockets_) shutdown(fd, SHUT_RDWR);
}

bool ContentCalls::join(unsigned patience_ms) {
  std::unique_lock lock(mutex_);
  return ended_.wait_for(lock, std::chrono::milliseconds(patience_ms), [this] { return sockets_.empty(); });
}

std::string ContentCalls::put(const Control::Call& call) {
  const std::optional<BlobStore::Put> wanted = parse_put(call.arguments);
  if (!wanted || call.passed_fd < 0) return error_line(Code::invalid, bad_line);
  const auto line = [&](const BlobInfo& info, bool known) {
    if (wanted->life.ttl_s != 0) content_.note_put();
    return fmt::format("ok {} {} {}\n", to_hex(info.id), info.bytes, known ? "known" : "new");
  };
  BlobStore& store = content_.store();
  if (wanted->expected) {  // what is known need not be read
    if (const Result<BlobInfo> known = store.extend(*wanted->expected, wanted->life)) return line(*known, true);
  }
  Result<std::unique_ptr<BlobWriter>> writer = store.begin_put(*wanted);
  if (!writer) return error_line(writer.error().code, content_.put_problem(writer.error()));
  const Result<void> fed = feed(call, **writer);
  if (!fed && fed.error().code == Code::denied) {
    return error_line(Code::denied, fmt::format("the file cannot be read: {}", std::strerror(fed.error().os_errno)));
  }
  if (!fed) return error_line(fed.error().code, content_.put_problem(fed.error()));
  const Result<BlobWriter::Stored> stored = (*writer)->finish();
  if (!stored) return error_line(stored.error().code, content_.put_problem(stored.error()));
  return line(stored->info, stored->known);
}

// Until the end of the file or of the pipe. The caller says nothing more: what can be read from him is his end.
Result<void> ContentCalls::feed(const Control::Call& call, BlobWriter& writer) {
  PageBuffer buffer(serve::Content::piece_bytes);
  while (true) {
    pollfd fds[] = {{call.passed_fd, POLLIN, 0}, {call.socket_fd, POLLIN | POLLRDHUP, 0}};
    if (poll(fds, std::size(fds), -1) < 0 && errno != EINTR) return std::unexpected(error_from_errno(errno));
    if (fds[1].revents != 0) return fail(Code::stopping);
    if (fds[0].revents == 0) continue;
    const ssize_t count = ::read(call.passed_fd, buffer.data(), buffer.bytes().size());
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count < 0) return fail(Code::denied, errno);
    if (count == 0) return {};
    const Result<void> added = writer.append(buffer.bytes().first(static_cast<size_t>(count)));
    if (!added) return added;
  }
}

std::string ContentCalls::get(const Control::Call& call) {
  Words words(call.arguments);
  const std::optional<BlobId> id = parse_blob_id(words.take());
  const std::optional<uint64_t> begin = number_of(words.take());
  const std::optional<uint64_t> end = number_of(words.rest);
  if (!id || !begin || !end) return error_line(Code::invalid, bad_line);
  const Result<std::unique_ptr<BlobReader>> reader = content_.store().open_blob(*id);
  if (!reader) return error_line(reader.error().code, read_problem(reader.error()));
  const uint64_t bytes = (*reader)->info().bytes;
  const uint64_t until = *end == 0 ? bytes : std::min(*end, bytes);
  if (*begin > until || (*begin == bytes && bytes > 0)) {
    return error_line(Code::invalid, fmt::format("the blob has {} bytes: the range lies outside of it", bytes));
  }
  const std::string line = fmt::format("ok {} {}\n", until - *begin, bytes);
  if (!send_all(call.socket_fd, std::as_bytes(std::span(line)))) return "";
  send_blob(call.socket_fd, **reader, *begin, until);
  return "";
}

bool ContentCalls::send_blob(int socket_fd, BlobReader& reader, uint64_t begin, uint64_t end) {
  PageBuffer buffer(serve::Content::piece_bytes);
  while (begin < end) {
    const uint64_t first = begin / limits::block_bytes * limits::block_bytes;
    const uint64_t count = std::min<uint64_t>(buffer.bytes().size(), reader.info().bytes - first);
    if (!reader.read(first, buffer.bytes().first(count))) return false;
    const uint64_t until = std::min(first + count, end);
    if (!send_all(socket_fd, buffer.bytes().subspan(begin - first, until - begin))) return false;
    begin = until;
  }
  return true;
}

std::string ContentCalls::has(const Control::Call& call) {
  const std::optional<BlobId> id = parse_blob_id(call.arguments);
  if (!id) return error_line(Code::invalid, bad_line);
  const std::optional<BlobInfo> info = content_.store().find(*id);
  if (!info) return error_line(Code::not_found, no_blob);
  return fmt::format("ok {} {} {} {}\n", info->bytes, info->stored_s, info->expires_s, info->pinned ? 1 : 0);
}

std::string ContentCalls::remove(const Control::Call& call) {
  Words words(call.arguments);
  const std::optional<BlobId> id = parse_blob_id(words.take());
  if (!id || (!words.rest.empty() && words.rest != "pinned=1")) return error_line(Code::invalid, bad_line);
  const Result<void> removed = content_.store().remove(*id, !words.rest.empty());
  if (removed) return "ok\n";
  if (removed.error().code == Code::denied) return error_line(Code::denied, "the blob is pinned; add --pinned");
  return error_line(removed.error().code, read_problem(removed.error()));
}

}  // namespace blobcache::node
