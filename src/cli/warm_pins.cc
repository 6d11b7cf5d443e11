#include "cli/warm_pins.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <set>

#include <fmt/format.h>

#include "base/units.h"
#include "cli/cached_file.h"
#include "cli/control.h"
#include "cli/interrupt.h"

namespace blobcache::cli {
namespace {

constexpr int control_ms = 12'000;  // longer than the daemon's own patience with a disk and a core

Told ask(const fuse::MountEntry& mount, const std::string& line) {
  std::string answer;
  switch (ask_mount(mount, line, control_ms, &answer)) {
    case Ping::Answer::alive: break;
    case Ping::Answer::denied:
      return {.text = "its daemon may not be asked by this user; repeat as root or as its owner"};
    case Ping::Answer::silent: return {.text = "its daemon does not answer"};
    case Ping::Answer::gone: return {.text = "its daemon does not listen"};
  }
  while (answer.ends_with('\n')) answer.pop_back();
  constexpr std::string_view prefix = "error: ";
  if (!answer.starts_with(prefix)) return {.done = true, .text = answer};
  answer.erase(0, prefix.size());
  if (answer == "pinned")
    answer = "it is pinned; take the pin off with `blobcache warm --unpin`, or both at once with --evict --unpin";
  return {.text = answer};
}

}  // namespace

Told tell_daemon(std::string_view command, const WarmFile& file) {
  std::string id;
  if (const int os_errno = read_id(file.path, &id); os_errno != 0) return {.text = std::strerror(os_errno)};
  const auto mount = mount_of(file.path);
  if (!mount) return {.text = "its mount is gone"};
  return ask(*mount,
             command == "unpin" ? fmt::format("unpin {}", id) : fmt::format("{} {} {}", command, id, file.bytes));
}

void WarmPins::pin(std::span<const WarmFile> files) {
  for (const WarmFile& file : files) {
    if (Interrupt::interrupted()) return;
    if (file.bytes == 0) continue;
    const auto mount = mount_of(file.path);
    if (mount && mount->source == "blobs:") {
      failures_.push_back({file.path,
                           "it is not pinned: blobs are never evicted; `blobcache put --pin` keeps one beyond "
                           "its time"});
      continue;
    }
    const Told told = tell_daemon("pin", file);
    if (!told.done) {
      failures_.push_back({file.path, fmt::format("it is not pinned: {}", told.text)});
      continue;
    }
    files_.push_back(file);
    fresh_.push_back(told.text != "already");
  }
}

void WarmPins::settle(std::vector<WarmFailure>* failures) {
  for (size_t i = 0; i < files_.size(); ++i) {
    const WarmFile& file = files_[i];
    std::vector<TierBytes> tiers;
    std::string cause;
    if (const int os_errno = read_tiers(file.path, &tiers); os_errno != 0) {
      cause = std::strerror(os_errno);
    } else if (const uint64_t disk = bytes_of(tiers, "disk"); disk < file.bytes) {
      cause = fmt::format("only {} of {} came to the disk; `blobcache status` tells of its state and room",
                          format_bytes_short(disk), format_bytes_short(file.bytes));
    } else if (bytes_of(tiers, "pinned") == 0) {
      // It came to another disk than was thought, or its segment is larger than it: now that it is there the daemon knows.
      const Told told = tell_daemon("pin", file);
      if (told.done) continue;
      cause = told.text;
    } else {
      continue;
    }
    if (fresh_[i]) tell_daemon("unpin", file);
    // What could not be read has a cause already.
    const auto told = std::ranges::find_if(*failures, [&](const WarmFailure& f) { return f.path == file.path; });
    if (told == failures->end())
      failures->push_back({file.path, fmt::format("it {}: {}", fresh_[i] ? "is not pinned" : "stays pinned", cause)});
  }
  failures->insert(failures->end(), failures_.begin(), failures_.end());
}

uint64_t unpin_all(const std::vector<std::string>& paths, std::vector<WarmFailure>* failures) {
  std::set<std::string> asked;
  uint64_t unpinned = 0;
  for (const std::string& path : paths) {
    const auto mount = mount_of(path);
    if (!mount) {
      failures->push_back({path, "it is not on a blobcache mount"});
      continue;
    }
    if (!asked.insert(mount->mountpoint).second) continue;
    const Told told = ask(*mount, "unpin-all");
    uint64_t count = 0;
    const std::string_view number = std::string_view(told.text).substr(std::min<size_t>(told.text.size(), 3));
    if (told.done) std::from_chars(number.data(), number.data() + number.size(), count);
    if (!told.done) failures->push_back({path, told.text});
    unpinned += count;
  }
  return unpinned;
}

}  // namespace blobcache::cli
