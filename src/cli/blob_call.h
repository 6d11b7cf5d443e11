// BlobCall: one command of the content store on a node's control socket (node/content_calls.h has the words).
//   Thread    main
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "node/outcome.h"

namespace blobcache::cli {

class BlobCall {
 public:
  ~BlobCall();
  BlobCall() = default;
  BlobCall(const BlobCall&) = delete;
  BlobCall& operator=(const BlobCall&) = delete;

  // Chooses the node, sends the line, with the descriptor when it is not -1.
  node::Outcome begin(const std::string& node, const std::string& line, int passed_fd);
  // Waits for the first line of the answer, however long that takes, and gives the words behind "ok". not_found_out: the answer
  // is that there is no such blob.
  node::Outcome wait(std::vector<std::string>* words_out, bool* not_found_out);
  // What follows the line. 0: the end; negative: errno.
  ssize_t read(std::span<char> to);

 private:
  int fd_ = -1;
  std::string buffered_;  // read behind the line
};

// Empty, or the sentence for who gave something else than 64 hex digits. *hex: in lower case afterwards.
std::string check_blob_id(std::string* hex);
std::optional<uint64_t> parse_number(std::string_view text);

}  // namespace blobcache::cli
