// TopTerminal: the screen while top has it, and its keys; given back as it was, whatever ends the program in order.
//   Owner     top.   Thread  main
//   Signals   blocked and read from a descriptor while it lives, so that none can end the program with the screen taken
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <signal.h>
#include <termios.h>

namespace blobcache::cli {

struct TerminalSize {
  unsigned columns = 80;
  unsigned rows = 24;
};
// Of standard output; the default where it is no terminal.
TerminalSize terminal_size();

class TopTerminal {
 public:
  enum class Event : uint8_t { none, redraw, end };

  TopTerminal();
  ~TopTerminal();
  TopTerminal(const TopTerminal&) = delete;
  TopTerminal& operator=(const TopTerminal&) = delete;

  // Over what is there, no more lines than rows.
  void draw(const std::vector<std::string>& lines, unsigned rows);
  // Waits for a key, a signal or the time. none: the time is over.
  Event wait(int timeout_ms);
  // The signal that ended it; 0: a key did.
  int ended_by() const { return ended_by_; }

 private:
  void take();
  void give_back();
  Event on_keys();
  Event on_signal();

  bool keys_ = false;  // standard input is a terminal of ours
  int signal_fd_ = -1;
  int ended_by_ = 0;
  termios before_{};
  sigset_t signals_before_{};
};

}  // namespace blobcache::cli
