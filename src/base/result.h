// Result<T>: a value, or an Error whose code says what the caller should do.
//   Thread    any; a plain value
//   Rule      errno becomes a Code once, in ring/errno.h; a Code becomes a FUSE errno once, in fuse/reply.cc
#pragma once

#include <cstdint>
#include <expected>
#include <string_view>

namespace blobcache {

enum class Code : uint8_t {
  not_found,  // it does not exist; a negative answer may be cached
  again,      // out of something that will come back: wait for it, then repeat
  timeout,    // the deadline passed; another source may be asked
  canceled,   // somebody no longer wants the answer
  io,         // the medium failed; another tier may be asked
  corrupt,    // the bytes are not the ones that were stored: drop them, count them, next tier
  full,       // no space; do without
  stale,      // the object was replaced at the origin and its old bytes are gone
  peer_down,  // the other node does not answer
  denied,     // no permission; the remedy is the operator's
  protocol,   // the other side broke the rules; close and count
  invalid,    // the caller asked for something impossible
  stopping,   // we are shutting down
};
inline constexpr unsigned code_count = 13;

std::string_view code_name(Code code);

struct Error {
  Code code;
  int os_errno = 0;  // 0: none; kept for the log line and for directory origins, whose errno users expect

  friend bool operator==(const Error&, const Error&) = default;
};

template <class T>
class [[nodiscard]] Result : public std::expected<T, Error> {
 public:
  using std::expected<T, Error>::expected;
};

inline std::unexpected<Error> fail(Code code, int os_errno = 0) { return std::unexpected(Error{code, os_errno}); }

}  // namespace blobcache
