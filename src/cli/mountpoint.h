// Mount points: finding the one that was meant, saying what is wrong with it, and clearing away what a dead daemon left.
//   Thread    main, before any other thread exists (bounded.h)
//   Rule      a mount is looked at through mountinfo first; the only call that goes through it is made by a child process
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "fuse/mountinfo.h"
#include "node/node.h"

namespace blobcache::cli {

// Absolute, one slash between parts, no "." parts and no slash at the end. ".." is left: it needs the file system.
std::string lexical_path(std::string_view path, std::string_view working_directory);

// The absolute path that mountinfo would show for `path`, found without looking at a mount that lies there. nullopt: the
// folder above did not answer in time or does not exist.
std::optional<std::string> resolve_mountpoint(const std::string& path);

// True when `inner` is `outer` or lies below it. Both absolute.
bool is_within(std::string_view inner, std::string_view outer);

// Takes a mount away without waiting for its users. Returns what went wrong, empty: nothing.
std::string detach_mount(const std::string& path, int timeout_ms);

// Whether `path` may be mounted on: exit_code 0, or what is wrong. Takes away a mount that a dead daemon left there, and
// says so in cleaned_out.
node::Outcome prepare_mountpoint(const std::string& path, std::string* cleaned_out);

}  // namespace blobcache::cli
