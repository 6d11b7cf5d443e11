// Interrupt: SIGINT and SIGTERM as a question that the command asks, in place of its end.
//   Thread    constructed by main, one at a time; interrupted() from any
//   Signals   the first one is noted; a second one ends the program at once. What was ignored stays ignored
#pragma once

#include <array>
#include <csignal>

namespace blobcache::cli {

class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // False too where there is none.
  static bool interrupted();

 private:
  static constexpr std::array<int, 2> numbers{SIGINT, SIGTERM};
  std::array<struct sigaction, numbers.size()> before_{};
};

}  // namespace blobcache::cli
