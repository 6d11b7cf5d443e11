// Outcome: how a step of the start, or a whole command, ended.
//   Thread    a plain value
#pragma once

#include <string>
#include <utility>

namespace blobcache::node {

struct Outcome {
  int exit_code = 0;    // 0 done, 1 failed, 3 the machine lacks something
  std::string message;  // one sentence: what, why, what to do; empty when exit_code is 0
};

inline Outcome failed(std::string message) { return Outcome{.exit_code = 1, .message = std::move(message)}; }
inline Outcome lacking(std::string message) { return Outcome{.exit_code = 3, .message = std::move(message)}; }

}  // namespace blobcache::node
