// That an epoch reads a directory: in whatever order its files are opened, the rest of them will be. Which file to fetch next,
// and what became of those that were.
//   Owner     a directory that was listed: serve/foretell.h
//   Thread    one at a time, the caller sees to it
//   Limits    four bits a file; directories of fewer than files_min files are none of this. At most as many files fetched and
//             not opened as the epoch has opened; each at most once an epoch; bytes as the caller says
//   Invariant the same calls give the same answers: the clock comes in, no randomness, no I/O
//
// Protocol: on_open for every open. next() while it gives one; for each that it gave on_begun when its bytes are on their way (none when
// there is nothing to fetch), then on_landed. is_over() now and then, and end_epoch() when it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace blobcache {

class DirectoryMembership {
 public:
  static constexpr uint32_t files_min = 64;
  // An epoch that opened so much of a directory opens the rest.
  static constexpr uint32_t opened_share = 4;
  static constexpr uint32_t repeats_share = 32;
  static constexpr uint32_t waste_share = 8;
  static constexpr uint64_t file_bytes_max = 1u << 20;

  explicit DirectoryMembership(uint32_t files);

  struct Opened {
    uint32_t file = 0;
    uint64_t bytes = 0;
    bool absent = false;    // it has to be fetched from the origin
    bool foretold = false;  // somebody else had it fetched for this open
  };
  struct Use {
    uint32_t used_files = 0;
    uint64_t used_bytes = 0;
    uint64_t wasted_bytes = 0;

    Use& operator+=(const Use& other) {
      used_files += other.used_files;
      used_bytes += other.used_bytes;
      wasted_bytes += other.wasted_bytes;
      return *this;
    }
  };
  Use on_open(const Opened& opened, uint64_t now_ns, uint64_t idle_ns);

  // The next one to fetch; it is not given again in this epoch. Empty: none, for now. asked: files that were given, and may begin.
  std::optional<uint32_t> next(uint32_t asked = 0);
  void on_begun(uint32_t file, uint64_t bytes);
  void on_landed(uint32_t file, uint64_t bytes, bool failed);
  bool is_over(uint64_t now_ns, uint64_t idle_ns) const;
  // What was fetched and not opened is wasted.
  Use end_epoch();

  // Fetched and not opened.
  bool waits(uint32_t file) const { return files_ >= files_min && has(waiting_, file); }
  uint32_t waiting_files() const { return waiting_files_; }
  // The memory for these, in whole blocks.
  uint64_t waiting_frame_bytes() const { return waiting_frame_bytes_; }
  uint64_t mean_bytes() const { return opened_files_ == 0 ? 0 : opened_bytes_ / opened_files_; }
  // It wasted too much once.
  bool given_up() const { return given_up_; }
  static size_t bytes(uint32_t files) {
    return files < files_min ? 0 : (size_t{files} + 63) / 64 * 4 * sizeof(uint64_t);
  }

 private:
  static constexpr unsigned recent_max = 8;
  using Bits = std::vector<uint64_t>;
  static bool has(const Bits& bits, uint32_t file) { return (bits[file / 64] >> file % 64 & 1) != 0; }
  static void set(Bits& bits, uint32_t file) { bits[file / 64] |= uint64_t{1} << file % 64; }
  static void clear(Bits& bits, uint32_t file) { bits[file / 64] &= ~(uint64_t{1} << file % 64); }

  Use note_open(const Opened& opened);
  bool is_recent(uint32_t file) const;
  bool proven() const;
  void forget_waiting(uint32_t file, uint64_t bytes);

  const uint32_t files_;
  bool given_up_ = false;
  bool wanting_ = false;  // the last open was of a file that was not there before this epoch
  Bits opened_;
  Bits known_;    // opened, or given by next()
  Bits waiting_;  // begun and not opened
  Bits landed_;   // of these
  uint32_t cursor_ = 0;
  uint32_t recent_[recent_max] = {};
  uint32_t recent_count_ = 0;

  // Of this epoch.
  uint32_t opened_files_ = 0;
  uint32_t absent_files_ = 0;
  uint32_t repeats_ = 0;
  uint32_t fetched_files_ = 0;
  uint32_t wasted_files_ = 0;
  uint64_t opened_bytes_ = 0;
  uint64_t began_ns_ = 0;
  uint64_t last_ns_ = 0;
  uint32_t waiting_files_ = 0;
  uint64_t waiting_bytes_ = 0;
  uint64_t waiting_frame_bytes_ = 0;
};

}  // namespace blobcache
