// The few sequences that every terminal of today knows; no terminal library. The alternate screen keeps what was there, and
// wrapping is off while it is ours, so that a window that shrinks between two drawings shows cut lines and no broken ones.
#include "cli/top_terminal.h"

#include <cerrno>

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace blobcache::cli {
namespace {

constexpr char take_screen[] = "\033[?1049h\033[?25l\033[?7l\033[2J";
constexpr char give_screen_back[] = "\033[?7h\033[?25h\033[?1049l";
constexpr char key_ctrl_c = 3;
constexpr char key_ctrl_l = 12;
constexpr char key_ctrl_z = 26;

void write_whole(std::string_view text) {
  while (!text.empty()) {
    const ssize_t bytes = write(STDOUT_FILENO, text.data(), text.size());
    if (bytes < 0 && errno != EINTR) return;
    if (bytes > 0) text.remove_prefix(static_cast<size_t>(bytes));
  }
}

}  // namespace

TerminalSize terminal_size() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return {};
  return {.columns = size.ws_col, .rows = size.ws_row};
}

TopTerminal::TopTerminal() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH}) sigaddset(&signals, number);
  sigprocmask(SIG_BLOCK, &signals, &signals_before_);
  signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  // In the background it may write but not set the terminal: SIGTTOU would stop it.
  keys_ = tcgetattr(STDIN_FILENO, &before_) == 0 && tcgetpgrp(STDIN_FILENO) == getpgrp();
  take();
}

TopTerminal::~TopTerminal() {
  give_back();
  close(signal_fd_);
  sigprocmask(SIG_SETMASK, &signals_before_, nullptr);
}

void TopTerminal::take() {
  if (keys_) {
    termios ours = before_;
    ours.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG);
    ours.c_cc[VMIN] = 0;
    ours.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &ours);
  }
  write_whole(take_screen);
}

void TopTerminal::give_back() {
  write_whole(give_screen_back);
  if (keys_) tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
}

void TopTerminal::draw(const std::vector<std::string>& lines, unsigned rows) {
  std::string out = "\033[H";
  for (size_t i = 0; i < lines.size() && i < rows; ++i) {
    out += i == 0 ? "\033[2K" : "\r\n\033[2K";
    out += lines[i];
  }
  if (lines.size() < rows) out += "\r\n\033[J";
  write_whole(out);
}

TopTerminal::Event TopTerminal::wait(int timeout_ms) {
  pollfd waiting[] = {{.fd = signal_fd_, .events = POLLIN, .revents = 0},
                      {.fd = keys_ ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0}};
  if (poll(waiting, 2, timeout_ms) <= 0) return Event::none;
  if (waiting[0].revents != 0) return on_signal();
  return on_keys();
}

TopTerminal::Event TopTerminal::on_signal() {
  signalfd_siginfo signal{};
  if (read(signal_fd_, &signal, sizeof signal) != sizeof signal || signal.ssi_signo == SIGWINCH) return Event::redraw;
  ended_by_ = static_cast<int>(signal.ssi_signo);
  return Event::end;
}

TopTerminal::Event TopTerminal::on_keys() {
  char keys[64];
  const ssize_t bytes = read(STDIN_FILENO, keys, sizeof keys);
  if (bytes <= 0) return Event::end;  // the terminal is gone
  for (ssize_t i = 0; i < bytes; ++i) {
    if (keys[i] == 'q' || keys[i] == 'Q' || keys[i] == key_ctrl_c) return Event::end;
    if (keys[i] == key_ctrl_l) write_whole("\033[2J");
    if (keys[i] == key_ctrl_z) {
      give_back();
      kill(0, SIGSTOP);
      take();
    }
  }
  return Event::redraw;
}

}  // namespace blobcache::cli
