// The page of checksums in hand is kept: a reader in order reads one for each 28 MiB. What does not match is read a second
// time before it is believed: a bad disk goes on being bad, and there is no origin to go to for a blob that was set aside
// because a cable was.
#include "cache/blob_reader.h"

#include <algorithm>

#include <fmt/format.h>

namespace blobcache {

using blob_format::group_data_bytes;
using disk_format::SidecarPage;
using limits::block_bytes;

BlobReader::BlobReader(BlobStore& store, unsigned disk, FileFd fd, const blob_format::Seal& seal)
    : store_(store),
      disk_(disk),
      fd_(std::move(fd)),
      sums_id_(sums_id(seal)),
      info_{.id = {},
            .bytes = seal.bytes,
            .stored_s = seal.stored_s,
            .expires_s = seal.expires_s,
            .pinned = (seal.flags & blob_format::flag_pinned) != 0},
      sums_(sizeof(SidecarPage)) {
  std::copy(std::begin(seal.id), std::end(seal.id), info_.id.bytes.begin());
}

Result<void> BlobReader::read(uint64_t offset, std::span<std::byte> to) {
  BC_ASSERT(offset % block_bytes == 0 && offset + to.size() <= info_.bytes);
  BC_ASSERT(to.size() % block_bytes == 0 || offset + to.size() == info_.bytes);
  while (!to.empty()) {
    const size_t count = std::min<uint64_t>(to.size(), group_data_bytes - offset % group_data_bytes);
    Result<void> done = read_once(offset, to.first(count));
    if (!done && done.error().code == Code::corrupt) done = read_once(offset, to.first(count));
    if (!done && done.error().code == Code::corrupt) {
      store_.set_aside(info_.id, disk_, fd_.get(),
                       fmt::format("bytes {} to {} do not match their checksums", offset, offset + count));
    }
    if (!done) return done;
    offset += count;
    to = to.subspan(count);
  }
  return {};
}

// Within a group.
Result<void> BlobReader::read_once(uint64_t offset, std::span<std::byte> to) {
  const size_t tail = to.size() % limits::page_bytes;
  const uint64_t in_file = blob_format::data_offset(offset);
  Result<void> done = read_exactly(fd_.get(), to.first(to.size() - tail), in_file);
  if (done && tail > 0) {  // the last page of the blob is a whole one in the file
    PageBuffer page(limits::page_bytes);
    done = read_exactly(fd_.get(), page.bytes(), in_file + to.size() - tail);
    std::memcpy(to.data() + to.size() - tail, page.data(), tail);
  }
  if (!done) return done.error().os_errno == 0 ? fail(Code::corrupt) : done;
  const std::lock_guard guard(mutex_);
  if (const Result<void> loaded = load_sums(offset / group_data_bytes); !loaded) return loaded;
  const auto& sums = *reinterpret_cast<const SidecarPage*>(sums_.data());
  const uint64_t first = offset % group_data_bytes / block_bytes;
  for (size_t at = 0; at < to.size(); at += block_bytes) {
    const auto block = to.subspan(at, std::min(block_bytes, to.size() - at));
    if (disk_format::block_checksum(block) != sums.block_checksums[first + at / block_bytes]) {
      sums_group_ = ~uint64_t{0};
      return fail(Code::corrupt);
    }
  }
  return {};
}

Result<void> BlobReader::load_sums(uint64_t group) {
  if (sums_group_ == group) return {};
  sums_group_ = ~uint64_t{0};
  const Result<void> read = read_exactly(fd_.get(), sums_.bytes(), blob_format::sums_offset(info_.bytes, group));
  if (!read) return read.error().os_errno == 0 ? fail(Code::corrupt) : read;
  if (!disk_format::check(*reinterpret_cast<const SidecarPage*>(sums_.data()), sums_id_, group)) {
    return fail(Code::corrupt);
  }
  sums_group_ = group;
  return {};
}

}  // namespace blobcache
