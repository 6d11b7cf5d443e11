// Own-file objects: from the frame to the file, without a copy. Packed ones: disk_packer.cc.
//
// A write goes through these states; a step that fails gives everything back and the blocks are simply not told of:
//   creating   the object has no open file: the keeper makes it. Later writes of the object wait behind this one
//   ready      waits for its turn
//   writing    one SQE per run of adjacent blocks
//   telling    the keeper enters checksums and index
//
// Nothing of it delays the reply. write_blocks is called while the reader still waits, so it only takes what cannot be taken
// later: the room, a hold on the frame, and the zeros behind the object's end (its block is ours alone until finish_load).
// Checksums (0.07 ms per MiB) and the submission (O_DIRECT walks the pages and talks to the disk) come a turn later, one
// write a turn, after the reply has left.
//
// The last block is written with zeros up to the next page, as O_DIRECT demands; the keeper cuts the file to its size.
//
// A file that is armed is not written to. Arming raises `armed` and then looks at `writing`; we raise `writing` and then look
// at `armed`, both seq_cst: at least one side sees the other and steps back.
#include "cache/disk_writer.h"

#include <bit>
#include <cerrno>
#include <cstring>

#include "base/assert.h"
#include "base/pool.h"
#include "cache/disk_packer.h"

namespace blobcache {
namespace {

using disk_format::round_up_to_page;

constexpr uint64_t block_bytes = limits::block_bytes;
constexpr unsigned runs_max = limits::blocks_per_chunk_frame / 2;
constexpr uint64_t crowd_patience_ns = 1'000'000'000;  // what hangs does not come sooner for waiting
constexpr uint64_t next_turn_ns = 1;  // a timer that is due when the SQEs of this turn have been handed over

struct Write;

struct Run : Op {
  Write* write = nullptr;
  uint32_t bytes = 0;
};

struct Write : ListNode {  // the node: ready, or behind the write that creates its file
  struct Create : DiskCreateJob {
    Write* write = nullptr;
  };
  struct Written : DiskWrittenJob {
    Write* write = nullptr;
  };

  void* owner = nullptr;  // DiskWriter::Impl
  ObjectId id;
  uint64_t object_bytes = 0;
  uint64_t position = 0;       // of the index's chunk
  uint64_t blocks = 0;         // bits of the chunk
  Frame* frame = nullptr;      // held
  std::byte* bytes = nullptr;  // the frame's
  uint64_t within = 0;         // of the chunk, where the frame begins
  uint64_t reserved_bytes = 0;
  DiskFile* file = nullptr;  // with a reference
  uint8_t disk = 0;
  bool creating = false;
  List<Write> followers;
  unsigned runs_in_flight = 0;
  int os_errno = 0;
  Create create;
  Written written;
  Run runs[runs_max];

  std::byte* bytes_at(uint64_t offset_in_chunk) const { return bytes + (offset_in_chunk - within); }
};

// The bytes between the object's end and the next page, if its last block is written.
void zero_behind_end(const Write& write) {
  const uint64_t chunk_begin = write.position * disk_format::index_chunk_bytes;
  const uint64_t last = static_cast<unsigned>(63 - std::countl_zero(write.blocks));
  const uint64_t blocks_end = chunk_begin + (last + 1) * block_bytes;
  if (blocks_end < write.object_bytes) return;
  const size_t padding = round_up_to_page(write.object_bytes) - write.object_bytes;
  std::memset(write.bytes_at(write.object_bytes - chunk_begin), 0, padding);
}

}  // namespace

struct DiskWriter::Impl {
  struct StepTimer : Timer {
    Impl* impl = nullptr;
  };

  explicit Impl(const Options& writer_options)
      : options(writer_options),
        tier(*options.tier),
        memory(*options.memory),
        packer({.tier = options.tier,
                .memory = options.memory,
                .reactor = options.reactor,
                .staging = options.staging,
                .staging_buffer_index = options.staging_buffer_index,
                .on_room = [](void* context) { static_cast<Impl*>(context)->step_soon(); },
                .on_room_context = this}) {
    step_timer.impl = this;
    step_timer.handler = [](Timer& timer) { static_cast<StepTimer&>(timer).impl->step(); };
    for (uint32_t i = 0; i < writes_max; ++i) {
      Write& write = writes[i];
      write.owner = this;
      write.create.on_done = &on_created;
      write.written.on_done = &on_told;
      write.create.write = write.written.write = &write;
      for (Run& run : write.runs) {
        run.handler = &on_run;
        run.write = &write;
      }
    }
  }
  ~Impl() { BC_ASSERT(writes.free_count() == writes_max && !step_timer.armed()); }

  static Impl& of(Write& write) { return *static_cast<Impl*>(write.owner); }

  Write* find_creating(const ObjectId& id);
  void create_file(Write& write);
  void make_ready(Write& write);
  void step_soon();
  void step();
  void start(Write& write);
  void start_run(Write& write, Run& run, unsigned first, unsigned count);
  void stop_writing(Write& write);
  void let_go(Write& write);
  void finish(Write& write, bool written);
  void shed(Write& write, int os_errno, bool written = false);
  void end(Write& write);

  static void on_created(DiskJob& job);
  static void on_run(Op& op, int32_t result, uint32_t flags);
  static void on_told(DiskJob& job);

  const Options options;
  DiskTier& tier;
  MemoryTier& memory;
  DiskPacker packer;
  Pool<Write> writes{writes_max};
  List<Write> ready;
  unsigned creating_count = 0;
  unsigned writing_count = 0;
  uint64_t held_bytes = 0;
  uint64_t last_end_ns = 0;  // of a write that held bytes
  StepTimer step_timer;
};

DiskWriter::DiskWriter(const Options& options) : impl_(std::make_unique<Impl>(options)) {}
DiskWriter::~DiskWriter() = default;

size_t DiskWriter::staging_bytes(unsigned disks, uint64_t chunk_bytes) {
  return size_t{disks} * DiskPacker::buffers_per_disk * DiskPacker::buffer_bytes(chunk_bytes);
}

size_t DiskWriter::state_bytes(unsigned disks, uint64_t chunk_bytes) {
  return sizeof(Impl) + writes_max * (sizeof(Write) + sizeof(uint32_t)) + DiskPacker::state_bytes(disks, chunk_bytes);
}

void DiskWriter::write_blocks(const ObjectId& id, uint64_t object_bytes, Frame& frame, uint64_t frame_offset,
                              uint64_t blocks, uint64_t damaged) {
  Impl& impl = *impl_;
  BC_ASSERT(blocks != 0 && frame_offset % block_bytes == 0 && frame_offset < object_bytes);
  const uint64_t position = frame_offset / disk_format::index_chunk_bytes;
  const uint64_t within = frame_offset % disk_format::index_chunk_bytes;
  const uint64_t of_chunk = blocks << (within / block_bytes);
  BC_ASSERT((of_chunk & ~disk_format::blocks_mask(object_bytes, position)) == 0);
  DiskView view;
  const bool known = impl.tier.find(id, position, &view);
  if (known && (view.place.packed || view.size != object_bytes)) return;
  const uint64_t there = known ? view.valid & ~(damaged << (within / block_bytes)) : 0;
  const uint64_t wanted = of_chunk & ~there;
  if (wanted == 0) return;

  Write* creating = impl.find_creating(id);
  const int disk = creating != nullptr ? creating->disk : known ? view.place.disk : impl.tier.disk_for(id);
  const uint64_t bytes = disk_format::bytes_of_blocks(object_bytes, position, wanted);
  if (disk < 0) return impl.tier.on_shed(id, bytes);
  const DiskSpace::For what = known && view.pinned ? DiskSpace::For::pinned : DiskSpace::For::any;
  if (!impl.tier.begin_write(static_cast<unsigned>(disk), bytes, what)) return;
  const uint64_t frame_bytes = impl.memory.frame_size(frame);
  const bool may_hold = impl.held_bytes + frame_bytes <= impl.options.held_bytes_max;
  Write* write = may_hold ? impl.writes.try_acquire() : nullptr;
  if (write == nullptr) {
    impl.tier.abandon_write(static_cast<unsigned>(disk), bytes, 0);
    return;
  }
  impl.memory.hold(frame);
  impl.held_bytes += frame_bytes;
  write->id = id;
  write->object_bytes = object_bytes;
  write->position = position;
  write->blocks = wanted;
  write->frame = &frame;
  write->bytes = impl.memory.frame_bytes(frame);
  write->within = within;
  write->reserved_bytes = bytes;
  write->disk = static_cast<uint8_t>(disk);
  write->os_errno = 0;
  zero_behind_end(*write);

  if (creating != nullptr) {
    creating->followers.push_back(*write);
    return;
  }
  if (known) write->file = impl.tier.try_file(id, view);
  if (write->file != nullptr)
    impl.make_ready(*write);
  else
    impl.create_file(*write);
}

void DiskWriter::write_packed(const ObjectId& id, uint64_t object_bytes) {
  if (impl_->packer.add(id, object_bytes)) impl_->step_soon();
}

// A step that was asked for and finds nothing to do counts too: its timer is the writer's.
bool DiskWriter::crowded() const {
  const Impl& impl = *impl_;
  return impl.held_bytes > impl.options.held_bytes_max / 2 &&
         impl.options.reactor->now_ns() - impl.last_end_ns < crowd_patience_ns;
}

bool DiskWriter::idle() const {
  return impl_->writes.free_count() == writes_max && impl_->packer.idle() && !impl_->step_timer.armed();
}

void DiskWriter::flush() {
  impl_->packer.flush();
  if (!impl_->ready.empty()) impl_->step_soon();
}

Write* DiskWriter::Impl::find_creating(const ObjectId& id) {
  if (creating_count == 0) return nullptr;
  for (uint32_t i = 0; i < writes_max; ++i) {
    if (writes[i].creating && writes[i].id == id) return &writes[i];
  }
  return nullptr;
}

void DiskWriter::Impl::create_file(Write& write) {
  write.creating = true;
  ++creating_count;
  write.create.disk = write.disk;
  write.create.id = write.id;
  write.create.object_bytes = write.object_bytes;
  write.create.file = nullptr;
  write.create.failed = false;
  tier.post(*options.reactor, write.create);
}

void DiskWriter::Impl::on_created(DiskJob& job) {
  auto& create = static_cast<Write::Create&>(job);
  Write& write = *create.write;
  Impl& impl = of(write);
  write.creating = false;
  --impl.creating_count;
  List<Write> all;
  all.push_back(write);
  while (Write* follower = write.followers.pop_front()) all.push_back(*follower);
  while (Write* each = all.pop_front()) {
    if (create.failed) {
      impl.let_go(*each);
      impl.shed(*each, 0);  // the keeper knows why
      continue;
    }
    BC_ASSERT(create.file != nullptr && !create.file->packed);
    if (each != &write) impl.tier.reference(*create.file);
    each->file = create.file;
    impl.make_ready(*each);
  }
}

void DiskWriter::Impl::make_ready(Write& write) {
  ready.push_back(write);
  step_soon();
}

void DiskWriter::Impl::step_soon() {
  if (!step_timer.armed()) options.reactor->arm(step_timer, next_turn_ns);
}

// One write or one object a turn: up to 4 MiB of checksums, a third of a millisecond.
void DiskWriter::Impl::step() {
  if (Write* write = writing_count < writing_max ? ready.pop_front() : nullptr)
    start(*write);
  else
    packer.step();
  if ((writing_count < writing_max && !ready.empty()) || packer.has_work()) step_soon();
}

void DiskWriter::Impl::start(Write& write) {
  DiskFile& file = *write.file;
  ++writing_count;
  write.written.drops_seen = tier.drops_done(write.disk);
  file.writing.fetch_add(1, std::memory_order_seq_cst);
  if (file.gone.load(std::memory_order_acquire) || file.armed.load(std::memory_order_seq_cst) != 0) {
    finish(write, false);
    return;
  }
  const uint64_t chunk_begin = write.position * disk_format::index_chunk_bytes;
  for (uint64_t rest = write.blocks; rest != 0; rest &= rest - 1) {
    const auto block = static_cast<unsigned>(std::countr_zero(rest));
    const uint64_t at = block * block_bytes;
    const uint64_t left = write.object_bytes - chunk_begin - at;
    write.written.checksums[block] =
        disk_format::block_checksum({write.bytes_at(at), left < block_bytes ? left : block_bytes});
  }
  unsigned run_count = 0;
  for (uint64_t rest = write.blocks; rest != 0;) {
    const auto first = static_cast<unsigned>(std::countr_zero(rest));
    const auto count = static_cast<unsigned>(std::countr_one(rest >> first));
    rest = first + count == limits::blocks_per_chunk_frame ? 0 : rest >> (first + count) << (first + count);
    start_run(write, write.runs[run_count++], first, count);
  }
  write.runs_in_flight = run_count;
}

void DiskWriter::Impl::start_run(Write& write, Run& run, unsigned first, unsigned count) {
  const uint64_t at = first * block_bytes;
  const uint64_t offset = write.position * disk_format::index_chunk_bytes + at;
  const uint64_t end = offset + count * block_bytes;
  const uint64_t file_end = round_up_to_page(write.object_bytes);
  run.bytes = static_cast<uint32_t>((end < file_end ? end : file_end) - offset);
  const FileRef file = FileRef::fd(write.file->fd);
  Sqe& sqe = options.reactor->prepare(run);
  if (options.registered_buffers)
    prep_write_fixed(sqe, file, write.bytes_at(at), {offset, run.bytes}, memory.buffer_index(*write.frame));
  else
    prep_write(sqe, file, write.bytes_at(at), {offset, run.bytes});
}

void DiskWriter::Impl::on_run(Op& op, int32_t result, uint32_t) {
  auto& run = static_cast<Run&>(op);
  Write& write = *run.write;
  if (result < 0)
    write.os_errno = -result;
  else if (static_cast<uint32_t>(result) != run.bytes && write.os_errno == 0)
    write.os_errno = ENOSPC;  // a short direct write is one that found no more room
  if (--write.runs_in_flight > 0) return;
  Impl& impl = of(write);
  DiskFile& file = *write.file;
  if (write.os_errno != 0 || file.gone.load(std::memory_order_acquire)) {
    impl.finish(write, true);
    return;
  }
  impl.stop_writing(write);
  impl.let_go(write);
  write.written.disk = write.disk;
  write.written.file = &file;
  write.written.position = write.position;
  write.written.blocks = write.blocks;
  write.written.reserved_bytes = write.reserved_bytes;
  write.written.failed = false;
  impl.tier.post(*impl.options.reactor, write.written);
}

void DiskWriter::Impl::stop_writing(Write& write) {
  write.file->writing.fetch_sub(1, std::memory_order_seq_cst);
  --writing_count;
  if (!ready.empty()) step_soon();
}

void DiskWriter::Impl::let_go(Write& write) {
  held_bytes -= memory.frame_size(*write.frame);
  last_end_ns = options.reactor->now_ns();
  memory.unhold(*write.frame);
}

// Nothing of it is in flight, and nothing of it is to be told.
void DiskWriter::Impl::finish(Write& write, bool written) {
  stop_writing(write);
  let_go(write);
  shed(write, write.os_errno, written);
}

void DiskWriter::Impl::shed(Write& write, int os_errno, bool written) {
  tier.abandon_write(write.disk, write.reserved_bytes, os_errno, written);
  end(write);
}

void DiskWriter::Impl::on_told(DiskJob& job) {
  Write& write = *static_cast<Write::Written&>(job).write;
  of(write).end(write);
}

void DiskWriter::Impl::end(Write& write) {
  if (write.file != nullptr) tier.release(*write.file);
  write.file = nullptr;
  write.frame = nullptr;
  writes.release(write);
}

}  // namespace blobcache
