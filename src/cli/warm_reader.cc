#include "cli/warm_reader.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <fcntl.h>
#include <unistd.h>

namespace blobcache::cli {
namespace {

constexpr size_t alignment = 4096;
constexpr int file_ended_early = -1;  // no errno says so

// A file opened past the page cache, or through it where that cannot be; then its pages are let go behind the reader.
class DirectFile {
 public:
  ~DirectFile() {
    if (fd_ >= 0) close(fd_);
  }
  int open(const std::string& path) {
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (fd_ < 0 && errno == EINVAL) return reopen_buffered(path);
    return fd_ < 0 ? errno : 0;
  }
  int reopen_buffered(const std::string& path) {
    if (fd_ >= 0) close(fd_);
    direct_ = false;
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    return fd_ < 0 ? errno : 0;
  }
  bool direct() const { return direct_; }
  ssize_t read(std::byte* to, size_t bytes, uint64_t offset) const {
    const ssize_t got = pread(fd_, to, bytes, static_cast<off_t>(offset));
    if (got > 0 && !direct_) posix_fadvise(fd_, static_cast<off_t>(offset), got, POSIX_FADV_DONTNEED);
    return got;
  }

 private:
  int fd_ = -1;
  bool direct_ = true;
};

}  // namespace

std::vector<WarmPiece> cut_pieces(const std::vector<WarmFile>& files, uint64_t piece_bytes) {
  std::vector<WarmPiece> pieces;
  uint64_t start = 0;
  for (uint32_t i = 0; i < files.size(); ++i) {
    for (uint64_t offset = 0; offset < files[i].bytes; offset += piece_bytes) {
      const uint64_t bytes = std::min(piece_bytes, files[i].bytes - offset);
      pieces.push_back({.file = i, .offset = offset, .bytes = bytes, .start = start});
      start += bytes;
    }
  }
  return pieces;
}

WarmReader::WarmReader(const std::vector<WarmFile>& files)
    : files_(files), pieces_(cut_pieces(files, piece_bytes)), pieces_left_(files.size()), failed_(files.size()) {
  for (const WarmPiece& piece : pieces_) ++pieces_left_[piece.file];
  files_done_ = static_cast<uint64_t>(std::count(pieces_left_.begin(), pieces_left_.end(), 0u));
}

void WarmReader::start(unsigned jobs) {
  running_ = static_cast<unsigned>(std::min<size_t>(jobs, pieces_.size()));
  const unsigned count = running_;
  for (unsigned i = 0; i < count; ++i) threads_.emplace_back(&WarmReader::run, this);
}

bool WarmReader::wait(unsigned timeout_ms) {
  std::unique_lock lock(mutex_);
  return ended_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [this] { return running_ == 0; });
}

void WarmReader::join() {
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void WarmReader::run() {
  const std::unique_ptr<void, decltype(&std::free)> memory(std::aligned_alloc(alignment, read_bytes), &std::free);
  for (size_t i = next_.fetch_add(1); i < pieces_.size(); i = next_.fetch_add(1)) {
    if (stopped_.load(std::memory_order_relaxed)) break;
    if (ahead_ != nullptr) wait_until_allowed(pieces_[i]);
    end_piece(pieces_[i], memory == nullptr ? ENOMEM : read_piece(pieces_[i], static_cast<std::byte*>(memory.get())));
  }
  const std::lock_guard lock(mutex_);
  --running_;
  ended_.notify_all();
}

void WarmReader::allow(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  allowed_bytes_ = bytes;
  more_allowed_.notify_all();
}

void WarmReader::wait_until_allowed(const WarmPiece& piece) {
  std::unique_lock lock(mutex_);
  more_allowed_.wait(lock,
                     [&] { return piece.start + std::min(piece.bytes, ahead_->ahead_bytes()) <= allowed_bytes_; });
}

// The first failure of a file is told; the rest of it is passed over.
void WarmReader::end_piece(const WarmPiece& piece, int os_errno) {
  const std::lock_guard lock(mutex_);
  if (os_errno != 0 && !failed_[piece.file]) {
    failed_[piece.file] = true;
    failures_.push_back({files_[piece.file].path, os_errno == file_ended_early ? "it became shorter while it was read"
                                                                               : std::strerror(os_errno)});
  }
  if (--pieces_left_[piece.file] == 0) files_done_.fetch_add(1, std::memory_order_relaxed);
}

int WarmReader::read_piece(const WarmPiece& piece, std::byte* buffer) {
  {
    const std::lock_guard lock(mutex_);
    if (failed_[piece.file]) return 0;
  }
  const std::string& path = files_[piece.file].path;
  DirectFile file;
  if (ahead_ != nullptr) ahead_->expect_open(piece.file);
  if (const int os_errno = file.open(path); os_errno != 0) return os_errno;
  const uint64_t end = piece.offset + piece.bytes;
  for (uint64_t offset = piece.offset; offset < end && !stopped_.load(std::memory_order_relaxed);) {
    // Whole pages, beyond the end of the file too: a direct read may ask for nothing less.
    const uint64_t wanted = std::min<uint64_t>(read_bytes, (end - offset + alignment - 1) / alignment * alignment);
    const ssize_t got = file.read(buffer, wanted, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EINVAL && file.direct()) {
      if (ahead_ != nullptr) ahead_->expect_open(piece.file);
      if (const int os_errno = file.reopen_buffered(path); os_errno != 0) return os_errno;
      continue;
    }
    if (got < 0) return errno;
    if (got == 0) return file_ended_early;
    const uint64_t counted = std::min(end - offset, static_cast<uint64_t>(got));
    bytes_read_.fetch_add(counted, std::memory_order_relaxed);
    offset += counted;
  }
  return 0;
}

}  // namespace blobcache::cli
