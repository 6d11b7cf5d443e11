// An upload goes front to back into a file of blobs/staging that nobody finds: 512 KiB at a time past the page cache, behind
// each 28 MiB the page of its checksums, at the end the seal; then fsync, and BlobStore gives it its name. All of it on a
// thread that may block: SHA-256 takes about a millisecond for a buffer, as long as writing it does, so there is nothing to
// win from a ring here, and a core would be away for that long.
#include "cache/blob_writer.h"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/random.h>
#include <unistd.h>

#include "cache/disk_log.h"
#include "ring/errno.h"

namespace blobcache {

using disk_format::SidecarPage;

namespace {

PutOutcome outcome_of(const Error& error) {
  if (error.code == Code::full && error.os_errno == 0) return PutOutcome::refused;
  return error.code == Code::corrupt ? PutOutcome::mismatched : PutOutcome::failed;
}

}  // namespace

BlobWriter::BlobWriter(BlobStore& store, unsigned disk, const BlobStore::Put& put, uint64_t reserved_bytes)
    : store_(store),
      disk_(disk),
      put_(put),
      reserved_bytes_(reserved_bytes),
      buffer_(buffer_bytes),
      sums_(sizeof(SidecarPage)) {}

BlobWriter::~BlobWriter() {
  if (!staged_name_.empty()) unlinkat(store_.disks_[disk_]->blobs_fd.get(), staged_name_.c_str(), 0);
  if (!counted_) store_.count_put(failed_ ? PutOutcome::failed : outcome_of(failed_.error()));
  store_.end_upload(disk_, reserved_bytes_);
}

Result<void> BlobWriter::create() {
  if (getrandom(nonce_, sizeof nonce_, 0) != sizeof nonce_) return std::unexpected(error_from_errno(errno));
  const std::string name = fmt::format("{}/{:016x}{:016x}", blob_format::staging_folder, nonce_[0], nonce_[1]);
  fd_ = FileFd(open_direct(store_.disks_[disk_]->blobs_fd.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL));
  if (fd_.get() < 0) return std::unexpected(error_from_errno(errno));
  staged_name_ = name;
  return {};
}

Result<void> BlobWriter::append(std::span<const std::byte> bytes) {
  while (failed_ && !bytes.empty()) {
    const size_t count = std::min(bytes.size(), buffer_bytes - buffered_);
    std::memcpy(buffer_.data() + buffered_, bytes.data(), count);
    buffered_ += count;
    bytes_ += count;
    bytes = bytes.subspan(count);
    if (buffered_ == buffer_bytes) failed_ = flush();
  }
  return failed_;
}

Result<void> BlobWriter::flush() {
  if (store_.stopping()) return fail(Code::stopping);
  if (bytes_ > blob_format::blob_bytes_max) return fail(Code::full);
  const uint64_t wanted = blob_format::file_bytes(bytes_);
  if (wanted > reserved_bytes_) {
    if (!store_.try_reserve(disk_, wanted - reserved_bytes_)) return fail(Code::full);
    reserved_bytes_ = wanted;
  }
  hash_.add(buffer_.bytes().first(buffered_));
  const uint64_t begin = bytes_ - buffered_;
  if (!sums_open_) std::memset(sums_.data(), 0, sizeof(SidecarPage));
  sums_open_ = true;
  auto& sums = *reinterpret_cast<SidecarPage*>(sums_.data());
  for (size_t done = 0; done < buffered_; done += limits::block_bytes) {
    const size_t count = std::min(limits::block_bytes, buffered_ - done);
    sums.block_checksums[(begin + done) % blob_format::group_data_bytes / limits::block_bytes] =
        disk_format::block_checksum(buffer_.bytes().subspan(done, count));
  }
  const size_t padded = disk_format::round_up_to_page(buffered_);
  std::memset(buffer_.data() + buffered_, 0, padded - buffered_);
  const Result<void> written = write_all(fd_.get(), buffer_.bytes().first(padded), blob_format::data_offset(begin));
  if (!written) return written;
  buffered_ = 0;
  return bytes_ % blob_format::group_data_bytes == 0 ? write_sums() : Result<void>();
}

Result<void> BlobWriter::write_sums() {
  const uint64_t group = (bytes_ - 1) / blob_format::group_data_bytes;
  disk_format::seal(*reinterpret_cast<SidecarPage*>(sums_.data()), {{nonce_[0], nonce_[1]}}, group);
  sums_open_ = false;
  return write_all(fd_.get(), sums_.bytes(), blob_format::sums_offset(bytes_, group));
}

Result<BlobWriter::Stored> BlobWriter::finish() {
  Result<Stored> stored = publish();
  counted_ = true;
  if (!stored) {
    store_.count_put(outcome_of(stored.error()));
  } else {
    store_.count_put(stored->known ? PutOutcome::known : PutOutcome::stored);
  }
  return stored;
}

Result<BlobWriter::Stored> BlobWriter::publish() {
  if (failed_ && buffered_ > 0) failed_ = flush();
  if (failed_ && sums_open_) failed_ = write_sums();
  if (!failed_) return std::unexpected(failed_.error());
  failed_ = fail(Code::invalid);  // whatever comes now, it is over
  const BlobId id = hash_.finish();
  if (put_.expected && *put_.expected != id) return fail(Code::corrupt);
  return store_.publish(*this, id);
}

Result<void> BlobWriter::seal(const BlobId& id, int64_t stored_s, int64_t expires_s) {
  const uint64_t wanted = blob_format::file_bytes(bytes_);
  if (wanted > reserved_bytes_) {  // an empty blob
    if (!store_.try_reserve(disk_, wanted - reserved_bytes_)) return fail(Code::full);
    reserved_bytes_ = wanted;
  }
  PageBuffer pages(blob_format::seals_bytes);
  std::memset(pages.data(), 0, blob_format::seals_bytes);
  blob_format::Seal seal{.nonce = {nonce_[0], nonce_[1]},
                         .bytes = bytes_,
                         .stored_s = stored_s,
                         .expires_s = expires_s,
                         .generation = 1,
                         .flags = put_.life.pinned ? blob_format::flag_pinned : 0};
  std::copy(id.bytes.begin(), id.bytes.end(), seal.id);
  blob_format::seal(seal, 0);
  std::memcpy(pages.data(), &seal, sizeof seal);
  const Result<void> written = write_all(fd_.get(), pages.bytes(), blob_format::seals_offset(bytes_));
  if (!written) return written;
  if (fsync(fd_.get()) != 0) return std::unexpected(error_from_errno(errno));
  return {};
}

}  // namespace blobcache
