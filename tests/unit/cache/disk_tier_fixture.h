// A disk tier on a real directory, and one core that asks it: jobs are posted and answered as in the program.
//   Thread    one, beside the tier's own
#pragma once

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/stat.h>

#include "cache/disk_tier.h"
#include "ring/uring.h"
#include "unit/cache/disk_fixture.h"

namespace blobcache::test {

// Bytes that anyone can say again: those of object `number`.
inline void fill_object_bytes(uint64_t number, uint64_t offset, std::span<std::byte> out) {
  for (size_t i = 0; i < out.size(); i += 8) {
    const uint64_t word = disk_format::seed_of(number, (offset + i) / 8, 7);
    std::memcpy(out.data() + i, &word, std::min<size_t>(8, out.size() - i));
  }
}

struct Buffer {
  explicit Buffer(size_t bytes)
      : memory(static_cast<std::byte*>(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096)), &std::free),
        size((bytes + 4095) / 4096 * 4096) {
    std::memset(memory.get(), 0, size);
  }
  std::span<std::byte> bytes() { return {memory.get(), size}; }
  std::unique_ptr<std::byte, decltype(&std::free)> memory;
  size_t size;
};

template <class Job>
struct AskedJob : Job {
  bool done = false;
  AskedJob() {
    this->on_done = [](DiskJob& job) { static_cast<AskedJob&>(job).done = true; };
  }
};

struct TierRig {
  TierRig() {
    Result<std::unique_ptr<Ring>> ring = create_uring({.sqes = 64, .cqes = 128});
    REQUIRE(ring.has_value());
    reactor = std::make_unique<Reactor>(std::move(*ring), ReactorOptions{.core = 0, .cqes = 128});
    options.cache = Config().cache;
    options.cache.disks = std::vector<DiskConfig>(1);
    options.cache.disks[0].path = folder / "cache";
    options.cache.disks[0].size = {.bytes = 1024 * limits::MiB};
    options.cache.disks[0].high_watermark = 0.99;  // of whatever filesystem this runs on
    options.cache.disks[0].low_watermark = 0.9;
    options.node = node_uuid;
    options.memory_bytes = 4 * limits::MiB;
  }
  ~TierRig() {
    if (tier != nullptr) CHECK(tier->stop(10000));
  }
  void open() {
    tier = std::make_unique<DiskTier>();
    std::string message;
    const Result<void> opened = tier->open(options, &message);
    REQUIRE_MESSAGE(opened.has_value(), message);
    tier->start();
  }
  void close() {
    REQUIRE(tier->stop(10000));
    tier.reset();
  }

  template <class Job>
  void begin(AskedJob<Job>& job) {
    tier->post(*reactor, job);
  }
  template <class Job>
  bool run(AskedJob<Job>& job) {
    begin(job);
    until([&] { return job.done; });
    return !job.failed;
  }
  // Turns the reactor until it is so.
  template <class Condition>
  void until(Condition&& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      REQUIRE(std::chrono::steady_clock::now() < deadline);
      reactor->turn(false);
      tier->watch(reactor->now_ns());
      poll(nullptr, 0, 1);
    }
  }

  DiskView view(uint64_t number, uint64_t position = 0) {
    DiskView found;
    return tier->find(id_of(number), position, &found) ? found : DiskView{};
  }
  bool known(uint64_t number) {
    DiskView found;
    return tier->find(id_of(number), 0, &found);
  }
  std::string path_of(uint64_t number) { return folder / "cache/" + disk_format::object_path(id_of(number)); }

  DiskFile* create(uint64_t number, uint64_t size) {
    AskedJob<DiskCreateJob> job;
    job.id = id_of(number);
    job.object_bytes = size;
    REQUIRE(run(job));
    REQUIRE(job.file != nullptr);
    return job.file;
  }
  DiskFile* open_file(uint64_t number) {
    AskedJob<DiskOpenJob> job;
    job.id = id_of(number);
    return run(job) ? job.file : nullptr;
  }
  // Writes blocks of a chunk as the writer does. damage: bits of blocks that get other bytes than their checksums say.
  bool write(DiskFile& file, uint64_t number, uint64_t position, uint64_t blocks, uint64_t damage = 0) {
    AskedJob<DiskWrittenJob> job;
    job.file = &file;
    job.position = position;
    job.blocks = blocks;
    Buffer buffer(limits::block_bytes);
    for (uint64_t left = blocks; left != 0; left &= left - 1) {
      const auto block = static_cast<unsigned>(std::countr_zero(left));
      const uint64_t offset = position * disk_format::index_chunk_bytes + block * limits::block_bytes;
      const uint64_t bytes = std::min<uint64_t>(limits::block_bytes, file.object_bytes - offset);
      const uint64_t padded = (bytes + 4095) / 4096 * 4096;
      fill_object_bytes(number, offset, buffer.bytes().first(bytes));
      job.checksums[block] = disk_format::block_checksum(buffer.bytes().first(bytes));
      if ((damage >> block & 1) != 0) buffer.bytes()[0] ^= std::byte{1};
      job.reserved_bytes += padded;
      REQUIRE(pwrite(file.fd, buffer.bytes().data(), padded, static_cast<off_t>(offset)) ==
              static_cast<ssize_t>(padded));
    }
    if (!tier->begin_write(0, job.reserved_bytes)) return false;
    return run(job);
  }
  // A whole object; false: no room.
  bool write_object(uint64_t number, uint64_t size, uint64_t damage = 0) {
    DiskFile* file = create(number, size);
    bool written = true;
    for (uint64_t position = 0; position < disk_format::index_chunks_of(size); ++position) {
      written = written &&
                write(*file, number, position, disk_format::blocks_mask(size, position), position == 0 ? damage : 0);
    }
    tier->release(*file);
    return written;
  }
  // The bytes at offset, through an open file, are the object's.
  bool has_bytes(const DiskFile& file, uint64_t number, uint64_t offset, size_t bytes) {
    Buffer got(bytes);
    Buffer wanted(bytes);
    fill_object_bytes(number, offset, wanted.bytes().first(bytes));
    return pread(file.fd, got.bytes().data(), got.size, static_cast<off_t>(offset)) >= static_cast<ssize_t>(bytes) &&
           std::memcmp(got.bytes().data(), wanted.bytes().data(), bytes) == 0;
  }

  TempFolder folder;
  DiskTier::Options options;
  std::unique_ptr<Reactor> reactor;
  std::unique_ptr<DiskTier> tier;
};

// A segment that is being written.
struct Packed {
  DiskFile* file = nullptr;
  uint32_t page = 0;
  std::vector<DiskPackedItem> items;
};

inline DiskFile* new_segment(TierRig& rig) {
  AskedJob<DiskNewSegmentJob> job;
  REQUIRE(rig.run(job));
  return job.file;
}

// Writes an object into the segment as the packer does, not yet told.
inline void pack(Packed& packed, uint64_t number, uint64_t size) {
  disk_format::PackedHeader header;
  header.id[0] = id_of(number).words[0];
  header.id[1] = id_of(number).words[1];
  header.size = size;
  header.block_count = static_cast<uint32_t>((size + limits::block_bytes - 1) / limits::block_bytes);
  Buffer buffer(limits::page_bytes + size);
  const std::span<std::byte> bytes = buffer.bytes().subspan(limits::page_bytes, size);
  fill_object_bytes(number, 0, bytes);
  for (uint32_t block = 0; block < header.block_count; ++block) {
    const uint64_t begin = block * limits::block_bytes;
    header.block_checksums[block] =
        disk_format::block_checksum(bytes.subspan(begin, std::min<uint64_t>(limits::block_bytes, size - begin)));
  }
  seal(header, disk_format::packed_place(packed.file->segment, packed.page));
  std::memcpy(buffer.bytes().data(), &header, sizeof header);
  REQUIRE(pwrite(packed.file->fd, buffer.bytes().data(), buffer.size, off_t{packed.page} * 4096) ==
          static_cast<ssize_t>(buffer.size));
  packed.items.push_back({.id = id_of(number), .size = size, .page = packed.page});
  packed.page += static_cast<uint32_t>(disk_format::packed_pages(size));
}

inline bool tell(TierRig& rig, Packed& packed) {
  AskedJob<DiskPackedJob> job;
  job.file = packed.file;
  job.items = packed.items;
  for (const DiskPackedItem& item : packed.items) job.reserved_bytes += disk_format::packed_pages(item.size) * 4096;
  if (!rig.tier->begin_write(0, job.reserved_bytes)) return false;
  const bool told = rig.run(job);
  packed.items.clear();
  return told;
}

inline void end(TierRig& rig, Packed& packed) {
  AskedJob<DiskEndSegmentJob> job;
  job.file = packed.file;
  REQUIRE(rig.run(job));
}

}  // namespace blobcache::test
