// A memory tier, a disk tier on a real directory, a kernel ring and a writer: one core of the program without its front.
//   Thread    one, beside the disk tier's own
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "base/memory.h"
#include "cache/disk_tier.h"
#include "cache/disk_writer.h"
#include "cache/memory_tier.h"
#include "ring/uring.h"
#include "unit/cache/disk_fixture.h"
#include "unit/cache/tier_fixture.h"

namespace blobcache::test {

struct WriterCore {
  struct Options {
    uint64_t held_bytes_max = 64 * limits::MiB;
    uint64_t limit_bytes = 1024 * MiB;
    size_t arena_bytes = 32 * MiB;
    bool registered_buffers = true;
  };

  WriterCore() : WriterCore(Options{}) {}
  explicit WriterCore(const Options& wanted) : options(wanted) {
    Result<std::unique_ptr<Ring>> ring = create_uring({.sqes = limits::ring_sqes, .cqes = limits::ring_cqes});
    REQUIRE_MESSAGE(ring.has_value(), "this machine gives no io_uring, errno ", ring.error().os_errno);
    reactor = std::make_unique<Reactor>(std::move(*ring),
                                        ReactorOptions{.core = 0, .cqes = limits::ring_cqes, .epochs = &epochs});
    const size_t staging_bytes = DiskWriter::staging_bytes(1, chunk_bytes);
    REQUIRE(arena.allocate(options.arena_bytes));
    REQUIRE(staging.allocate(staging_bytes));
    if (options.registered_buffers) {
      REQUIRE(reactor->ring().register_buffer(0, iovec{arena.bytes().data(), arena.bytes().size()}));
      REQUIRE(reactor->ring().register_buffer(1, iovec{staging.bytes().data(), staging.bytes().size()}));
    }
    memory = std::make_unique<MemoryTier>(MemoryTier::Options{.arena = arena.bytes(), .epochs = &epochs});
    open_disks();
    reactor->turn(false);
  }
  ~WriterCore() { close_disks(); }

  void open_disks() {
    tier = std::make_unique<DiskTier>();
    DiskTier::Options tier_options;
    tier_options.cache = Config().cache;
    tier_options.cache.chunk_bytes = chunk_bytes;
    tier_options.cache.disks = std::vector<DiskConfig>(1);
    tier_options.cache.disks[0].path = folder / "cache";
    tier_options.cache.disks[0].size = {.bytes = options.limit_bytes};
    tier_options.node = node_uuid;
    tier_options.memory_bytes = 32 * MiB;
    std::string message;
    const Result<void> opened = tier->open(tier_options, &message);
    REQUIRE_MESSAGE(opened.has_value(), message);
    tier->start();
    make_writer();
  }
  void make_writer() {
    writer = std::make_unique<DiskWriter>(
        DiskWriter::Options{.tier = tier.get(),
                            .memory = memory.get(),
                            .reactor = reactor.get(),
                            .registered_buffers = options.registered_buffers,
                            .staging = staging.bytes().first(DiskWriter::staging_bytes(1, chunk_bytes)),
                            .staging_buffer_index = options.registered_buffers ? 1 : -1,
                            .held_bytes_max = options.held_bytes_max});
  }
  void close_disks() {
    writer->flush();
    wait_idle();
    writer.reset();
    CHECK(tier->stop(20000));
    tier.reset();
  }

  // Turns until it is so; half a minute is more than any disk needs.
  template <class Condition>
  void turn_until(Condition&& condition) {
    reactor->turn(false);  // the reactor's clock stood still since its last turn
    Timer give_up([](Timer&) {});
    reactor->arm(give_up, 30'000'000'000);
    Timer look([](Timer&) {});  // for conditions that no event of this ring makes true
    while (!condition() && give_up.armed()) {
      if (!look.armed()) reactor->arm(look, 10'000'000);
      reactor->turn(true);
    }
    if (look.armed()) reactor->cancel(look);
    if (give_up.armed()) reactor->cancel(give_up);
    REQUIRE(condition());
  }
  void wait_idle() {
    turn_until([this] { return writer->idle(); });
  }
  // The ring has all that was prepared, and nothing of what it answered was handled.
  void submit() { reactor->ring().submit(); }

  struct Load {
    ObjectId id;
    uint64_t object_bytes = 0;
    uint64_t offset = 0;
    uint64_t bytes = 0;
    FrameKind kind = FrameKind::chunk;
    bool write = true;
  };
  // Loads what memory lacks of the range with the object's bytes, and hands it to the writer as a load does. The frames
  // have other bytes than zeros behind the object's end.
  void load(const Load& load) {
    TestPlan plan;
    const PlanRequest request{.object = load.id,
                              .object_bytes = load.object_bytes,
                              .offset = load.offset,
                              .bytes = static_cast<uint32_t>(load.bytes),
                              .kind = load.kind};
    Result<void> planned = memory->plan(*reactor, request, 1, plan);
    for (int turns = 0; turns < 4 && !planned; ++turns) {
      reactor->turn(false);
      planned = memory->plan(*reactor, request, 1, plan);
    }
    REQUIRE(planned);
    for (unsigned i = 0; i < plan.span_count; ++i) {
      Plan::Span& span = plan.spans[i];
      const uint64_t blocks = span.blocks_to_load;
      if (blocks == 0) continue;
      fill_blocks(*memory, load.id, *span.frame, span.offset, blocks);
      if (load.write && !tier->packs(load.object_bytes))
        writer->write_blocks(load.id, load.object_bytes, *span.frame, span.offset, blocks);
      memory->finish_load(*reactor, *span.frame, blocks, {.ok = true});
    }
    memory->release(plan);
    if (load.write && tier->packs(load.object_bytes)) writer->write_packed(load.id, load.object_bytes);
  }
  void load_all(const ObjectId& id, uint64_t object_bytes) {
    for (uint64_t offset = 0; offset < object_bytes; offset += 4 * MiB)
      load({.id = id,
            .object_bytes = object_bytes,
            .offset = offset,
            .bytes = std::min<uint64_t>(4 * MiB, object_bytes - offset)});
  }
  uint64_t valid_blocks(const ObjectId& id, uint64_t position) {
    DiskView view;
    return tier->find(id, position, &view) ? view.valid : 0;
  }
  bool on_disk(const ObjectId& id, uint64_t object_bytes) {
    for (uint64_t position = 0; position < disk_format::index_chunks_of(object_bytes); ++position) {
      if (valid_blocks(id, position) != disk_format::blocks_mask(object_bytes, position)) return false;
    }
    return true;
  }

  static std::vector<std::byte> bytes_of(const ObjectId& id, uint64_t offset, uint64_t bytes) {
    std::vector<std::byte> right((bytes + 7) / 8 * 8);
    fill_bytes(id, offset, right.size(), right.data());
    right.resize(bytes);
    return right;
  }
  static uint64_t checksum_of_block(const ObjectId& id, uint64_t object_bytes, uint64_t block) {
    const uint64_t offset = block * limits::block_bytes;
    return disk_format::block_checksum(
        bytes_of(id, offset, std::min<uint64_t>(limits::block_bytes, object_bytes - offset)));
  }
  static std::string read_range(const std::string& path, uint64_t offset, uint64_t bytes) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    std::string read(bytes, '\0');
    const ssize_t count = pread(fd, read.data(), bytes, static_cast<off_t>(offset));
    close(fd);
    read.resize(count < 0 ? 0 : static_cast<size_t>(count));
    return read;
  }
  // The object's own file and its sidecar, for the blocks that are valid.
  void check_own_file(const ObjectId& id, uint64_t object_bytes) {
    const std::string path = folder / ("cache/" + disk_format::object_path(id));
    const std::string sums = read_file(folder / ("cache/" + disk_format::sidecar_path(id)));
    REQUIRE(std::filesystem::file_size(path) == object_bytes);
    uint64_t wrong = 0;
    for (uint64_t block = 0; block * limits::block_bytes < object_bytes; ++block) {
      const uint64_t position = block / 64;
      if ((valid_blocks(id, position) >> (block % 64) & 1) == 0) continue;
      const uint64_t offset = block * limits::block_bytes;
      const std::vector<std::byte> right =
          bytes_of(id, offset, std::min<uint64_t>(limits::block_bytes, object_bytes - offset));
      const std::string lies_there = read_range(path, offset, right.size());
      const bool matches =
          lies_there.size() == right.size() && std::memcmp(lies_there.data(), right.data(), right.size()) == 0;
      // Evicted and punched while we looked.
      if (!matches && (valid_blocks(id, position) >> (block % 64) & 1) == 0) continue;
      wrong += !matches;
      const uint64_t page_index = position / disk_format::sidecar_chunks_per_page;
      REQUIRE(sums.size() >= (page_index + 1) * sizeof(disk_format::SidecarPage));
      disk_format::SidecarPage page;
      std::memcpy(&page, sums.data() + page_index * sizeof page, sizeof page);
      REQUIRE(disk_format::check(page, id, page_index));
      wrong += page.block_checksums[block % disk_format::sidecar_blocks_per_page] !=
               checksum_of_block(id, object_bytes, block);
    }
    CHECK(wrong == 0);
  }
  // A packed object, where the index says that it lies.
  void check_packed(const ObjectId& id, uint64_t object_bytes) {
    DiskView view;
    REQUIRE(tier->find(id, 0, &view));
    REQUIRE(view.place.packed);
    CHECK(view.size == object_bytes);
    const std::string path = folder / ("cache/" + disk_format::segment_path(view.place.segment));
    const std::string lies_there = read_range(path, uint64_t{view.place.page} * limits::page_bytes,
                                              disk_format::packed_pages(object_bytes) * limits::page_bytes);
    REQUIRE(lies_there.size() == disk_format::packed_pages(object_bytes) * limits::page_bytes);
    disk_format::PackedHeader header;
    std::memcpy(&header, lies_there.data(), sizeof header);
    CHECK(disk_format::check(header, disk_format::packed_place(view.place.segment, view.place.page), id, object_bytes));
    uint64_t wrong = 0;
    for (uint64_t block = 0; block < header.block_count; ++block)
      wrong += header.block_checksums[block] != checksum_of_block(id, object_bytes, block);
    CHECK(wrong == 0);
    const std::vector<std::byte> right = bytes_of(id, 0, object_bytes);
    const char* data = lies_there.data() + limits::page_bytes;
    CHECK(std::memcmp(data, right.data(), right.size()) == 0);
    const size_t padding = (limits::page_bytes - object_bytes % limits::page_bytes) % limits::page_bytes;
    CHECK(std::string_view(data + object_bytes, padding) == std::string(padding, '\0'));
  }

  static constexpr uint64_t chunk_bytes = 4 * MiB;
  const Options options;
  TempFolder folder;
  Epochs epochs;
  Arena arena;
  Arena staging;
  std::unique_ptr<Reactor> reactor;
  std::unique_ptr<MemoryTier> memory;
  std::unique_ptr<DiskTier> tier;
  std::unique_ptr<DiskWriter> writer;
};

}  // namespace blobcache::test
