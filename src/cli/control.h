// The client's side of a daemon's control socket: one line out, one line back.
//   Thread    any
//   Limits    each call waits at most timeout_ms
#pragma once

#include <string>
#include <string_view>

#include <sys/types.h>

#include "fuse/mountinfo.h"

namespace blobcache::cli {

struct Ping {
  enum class Answer {
    alive,   // it answered
    silent,  // somebody listens, but did not answer in time: stopped or hung
    gone,    // nobody listens
    denied,  // we may not ask
  };
  Answer answer = Answer::gone;
  pid_t pid = 0;  // when alive
};

Ping ping_socket(const std::string& socket_path, int timeout_ms);
// The daemon behind a mount: asked where its owner keeps his sockets.
Ping ping_mount(const fuse::MountEntry& mount, int timeout_ms);

// Sends a line and gives back all that is answered to it, at most 4 MiB. silent: not all of it came in time.
Ping::Answer ask_socket(const std::string& socket_path, std::string_view line, int timeout_ms, std::string* text_out);
Ping::Answer ask_mount(const fuse::MountEntry& mount, std::string_view line, int timeout_ms, std::string* text_out);

}  // namespace blobcache::cli
