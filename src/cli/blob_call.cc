#include "cli/blob_call.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/blob_id.h"
#include "cli/command.h"
#include "cli/node_choice.h"

namespace blobcache::cli {
namespace {

constexpr size_t line_bytes_max = 4096;
constexpr const char* hung_up = "the node ended before it had answered; look at its log";

// One byte at least goes with a descriptor, so both go at once.
bool send_line(int socket_fd, const std::string& line, int passed_fd) {
  iovec piece{.iov_base = const_cast<char*>(line.data()), .iov_len = line.size()};
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof passed_fd)] = {};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (passed_fd >= 0) {
    message.msg_control = space;
    message.msg_controllen = sizeof space;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof passed_fd);
    std::memcpy(CMSG_DATA(header), &passed_fd, sizeof passed_fd);
  }
  return sendmsg(socket_fd, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(line.size());
}

}  // namespace

BlobCall::~BlobCall() {
  if (fd_ >= 0) close(fd_);
}

node::Outcome BlobCall::begin(const std::string& node, const std::string& line, int passed_fd) {
  std::string path;
  node::Outcome chosen = choose_node(node, &path);
  if (chosen.exit_code != 0) return chosen;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof address.sun_path - 1));
  fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd_ < 0 || connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      !send_line(fd_, line + "\n", passed_fd)) {
    return {exit_failed, fmt::format("the node at {} cannot be asked: {}", path, std::strerror(errno))};
  }
  return {};
}

node::Outcome BlobCall::wait(std::vector<std::string>* words_out, bool* not_found_out) {
  size_t end = std::string::npos;
  while ((end = buffered_.find('\n')) == std::string::npos) {
    char buffer[line_bytes_max];
    const ssize_t count = recv(fd_, buffer, sizeof buffer, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0 || buffered_.size() > line_bytes_max) return {exit_failed, hung_up};
    buffered_.append(buffer, static_cast<size_t>(count));
  }
  std::string_view line = std::string_view(buffered_).substr(0, end);
  node::Outcome outcome;
  if (constexpr std::string_view error = "error "; line.starts_with(error)) {
    line.remove_prefix(error.size());
    const size_t colon = line.find(": ");
    if (not_found_out != nullptr) *not_found_out = line.substr(0, colon) == "not_found";
    outcome = {exit_failed, std::string(colon == std::string_view::npos ? line : line.substr(colon + 2))};
  } else {
    words_out->clear();
    for (size_t at = 0; at < line.size();) {
      const size_t space = std::min(line.find(' ', at), line.size());
      words_out->emplace_back(line.substr(at, space - at));
      at = space + 1;
    }
    if (words_out->empty() || words_out->front() != "ok") return {exit_failed, hung_up};
    words_out->erase(words_out->begin());
  }
  buffered_.erase(0, end + 1);
  return outcome;
}

ssize_t BlobCall::read(std::span<char> to) {
  if (!buffered_.empty()) {
    const size_t count = std::min(to.size(), buffered_.size());
    std::memcpy(to.data(), buffered_.data(), count);
    buffered_.erase(0, count);
    return static_cast<ssize_t>(count);
  }
  ssize_t count = 0;
  do {
    count = recv(fd_, to.data(), to.size(), 0);
  } while (count < 0 && errno == EINTR);
  return count < 0 ? -errno : count;
}

std::string check_blob_id(std::string* hex) {
  const std::optional<BlobId> id = parse_blob_id(*hex);
  if (!id) return fmt::format("'{}' is no blob's id: give the 64 hex digits of its SHA-256", hex->substr(0, 80));
  *hex = to_hex(*id);
  return "";
}

std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace blobcache::cli
